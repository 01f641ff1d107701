/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults are decided per recipient at RCPT and act at their own stage. Errors
 * at RCPT touch that recipient alone; what is answered once for the whole
 * message (DATA, the final reply) touches the others of that message too, and
 * the record says how many. Of several recipients' fates at one stage a drop
 * comes first, then a refusal (the message is not accepted, so nothing else of
 * it can be done), then what changes the message, and the longest delay holds
 * the reply. What effects add comes on top of that, at every reply that is no
 * refusal.
 *
 * A protected recipient protects its whole message from what would touch it
 * too: such a fault is recorded as unavailable.
 */
#include "milter/filter/verdict.h"
#include "milter/filter/attempt.h"
#include "milter/filter/deed.h"
#include "milter/filter/deliberate.h"
#include "milter/filter/edit.h"
#include "milter/filter/effect.h"
#include "milter/log.h"
#include "milter/model/inbox.h"
#include "milter/store/replica.h"

#include <libmilter/mfapi.h>
#include <stdlib.h>
#include <string.h>

/* The sessions of libmilter, as our headers name them. */
typedef struct smfi_str *milter;

/* While all is halted a mail is spared, for good and whatever was decided
 * before: what was not judged at its time cannot be judged later. */
static bool
spare(struct cm_session *session, milter ctx)
{
    if (!cm_filter_halted(session->filter))
        return false;
    for (size_t i = 0; i < session->msg.nfates; i++)
        cm_deed_record(session, ctx, &session->msg.fates[i],
                       CM_INCIDENT_UNAVAILABLE, 0, "halted");
    cm_session_reset(session);
    return true;
}

/* One reply that concerns no more than the fate's recipient: what the fate, if
 * there is one for this stage, makes of it, and how late it goes. What ends the
 * session takes the recipients before with it. */
static int
answer(struct cm_session *session, milter ctx, const struct cm_ruleset *rules,
       enum cm_stage stage, const struct cm_fate *fate, const char *recipient,
       const char *typed)
{
    bool slow = fate && cm_deed_turn(fate) == CM_DEED_DELAY &&
                !cm_fate_hindrance(session, fate);
    int verdict = SMFIS_CONTINUE;
    if (fate && !slow)
        verdict = cm_deed_do(
            session, ctx, fate,
            cm_fate_touches_others(fate) ? (unsigned)session->msg.accepted : 0);
    if (verdict == SMFIS_CONTINUE && !session->msg.cut)
        cm_effect_delay(session, ctx, rules, stage, &fate, slow, recipient,
                        typed, 0);
    return verdict;
}

/* judged: the rules of the list had their say elsewhere. */
static int
judge_command(struct cm_session *session, milter ctx, enum cm_stage stage,
              bool judged)
{
    struct cm_event event;
    struct cm_walk walk;
    struct cm_fate fate;
    struct cm_view *view = NULL;
    struct cm_ruleset *rules = session->msg.rules;
    bool decided = false;

    /* Before MAIL there is no message that holds the rules for us. */
    if (!session->msg.open &&
        (view = cm_replica_view(session->filter->replica)))
        rules = cm_view_rules(view);
    if (!judged && (cm_ruleset_stages(rules) & CM_STAGE_BIT(stage))) {
        cm_session_event(session, stage, &event);
        cm_decide_start(&walk, NULL, rules, &event, &session->coin);
        decided = cm_deliberate(session, &walk, NULL, "", "", "", &fate);
    }
    int verdict =
        answer(session, ctx, rules, stage, decided ? &fate : NULL, "", "");
    if (view) {
        cm_ruleset_release(&rules);
        cm_view_release(&view);
    }
    return verdict;
}

int
cm_verdict_command(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    return judge_command(session, ctx, stage, false);
}

