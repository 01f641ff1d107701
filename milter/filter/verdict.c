/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults are decided per recipient at RCPT and act at their own stage. Errors
 * at RCPT touch that recipient alone; what is answered once for the whole
 * message (DATA, the final reply) touches the others of that message too, and
 * the record says how many. Of several recipients' fates at one stage a refusal
 * comes first (the message is not accepted, so nothing else of it can be done),
 * then recipients are taken out, and the longest delay holds the reply.
 *
 * A drop comes before all of that: the connection is cut first and the verdict
 * given after it, so the MTA's reply finds nobody. With a temporary failure the
 * MTA keeps nothing (lost); with "continue" it delivers what the client will
 * send again (ack lost, RFC 1047).
 *
 * A protected recipient protects its whole message from what would touch it
 * too: such a fault is recorded as unavailable.
 */
#include "milter/filter/verdict.h"
#include "milter/filter/cut.h"
#include "milter/filter/deliberate.h"
#include "milter/filter/delay.h"
#include "milter/filter/incident.h"
#include "milter/log.h"
#include "milter/model/inbox.h"
#include "milter/model/protect.h"
#include "milter/model/reply.h"
#include "milter/store/replica.h"

#include <libmilter/mfapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sessions of libmilter, as our headers name them. */
typedef struct smfi_str *milter;

static const char *
queue_id(milter ctx)
{
    return smfi_getsymval(ctx, (char *)"i");
}

static void
close_fate(struct cm_session *session, milter ctx, const struct cm_fate *fate,
           enum cm_incident_outcome outcome, unsigned others,
           const char *detail)
{
    struct cm_incident incident;
    cm_incident_make(&incident, session, fate, queue_id(ctx));
    incident.others = others;
    cm_incident_close(session->filter, &incident, outcome, detail);
}

static bool
is_drop(const struct cm_fate *fate)
{
    return fate->fault->kind == CM_FAULT_DROP;
}

/* Does the fate, at its own stage, touch other recipients of the message too?
 * At RCPT only by ending the session; later by nature, save for a blackhole. */
static bool
touches_others(const struct cm_fate *fate)
{
    if (is_drop(fate))
        return true;
    if (fate->stage == CM_STAGE_DATA || fate->stage == CM_STAGE_MESSAGE)
        return fate->fault->kind != CM_FAULT_BLACKHOLE;
    return fate->reply && cm_reply_ends_session(fate->reply);
}

/* Why the fate cannot be carried out, NULL when it can. */
static const char *
hindrance(const struct cm_session *session, const struct cm_fate *fate)
{
    const char *why = cm_filter_unavailable(session->filter, fate->fault);
    if (!why && session->msg.guarded && touches_others(fate))
        why = "a protected recipient shares the message";
    return why;
}

/* Hands a reply to libmilter: the class of the code decides what must be
 * returned. SMFIS_CONTINUE when libmilter will not take it. */
static int
set_reply(milter ctx, const struct cm_reply *reply)
{
    char code[4];
    char *l[CM_REPLY_LINES_MAX] = {NULL};
    snprintf(code, sizeof code, "%d", reply->code);
    for (size_t i = 0; i < reply->nlines && i < CM_REPLY_LINES_MAX; i++)
        l[i] = reply->wire[i];
    /* The first NULL ends the list. */
    if (smfi_setmlreply(ctx, code, reply->enhanced[0] ? reply->enhanced : NULL,
                        l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8],
                        l[9], l[10], l[11], l[12], l[13], l[14], l[15], l[16],
                        l[17], l[18], l[19], l[20], l[21], l[22], l[23], l[24],
                        l[25], l[26], l[27], l[28], l[29], l[30], l[31],
                        NULL) != MI_SUCCESS)
        return SMFIS_CONTINUE;
    return cm_reply_is_temporary(reply) ? SMFIS_TEMPFAIL : SMFIS_REJECT;
}

/* Refuses with the fate's reply and records it. SMFIS_CONTINUE: it could not be
 * done, which is recorded too. */
