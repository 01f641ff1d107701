/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every kind of fault is a row: its turn among several, and the function that
 * carries it out alone. What changes the message has no such function, because
 * all changes to one message are made together, at its end (edit.c); nor has a
 * delay, because a reply is held once, for all that hold it (effect.c).
 *
 * A drop cuts the connection first, and the verdict is given after it, so the
 * MTA's reply finds nobody. With a temporary failure the MTA keeps nothing
 * (lost); with "continue" it delivers what the client will send again (ack
 * lost, RFC 1047).
 */
#include "milter/filter/deed.h"
#include "milter/filter/cut.h"
#include "milter/filter/incident.h"
#include "milter/filter/ticket.h"
#include "milter/model/reply.h"

#include <libmilter/mfapi.h>
#include <stdio.h>

/* The sessions of libmilter, as our headers name them. */
typedef struct smfi_str *milter;

typedef int deed(struct cm_session *session, milter ctx,
                 const struct cm_fate *fate, unsigned others);
static deed refuse, drop;

static const struct {
    enum cm_deed_turn turn;
    deed *alone;
} deeds[CM_FAULT_COUNT] = {
    [CM_FAULT_ERROR] = {CM_DEED_REFUSAL, refuse},
    [CM_FAULT_LATENCY] = {CM_DEED_DELAY, NULL},
    [CM_FAULT_DROP] = {CM_DEED_CUT, drop},
    [CM_FAULT_GREYLIST] = {CM_DEED_REFUSAL, refuse},
    [CM_FAULT_BLACKHOLE] = {CM_DEED_EDIT, NULL},
    [CM_FAULT_THROTTLE] = {CM_DEED_REFUSAL, refuse},
    [CM_FAULT_SEQUENCE] = {CM_DEED_REFUSAL, NULL}, /* met as one of its steps */
    [CM_FAULT_QUARANTINE] = {CM_DEED_EDIT, NULL},
    [CM_FAULT_DUPLICATE] = {CM_DEED_EDIT, NULL},
    [CM_FAULT_MISDELIVER] = {CM_DEED_EDIT, NULL},
    [CM_FAULT_MUTATE] = {CM_DEED_EDIT, NULL},
    [CM_FAULT_HIDE] = {CM_DEED_EDIT, NULL}, /* the command hook's */
};

enum cm_deed_turn
cm_deed_turn(const struct cm_fate *fate)
{
    return deeds[fate->fault->kind].turn;
}

const char *
cm_deed_queue_id(milter ctx)
{
    return smfi_getsymval(ctx, (char *)"i");
}

void
cm_deed_record(struct cm_session *session, milter ctx,
               const struct cm_fate *fate, enum cm_incident_outcome outcome,
               unsigned others, const char *detail)
{
    struct cm_incident incident;
    cm_incident_make(&incident, session, fate, cm_deed_queue_id(ctx));
    incident.others = others;
    cm_incident_close(session->filter, &incident, outcome, detail);
}

/* smfi_setmlreply() makes up an enhanced code, "4.0.0", where there is none
 * (libmilter 8.17.1); its elder sister does not, and takes one line. */
static bool
hand_over(milter ctx, const struct cm_reply *reply)
{
    char code[4];
    char *l[CM_REPLY_LINES_MAX] = {NULL};
    snprintf(code, sizeof code, "%d", reply->code);
    if (!reply->enhanced[0])
        return smfi_setreply(ctx, code, NULL, reply->wire[0]) == MI_SUCCESS;
    for (size_t i = 0; i < reply->nlines && i < CM_REPLY_LINES_MAX; i++)
        l[i] = reply->wire[i];
    /* The first NULL ends the list. */
    return smfi_setmlreply(ctx, code, reply->enhanced, l[0], l[1], l[2], l[3],
                           l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11],
                           l[12], l[13], l[14], l[15], l[16], l[17], l[18],
                           l[19], l[20], l[21], l[22], l[23], l[24], l[25],
                           l[26], l[27], l[28], l[29], l[30], l[31],
                           NULL) == MI_SUCCESS;
}

