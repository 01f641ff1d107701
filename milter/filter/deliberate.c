/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model says which rule is next; some rules then depend on what was before,
 * and that is in Redis. Kept apart from the model so that decisions stay pure,
 * and apart from the verdict so that acting needs no Redis.
 */
#include "milter/filter/deliberate.h"
#include "milter/filter/incident.h"
#include "milter/log.h"
#include "milter/store/stateful.h"

#include <stdio.h>

/* Redis had no answer in time: the mail goes through, counted, and said once a
 * minute. */
static void
note_no_answer(struct cm_session *session, const struct cm_rule *rule,
               const struct cm_err *err)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    char why[sizeof err->msg * 4];
    cm_filter_count(session->filter, CM_FILTER_STATE_FAILED);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("no answer from Redis, so no fault: rule=%s why=\"%s\" "
                    "held_back=%lu",
                    rule->id, cm_log_quote(why, sizeof why, err->msg),
                    held_back);
}

static const char *
sender_of(const struct cm_walk *walk)
{
    return walk->event->sender ? walk->event->sender->text : "";
}

static void
give_occurrence(struct cm_session *session, struct cm_walk *walk,
                const struct cm_decision *d, const char *recipient)
{
    struct cm_err err;
    int64_t n;
    char name[CM_RULE_NAME_BYTES];
    cm_rule_print_name(d->rule, d->from_inbox, name, sizeof name);
    if (cm_stateful_occurrence(session->filter->stateful, name, sender_of(walk),
                               recipient, &n, &err) == CM_OK) {
        cm_decide_occurrence(walk, (uint64_t)n);
    } else {
        note_no_answer(session, d->rule, &err);
        cm_decide_pass(walk);
    }
}

static bool
hit_allowed(struct cm_session *session, const struct cm_rule *rule)
{
    struct cm_err err;
    bool allowed = false;
    if (rule->max_hits == 0)
        return true;
    if (cm_stateful_hit(session->filter->stateful, rule->id, rule->max_hits,
                        &allowed, &err) != CM_OK) {
        note_no_answer(session, rule, &err);
        return false;
    }
    return allowed;
}

static bool
greylist_refuses(struct cm_session *session, const struct cm_walk *walk,
                 const char *inbox_name, struct cm_fate *fate)
{
    const struct cm_fault_greylist *config = &fate->fault->u.greylist;
    struct cm_err err;
    bool refused = false;
    int64_t attempt = 0;
    if (cm_stateful_greylist(session->filter->stateful, config, inbox_name,
                             sender_of(walk), session->client_text, &refused,
                             &attempt, &err) != CM_OK) {
        note_no_answer(session, fate->rule, &err);
        return false;
    }
    snprintf(fate->detail, sizeof fate->detail,
             "attempt %lld/%lld, retry in %llds", (long long)attempt,
             (long long)config->max_attempts,
             (long long)(config->window_ms + 999) / 1000);
    return refused;
}

/* Does the state of the rule, if it has one, let its fault act now? */
static bool
acts(struct cm_session *session, const struct cm_walk *walk,
     const char *inbox_name, struct cm_fate *fate)
{
    if (fate->fault->kind == CM_FAULT_GREYLIST &&
        !greylist_refuses(session, walk, inbox_name, fate))
        return false;
    /* What cannot be done uses up no hit. */
    return cm_fate_hindrance(session, fate) || hit_allowed(session, fate->rule);
}

static void
record_shadow(struct cm_session *session, const struct cm_fate *fate)
{
    struct cm_incident incident;
    cm_incident_make(&incident, session, fate, NULL);
    cm_incident_close(session->filter, &incident, CM_INCIDENT_SHADOW, NULL);
}

bool
cm_deliberate(struct cm_session *session, struct cm_walk *walk,
              struct cm_inbox *inbox, const char *inbox_name,
              const char *recipient, const char *typed, struct cm_fate *fate_r)
{
    struct cm_decision d;
    for (;;) {
        switch (cm_decide_next(walk, &d)) {
        case CM_DECIDE_NONE:
            return false;
        case CM_DECIDE_NEED_OCCURRENCE:
            give_occurrence(session, walk, &d, recipient);
            break;
        case CM_DECIDE_FAULT:
            *fate_r = (struct cm_fate){.rule = d.rule,
                                       .fault = &d.rule->fault,
                                       .inbox = d.from_inbox ? inbox : NULL,
                                       .stage = d.rule->stage,
                                       .occurrence = d.occurrence,
                                       .delay_ms = d.delay_ms,
                                       .reply = d.reply,
                                       .recipient = recipient,
                                       .typed = typed};
            if (d.rule->mode == CM_RULE_SHADOW) {
                record_shadow(session, fate_r);
            } else if (acts(session, walk, inbox_name, fate_r)) {
                if (fate_r->inbox)
                    cm_inbox_ref(inbox);
                return true;
            }
            break;
        }
    }
}
