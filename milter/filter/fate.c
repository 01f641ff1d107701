/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be told of a fate before it is tried: whom it would touch, and what
 * stands in its way. Asked before a hit is counted and again before anything is
 * done, so that what cannot be done costs nothing and is never claimed.
 */
#include "milter/filter/fate.h"
#include "milter/filter/session.h"
#include "milter/model/reply.h"

#include <string.h>

/* What changes where one recipient's copy goes, and nothing else. */
static bool
moves_one_copy(enum cm_fault_kind kind)
{
    return kind == CM_FAULT_BLACKHOLE || kind == CM_FAULT_DUPLICATE ||
           kind == CM_FAULT_MISDELIVER;
}

/* At RCPT only by ending the session; later by nature. */
bool
cm_fate_touches_others(const struct cm_fate *fate)
{
    if (fate->fault->kind == CM_FAULT_DROP)
        return true;
    if (fate->stage == CM_STAGE_DATA || fate->stage == CM_STAGE_MESSAGE)
        return !moves_one_copy(fate->fault->kind);
    return fate->reply && cm_reply_ends_session(fate->reply);
}

/* Nobody who is protected is given what was not meant for him. */
static const char *
misdelivery_hindrance(struct cm_filter *filter, const struct cm_fate *fate)
{
    const char *to = fate->fault->u.misdeliver_to;
    struct cm_address addr;
    if (cm_address_parse(&addr, to, strlen(to), filter->address_flags, NULL) !=
        CM_OK)
        return "no valid address to deliver to";
    if (cm_filter_protects(filter, &addr))
        return "the recipient to deliver to is protected";
    return strcmp(addr.text, fate->recipient) == 0
               ? "the mail is for that recipient anyway"
               : NULL;
}

/* Only where the command hook stands in for a session: see question.c. */
static const char *
speechless(const struct cm_session *session, const struct cm_reply *reply)
{
    if (!session->mute && session->hooked && session->only_temporary &&
        !cm_reply_is_temporary(reply))
        return "Postfix 3.10 and later put their own 500 in place of a 5xx";
    return session->mute;
}

const char *
cm_fate_hindrance(const struct cm_session *session, const struct cm_fate *fate)
{
    const char *why = cm_filter_unavailable(session->filter, fate->fault);
    if (!why)
        why = cm_mta_cannot(session->mta, fate->fault, fate->stage);
    if (!why && fate->fault->kind == CM_FAULT_LATENCY)
        why = cm_patience_exceeded(&session->filter->patience, session->mta,
                                   fate->stage, fate->delay_ms);
    if (!why)
        why = cm_terms_lack(&session->terms, fate->fault);
    if (!why && fate->fault->kind == CM_FAULT_MISDELIVER)
        why = misdelivery_hindrance(session->filter, fate);
    if (!why && fate->reply)
        why = speechless(session, fate->reply);
    if (!why && session->msg.guarded && cm_fate_touches_others(fate))
        why = "a protected recipient shares the message";
    return why;
}
