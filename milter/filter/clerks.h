/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CLERKS_H
#define CM_CLERKS_H

#include "milter/err.h"

#include <stdatomic.h>
#include <stdbool.h>

/*
 * A few threads for what may have to wait, so that the thread of a loop never
 * has to: the loop gives errands, is woken by a descriptor, and takes back what
 * is done. An errand belongs to the clerks from the one to the other, save for
 * called_off, which the loop may set at any time.
 */
struct cm_errand {
    struct cm_errand *next; /* the clerks' */
    atomic_bool called_off; /* not run any more if it has not been begun */
    bool was_run;
    void (*run)(struct cm_errand *errand);
};

struct cm_clerks;

/* cm_clerks_start - n threads, 1... done_fd: an eventfd, borrowed, that becomes
 * readable when something is done. CM_OK, CM_ENOMEM, CM_EIO. */
enum cm_status cm_clerks_start(struct cm_clerks **clerks_r, unsigned n,
                               int done_fd, struct cm_err *err) CM_MUST_CHECK;

/* cm_clerks_give - an errand whose members but next are set. Does not wait. */
void cm_clerks_give(struct cm_clerks *clerks, struct cm_errand *errand);

/* cm_clerks_take - one that is done, in the order of their ends; NULL: none. */
struct cm_errand *cm_clerks_take(struct cm_clerks *clerks);

/* cm_clerks_stop - wait for what is being run; everything given is then to be
 * taken, run or not. cm_clerks_free - after that. NULL inside is fine. */
void cm_clerks_stop(struct cm_clerks *clerks);
void cm_clerks_free(struct cm_clerks **clerks);

#endif
