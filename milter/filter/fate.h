/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FATE_H
#define CM_FATE_H

#include "milter/model/fault.h"
#include "milter/model/stage.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_inbox;
struct cm_reply;
struct cm_rule;
struct cm_session;

#define CM_FATE_DETAIL_BYTES 128

/*
 * One fault on its way: decided for one recipient (or for none, before there is
 * one), to act at its stage. A fate that waits for a later stage owns what it
 * points to; cm_session_defer makes it so.
 */
struct cm_fate {
    const struct cm_rule *rule;   /* kept alive by inbox, or by the message */
    const struct cm_fault *fault; /* the rule's, or one step of its sequence */
    struct cm_inbox *inbox;       /* reference, or NULL: a rule of the list */
    enum cm_stage stage;
    uint64_t occurrence;          /* as in struct cm_decision */
    int64_t delay_ms;             /* latency */
    uint64_t draw;                /* which bits are flipped */
    const struct cm_reply *reply; /* what refuses; lives as long as rule */
    const char *recipient;        /* canonical; "" when the stage knows none */
    const char *typed;            /* as given in RCPT, for smfi_delrcpt */
    char detail[CM_FATE_DETAIL_BYTES]; /* "attempt 1/2"; "" */
    bool closed; /* at DATA or later: done, or known to be impossible */
};

/* cm_fate_touches_others - does it, at its own stage, touch other recipients of
 * the message too? */
bool cm_fate_touches_others(const struct cm_fate *fate);

/* cm_fate_hindrance - why it cannot be carried out in this session, NULL when
 * it can, or when only a try will tell. The text lives as long as the filter.
 */
const char *cm_fate_hindrance(const struct cm_session *session,
                              const struct cm_fate *fate);

#endif
