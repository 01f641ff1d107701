/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be told of a fate before it is tried: whom it would touch, and what
 * stands in its way. Asked before a hit is counted and again before anything is
 * done, so that what cannot be done costs nothing and is never claimed.
 */
#include "milter/filter/fate.h"
#include "milter/filter/delay.h"
#include "milter/filter/session.h"
#include "milter/model/reply.h"

/* At RCPT only by ending the session; later by nature, save for a blackhole. */
bool
cm_fate_touches_others(const struct cm_fate *fate)
{
    if (fate->fault->kind == CM_FAULT_DROP)
        return true;
    if (fate->stage == CM_STAGE_DATA || fate->stage == CM_STAGE_MESSAGE)
        return fate->fault->kind != CM_FAULT_BLACKHOLE;
    return fate->reply && cm_reply_ends_session(fate->reply);
}

const char *
cm_fate_hindrance(const struct cm_session *session, const struct cm_fate *fate)
{
    const char *why = cm_filter_unavailable(session->filter, fate->fault);
    if (!why)
        why = cm_mta_cannot(session->mta, fate->fault, fate->stage);
    if (!why)
        why = cm_delay_hindrance(session, fate);
    if (!why && session->msg.guarded && cm_fate_touches_others(fate))
        why = "a protected recipient shares the message";
    return why;
}