/* Hands a reply to libmilter: the class of the code decides what must be
 * returned. SMFIS_CONTINUE when libmilter will not take it. */
static int
set_reply(milter ctx, const struct cm_reply *reply)
{
    if (!hand_over(ctx, reply))
        return SMFIS_CONTINUE;
    return cm_reply_is_temporary(reply) ? SMFIS_TEMPFAIL : SMFIS_REJECT;
}

static int
refuse(struct cm_session *session, milter ctx, const struct cm_fate *fate,
       unsigned others)
{
    int verdict = set_reply(ctx, fate->reply);
    if (verdict == SMFIS_CONTINUE) {
        cm_filter_count(session->filter, CM_FILTER_REPLY_REFUSED);
        cm_deed_record(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, others,
                       "libmilter refused the reply");
    } else {
        cm_deed_record(session, ctx, fate, CM_INCIDENT_APPLIED, others, NULL);
    }
    return verdict;
}

int
cm_deed_redeem(struct cm_session *session, milter ctx, struct cm_ticket *ticket)
{
    int verdict = set_reply(ctx, ticket->reply);
    if (verdict == SMFIS_CONTINUE) {
        cm_filter_count(session->filter, CM_FILTER_REPLY_REFUSED);
        cm_ticket_void(session->filter, &ticket, "libmilter refused the reply");
    } else {
        cm_incident_close(session->filter, &ticket->incident,
                          CM_INCIDENT_APPLIED, NULL);
        cm_ticket_free(&ticket);
    }
    return verdict;
}

/* A drop that was due and not done: recorded as that, whatever the settings
 * want the client to be told instead. */
static int
miss_drop(struct cm_session *session, milter ctx, const struct cm_fate *fate,
          unsigned others, const char *why)
{
    const struct cm_reply *instead =
        session->msg.guarded ? NULL : session->filter->drop_instead;
    char detail[CM_INCIDENT_TEXT];
    int verdict = instead ? set_reply(ctx, instead) : SMFIS_CONTINUE;
    if (verdict == SMFIS_CONTINUE)
        snprintf(detail, sizeof detail, "%s", why);
    else
        snprintf(detail, sizeof detail, "%d instead: %.100s", instead->code,
                 why);
    cm_deed_record(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, others, detail);
    return verdict;
}

static int
drop(struct cm_session *session, milter ctx, const struct cm_fate *fate,
     unsigned others)
{
    const struct cm_fault_drop *d = &fate->fault->u.drop;
    bool lost = d->outcome == CM_DROP_LOST;
    char detail[CM_INCIDENT_TEXT];
    if (!cm_cut(session, d->how, detail, sizeof detail))
        return miss_drop(session, ctx, fate, others, detail);
    session->msg.cut = true;
    snprintf(detail, sizeof detail, "%s, %s",
             d->how == CM_DROP_RST ? "RST" : "FIN",
             lost ? "message lost" : "acknowledgement lost");
    cm_deed_record(session, ctx, fate, CM_INCIDENT_APPLIED, others, detail);
    return lost ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

int
cm_deed_do(struct cm_session *session, milter ctx, const struct cm_fate *fate,
           unsigned others)
{
    deed *alone = deeds[fate->fault->kind].alone;
    if (cm_filter_halted(session->filter)) {
        cm_deed_record(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, 0,
                       "halted");
        return SMFIS_CONTINUE;
    }
    const char *why = cm_fate_hindrance(session, fate);
    if (!why && !alone)
        why = "it acts at the end of a message only";
    if (!why)
        return alone(session, ctx, fate, others);
    if (fate->fault->kind == CM_FAULT_DROP)
        return miss_drop(session, ctx, fate, 0, why);
    cm_deed_record(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, 0, why);
    return SMFIS_CONTINUE;
}