static int
refuse(struct cm_session *session, milter ctx, const struct cm_fate *fate,
       unsigned others)
{
    int verdict = set_reply(ctx, fate->reply);
    if (verdict == SMFIS_CONTINUE) {
        cm_filter_count(session->filter, CM_FILTER_REPLY_REFUSED);
        close_fate(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, others,
                   "libmilter refused the reply");
    } else {
        close_fate(session, ctx, fate, CM_INCIDENT_APPLIED, others, NULL);
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
    close_fate(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, others, detail);
    return verdict;
}

static int
drop(struct cm_session *session, milter ctx, const struct cm_fate *fate,
     unsigned others)
{
    const struct cm_fault_drop *d = &fate->fault->u.drop;
    bool lost = d->outcome == CM_DROP_LOST;
    char detail[CM_INCIDENT_TEXT];
    const char *why = hindrance(session, fate);
    if (why)
        return miss_drop(session, ctx, fate, 0, why);
    if (!cm_cut(session, d->how, detail, sizeof detail))
        return miss_drop(session, ctx, fate, others, detail);
    session->msg.cut = true;
    snprintf(detail, sizeof detail, "%s, %s",
             d->how == CM_DROP_RST ? "RST" : "FIN",
             lost ? "message lost" : "acknowledgement lost");
    close_fate(session, ctx, fate, CM_INCIDENT_APPLIED, others, detail);
    return lost ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

/* A fate whose stage is now and which concerns this one reply alone. */
static int
act_now(struct cm_session *session, milter ctx, const struct cm_fate *fate)
{
    enum cm_fault_kind kind = fate->fault->kind;
    /* What ends the session takes the recipients before with it. */
    unsigned others =
        touches_others(fate) ? (unsigned)session->msg.accepted : 0;
    if (is_drop(fate))
        return drop(session, ctx, fate, others);
    const char *why = hindrance(session, fate);
    if (why) {
        close_fate(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, 0, why);
    } else if (fate->reply) {
        return refuse(session, ctx, fate, others);
    } else if (kind == CM_FAULT_LATENCY) {
        cm_delay_reply(session, &fate, 1, queue_id(ctx), 0);
    }
    return SMFIS_CONTINUE;
}

int
cm_verdict_command(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_event event;
    struct cm_walk walk;
    struct cm_fate fate;
    struct cm_view *view = NULL;
    struct cm_ruleset *rules = session->msg.rules;
    int verdict = SMFIS_CONTINUE;

    /* Before MAIL there is no message that holds the rules for us. */
    if (!session->msg.open &&
        (view = cm_replica_view(session->filter->replica)))
        rules = cm_view_rules(view);
    if (cm_ruleset_stages(rules) & CM_STAGE_BIT(stage)) {
        cm_session_event(session, stage, &event);
        cm_decide_start(&walk, NULL, rules, &event, &session->coin);
        if (cm_deliberate(session, &walk, NULL, "", "", "", &fate))
            verdict = act_now(session, ctx, &fate);
    }
    if (view) {
        cm_ruleset_release(&rules);
        cm_view_release(&view);
    }
    return verdict;
}

/* --- RCPT --- */

struct target {
    struct cm_address full, base; /* base: without the sub-address */
    bool has_base;
    struct cm_inbox *inbox; /* reference, or NULL */
    const char *inbox_name; /* the address it was found under */
};

static void
note_invalid(struct cm_filter *filter, const char *typed)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    char quoted[512];
    cm_filter_count(filter, CM_FILTER_INVALID_ADDRESS);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_info("no valid address, so no chaos: rcpt=\"%s\" held_back=%lu",
                    cm_log_quote(quoted, sizeof quoted, typed), held_back);
}

/* Fills the target; false: no valid address, or a protected one. */
static bool
find_target(struct cm_session *session, const char *typed, struct target *t)
{
    struct cm_filter *filter = session->filter;
    if (cm_address_parse(&t->full, typed, strlen(typed), filter->address_flags,
                         NULL) != CM_OK ||
        t->full.len == 0) {
        note_invalid(filter, typed);
        return false;
    }
    t->has_base =
        cm_address_strip_tag(&t->full, filter->recipient_delimiter, &t->base);
    pthread_rwlock_rdlock(&filter->protect_lock);
    bool covered =
        cm_protect_covers(filter->protect, &t->full) ||
        (t->has_base && cm_protect_covers(filter->protect, &t->base));
    pthread_rwlock_unlock(&filter->protect_lock);
    if (covered) {
        cm_filter_count(filter, CM_FILTER_PROTECTED);
        session->msg.guarded = true;
        return false;
    }
    struct cm_view *view = session->msg.view;
    t->inbox_name = t->full.text;
    t->inbox = cm_view_inbox(view, t->full.text, t->full.len);
    if (!t->inbox && t->has_base) {
        t->inbox = cm_view_inbox(view, t->base.text, t->base.len);
        t->inbox_name = t->base.text;
    }
    return true;
}

static int
defer(struct cm_session *session, const struct cm_fate *fate)
{
    if (cm_session_defer(session, fate) != CM_OK)
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
    return SMFIS_CONTINUE;
}

/* The mail's rules can act at these stages only once all recipients are known.
 */
#define CM_STAGES_LATE                                                         \
    (CM_STAGE_BIT(CM_STAGE_DATA) | CM_STAGE_BIT(CM_STAGE_MESSAGE))

static int
judge_rcpt(struct cm_session *session, milter ctx, struct target *t,
           const char *typed)
{
    struct cm_event event;
    struct cm_walk walk;
    struct cm_fate fate;
    cm_session_event(session, CM_STAGE_RCPT, &event);
    event.recipient = &t->full;
    event.others = session->msg.accepted > 0;
    event.recipient_base = t->has_base ? &t->base : NULL;
    cm_decide_start(&walk, t->inbox, session->msg.rules, &event,
                    &session->coin);
    if (!cm_deliberate(session, &walk, t->inbox, t->inbox_name, t->full.text,
                       typed, &fate))
        return SMFIS_CONTINUE;
    if (fate.stage != CM_STAGE_RCPT)
        return defer(session, &fate);
    int verdict = act_now(session, ctx, &fate);
    cm_inbox_release(&fate.inbox);
    return verdict;
}

int
cm_verdict_rcpt(struct cm_session *session, milter ctx, const char *typed)
{
    struct cm_message *msg = &session->msg;
    struct target t = {.inbox = NULL};
    int verdict = SMFIS_CONTINUE;
    size_t fates = msg->nfates;
    bool late = (cm_ruleset_stages(msg->rules) & CM_STAGES_LATE) != 0;

    if ((msg->rules || cm_view_has_inboxes(msg->view)) &&
        find_target(session, typed, &t)) {
        verdict = judge_rcpt(session, ctx, &t, typed);
        if (verdict == SMFIS_CONTINUE && late &&
            cm_session_keep_rcpt(session, typed, &t.full,
                                 msg->nfates > fates) != CM_OK)
            cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
    }
    cm_inbox_release(&t.inbox);
    if (verdict == SMFIS_CONTINUE)
        msg->accepted++;
    return verdict;
}

/* --- DATA and the end of the message --- */

/* Rules of the list at a late stage, for one recipient whose fate is not
 * decided yet. taken as in cm_decide_turns; returns it for the next. */
static size_t
gather_for(struct cm_session *session, enum cm_stage stage,
           struct cm_rcpt *rcpt, size_t taken)
{
    struct cm_address full = {.len = rcpt->len, .domain_off = rcpt->domain_off};
    struct cm_address base;
    struct cm_event event;
    struct cm_walk walk;
    struct cm_fate fate;
    memcpy(full.text, rcpt->canonical, rcpt->len + 1u);
    cm_session_event(session, stage, &event);
    event.recipient = &full;
    if (cm_address_strip_tag(&full, session->filter->recipient_delimiter,
                             &base))
        event.recipient_base = &base;
    cm_decide_start(&walk, NULL, session->msg.rules, &event, &session->coin);
    cm_decide_turns(&walk, taken);
    if (cm_deliberate(session, &walk, NULL, full.text, full.text, rcpt->typed,
                      &fate)) {
        rcpt->decided = true;
        defer(session, &fate);
    }
    return cm_decide_taken(&walk);
}

static void
gather(struct cm_session *session, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    size_t taken = 0;
    if (!(cm_ruleset_stages(msg->rules) & CM_STAGE_BIT(stage)))
        return;
    for (size_t i = 0; i < msg->nrcpts; i++)
        if (!msg->rcpts[i].decided)
            taken = gather_for(session, stage, &msg->rcpts[i], taken);
}

static bool
is_blackhole(const struct cm_fate *fate)
{
    return fate->fault->kind == CM_FAULT_BLACKHOLE;
}

/* Is it this fate's turn, and can it be carried out? */
static bool
is_due(const struct cm_session *session, const struct cm_fate *fate,
       enum cm_stage stage)
{
    return fate->stage == stage && !hindrance(session, fate);
}

static unsigned
others_of(const struct cm_message *msg)
{
    return msg->accepted > 0 ? (unsigned)msg->accepted - 1 : 0;
}

/* The first drop that is done ends the session. */
static int
drop_message(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    int verdict = SMFIS_CONTINUE;
    for (size_t i = 0;
         i < msg->nfates && verdict == SMFIS_CONTINUE && !msg->cut; i++)
        if (msg->fates[i].stage == stage && is_drop(&msg->fates[i]))
            verdict = drop(session, ctx, &msg->fates[i], others_of(msg));
    return verdict;
}

/* The first refusal that libmilter takes ends the message. */
static int
refuse_message(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    unsigned others = others_of(msg);
    for (size_t i = 0; i < msg->nfates; i++) {
        const struct cm_fate *fate = &msg->fates[i];
        if (!fate->reply || !is_due(session, fate, stage))
            continue;
        int verdict = refuse(session, ctx, fate, others);
        if (verdict != SMFIS_CONTINUE)
            return verdict;
    }
    return SMFIS_CONTINUE;
}

static void
record_unavailable(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    for (size_t i = 0; i < session->msg.nfates; i++) {
        const struct cm_fate *fate = &session->msg.fates[i];
        const char *why = hindrance(session, fate);
        if (fate->stage == stage && why && !is_drop(fate))
            close_fate(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, 0, why);
    }
}

/* Postfix matches byte for byte what RCPT gave, but keeps no source route. */
static bool
delete_rcpt(milter ctx, const char *typed)
{
    const char *colon;
    if (strncmp(typed, "<@", 2) != 0 || !(colon = strchr(typed, ':')))
        return smfi_delrcpt(ctx, (char *)typed) == MI_SUCCESS;
    size_t len = strlen(colon);
    char *direct = malloc(len + 1);
    if (!direct)
        return false;
    snprintf(direct, len + 1, "<%s", colon + 1);
    bool ok = smfi_delrcpt(ctx, direct) == MI_SUCCESS;
    free(direct);
    return ok;
}

/* Takes each blackholed recipient out of the message. When none is left the
 * whole message is discarded, for an MTA wants at least one. */
static int
blackhole(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    size_t n = 0;
    for (size_t i = 0; i < msg->nfates; i++)
        n += is_blackhole(&msg->fates[i]) && msg->fates[i].stage == stage;
    if (n == 0)
        return SMFIS_CONTINUE;
    bool all = n == msg->accepted;
    for (size_t i = 0; i < msg->nfates; i++) {
        const struct cm_fate *fate = &msg->fates[i];
        if (!is_blackhole(fate) || fate->stage != stage)
            continue;
        bool gone = all || delete_rcpt(ctx, fate->typed);
        close_fate(session, ctx, fate,
                   gone ? CM_INCIDENT_APPLIED : CM_INCIDENT_UNAVAILABLE, 0,
                   gone ? NULL : "the MTA does not let recipients be deleted");
    }
    return all ? SMFIS_DISCARD : SMFIS_CONTINUE;
}

static void
delay(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    const struct cm_fate **slow = calloc(msg->nfates, sizeof *slow);
    size_t n = 0;
    if (!slow) {
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
        return;
    }
    for (size_t i = 0; i < msg->nfates; i++)
        if (is_due(session, &msg->fates[i], stage) &&
            msg->fates[i].fault->kind == CM_FAULT_LATENCY)
            slow[n++] = &msg->fates[i];
    if (n > 0)
        cm_delay_reply(session, slow, n, queue_id(ctx),
                       (unsigned)(msg->accepted - n));
    free(slow);
}

int
cm_verdict_late(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    gather(session, stage);
    if (msg->nfates == 0)
        return SMFIS_CONTINUE;
    int verdict = drop_message(session, ctx, stage);
    if (verdict == SMFIS_CONTINUE && !msg->cut) {
        record_unavailable(session, ctx, stage);
        verdict = refuse_message(session, ctx, stage);
    }
    if (verdict != SMFIS_CONTINUE)
        return verdict;
    verdict = blackhole(session, ctx, stage);
    if (!msg->cut)
        delay(session, ctx, stage);
    return verdict;
}