int
cm_verdict_judged(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    return judge_command(session, ctx, stage, true);
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
    if (cm_filter_protects(filter, &t->full)) {
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

static void
defer(struct cm_session *session, const struct cm_fate *fate)
{
    if (cm_session_defer(session, fate) != CM_OK)
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
}

/* The mail's rules can act at these stages only once all recipients are known.
 */
#define CM_STAGES_LATE                                                         \
    (CM_STAGE_BIT(CM_STAGE_DATA) | CM_STAGE_BIT(CM_STAGE_MESSAGE))

static int
judge_rcpt(struct cm_session *session, milter ctx, const struct cm_event *event,
           struct target *t, const char *typed)
{
    struct cm_walk walk;
    struct cm_fate fate = {.inbox = NULL};
    const struct cm_ruleset *rules = session->msg.rules;
    cm_decide_start(&walk, t->inbox, rules, event, &session->coin);
    bool decided = cm_deliberate(session, &walk, t->inbox, t->inbox_name,
                                 t->full.text, typed, &fate);
    bool now = decided && fate.stage == CM_STAGE_RCPT;
    if (decided && !now)
        defer(session, &fate); /* takes the inbox */
    int verdict = answer(session, ctx, rules, CM_STAGE_RCPT, now ? &fate : NULL,
                         t->full.text, typed);
    if (now)
        cm_inbox_release(&fate.inbox);
    return verdict;
}

/* Kept is who a rule may still meet, and who was counted. */
static int
judge_target(struct cm_session *session, milter ctx, struct target *t,
             const char *typed)
{
    struct cm_message *msg = &session->msg;
    struct cm_event event;
    size_t fates = msg->nfates;
    cm_session_event(session, CM_STAGE_RCPT, &event);
    event.recipient = &t->full;
    event.recipient_base = t->has_base ? &t->base : NULL;
    event.others = msg->accepted > 0;
    event.attempt = cm_attempt_count(session, &event);
    int verdict = judge_rcpt(session, ctx, &event, t, typed);
    bool refused = verdict != SMFIS_CONTINUE;
    bool late = (cm_ruleset_stages(msg->rules) & CM_STAGES_LATE) != 0;
    if ((!late || refused) && event.attempt == 0)
        return verdict;
    struct cm_rcpt *rcpt = cm_session_keep_rcpt(session, typed, &t->full);
    if (rcpt) {
        rcpt->decided = refused || msg->nfates > fates;
        rcpt->refused = refused;
        rcpt->attempt = event.attempt;
    } else {
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
    }
    return verdict;
}

int
cm_verdict_rcpt(struct cm_session *session, milter ctx, const char *typed)
{
    struct cm_message *msg = &session->msg;
    struct target t = {.inbox = NULL};
    int verdict = SMFIS_CONTINUE;
    if (spare(session, ctx))
        return verdict;
    if ((msg->rules || cm_view_has_inboxes(msg->view)) &&
        find_target(session, typed, &t))
        verdict = judge_target(session, ctx, &t, typed);
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
    struct cm_address full, base;
    struct cm_event event;
    struct cm_walk walk;
    struct cm_fate fate;
    cm_session_event(session, stage, &event);
    cm_session_event_rcpt(session, rcpt, &full, &base, &event);
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

static unsigned
others_of(const struct cm_message *msg)
{
    return msg->accepted > 0 ? (unsigned)msg->accepted - 1 : 0;
}

/* The fates whose turn it is, until one ends the message or the session. */
static int
take_turn(struct cm_session *session, milter ctx, enum cm_stage stage,
          enum cm_deed_turn turn)
{
    struct cm_message *msg = &session->msg;
    unsigned others = others_of(msg);
    int verdict = SMFIS_CONTINUE;
    for (size_t i = 0; i < msg->nfates && verdict == SMFIS_CONTINUE; i++) {
        struct cm_fate *fate = &msg->fates[i];
        if (fate->stage != stage || cm_deed_turn(fate) != turn || msg->cut)
            continue;
        verdict = cm_deed_do(session, ctx, fate, others);
        fate->closed = true;
        if (verdict != SMFIS_CONTINUE || msg->cut)
            msg->ended_by = fate->rule;
    }
    return verdict;
}

/* The message was refused or its client cut off: what was decided for it, and
 * has not been done, will not be. Whom the same rule meant has met it: they are
 * the others that it touched. */
static void
forgo(struct cm_session *session, milter ctx)
{
    struct cm_message *msg = &session->msg;
    for (size_t i = 0; i < msg->nfates; i++) {
        struct cm_fate *fate = &msg->fates[i];
        if (!fate->closed && fate->rule != msg->ended_by)
            cm_deed_record(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, 0,
                           "another fault came before it");
        fate->closed = true;
    }
}

static bool
is_refusal(int verdict)
{
    return verdict == SMFIS_TEMPFAIL || verdict == SMFIS_REJECT;
}

static void
delay(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    size_t n = 0;
    if (msg->nfates == 0) {
        cm_effect_delay(session, ctx, msg->rules, stage, NULL, 0, "", "",
                        (unsigned)msg->accepted);
        return;
    }
    const struct cm_fate **slow = calloc(msg->nfates, sizeof *slow);
    if (!slow) {
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
        return;
    }
    for (size_t i = 0; i < msg->nfates; i++) {
        const struct cm_fate *fate = &msg->fates[i];
        if (fate->stage != stage || cm_deed_turn(fate) != CM_DEED_DELAY)
            continue;
        const char *why = cm_fate_hindrance(session, fate);
        if (why)
            cm_deed_record(session, ctx, fate, CM_INCIDENT_UNAVAILABLE, 0, why);
        else
            slow[n++] = fate;
    }
    cm_effect_delay(session, ctx, msg->rules, stage, slow, n, "", "",
                    (unsigned)(msg->accepted - n));
    free(slow);
}

int
cm_verdict_late(struct cm_session *session, milter ctx, enum cm_stage stage)
{
    struct cm_message *msg = &session->msg;
    if (spare(session, ctx))
        return SMFIS_CONTINUE;
    gather(session, stage);
    if (spare(session, ctx)) /* it may have waited for Redis */
        return SMFIS_CONTINUE;
    int verdict = take_turn(session, ctx, stage, CM_DEED_CUT);
    if (verdict == SMFIS_CONTINUE && !msg->cut)
        verdict = take_turn(session, ctx, stage, CM_DEED_REFUSAL);
    if (verdict == SMFIS_CONTINUE && stage == CM_STAGE_MESSAGE)
        verdict = cm_edit_message(session, ctx);
    if (is_refusal(verdict) || msg->cut) {
        forgo(session, ctx);
        return verdict;
    }
    if (stage == CM_STAGE_MESSAGE)
        cm_attempt_end(session);
    delay(session, ctx, stage);
    return verdict;
}
