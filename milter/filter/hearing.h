/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HEARING_H
#define CM_HEARING_H

#include "milter/filter/clerks.h"
#include "milter/filter/question.h"

/*
 * A question that a clerk judges, since that may have to wait for Redis. Who
 * asked may leave, or be tired of waiting, before there is a ruling.
 */
struct cm_hearing {
    struct cm_errand base;
    void *asker; /* borrowed; NULL: called off */
    struct cm_question question;
    struct cm_ruling ruling;
};

/* cm_hearing_begin - the question is taken over, in every case. NULL: out of
 * memory. */
struct cm_hearing *cm_hearing_begin(struct cm_clerks *clerks,
                                    struct cm_question *question, void *asker);

/* cm_hearing_call_off - nobody waits for it any more; it is freed when the
 * clerks are done with it. NULL inside is fine. */
void cm_hearing_call_off(struct cm_hearing **hearing);

/* cm_hearing_take - the next one that is done, with its ruling; NULL: none. One
 * that was called off after all is not given but freed, and its fault recorded
 * as decided too late. */
struct cm_hearing *cm_hearing_take(struct cm_clerks *clerks);
void cm_hearing_free(struct cm_hearing **hearing);

#endif
