/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model says which rule is next; some rules then depend on what was before,
 * and that is in Redis. Kept apart from the model so that decisions stay pure,
 * and apart from the verdict so that acting needs no Redis.
 */
#include "milter/filter/deliberate.h"
#include "milter/filter/incident.h"
#include "milter/log.h"
#include "milter/model/address.h"
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
    char name[CM_RULE_NAME_BYTES];
    char why[sizeof err->msg * 4];
    cm_filter_count(session->filter, CM_FILTER_STATE_FAILED);
    cm_rule_print_name(rule, name, sizeof name);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("no answer from Redis, so no fault: rule=%s why=\"%s\" "
                    "held_back=%lu",
                    name, cm_log_quote(why, sizeof why, err->msg), held_back);
}

static const char *
sender_of(const struct cm_walk *walk)
{
    return walk->event->sender ? walk->event->sender->text : "";
}

static void
take_decision(struct cm_fate *fate, const struct cm_decision *d)
{
    fate->fault = d->fault;
    fate->occurrence = d->occurrence;
    fate->delay_ms = d->delay_ms;
    fate->draw = d->draw;
    fate->reply = d->reply;
}

static void
give_occurrence(struct cm_session *session, struct cm_walk *walk,
                const struct cm_decision *d, const char *recipient)
{
    struct cm_err err;
    int64_t n;
    char name[CM_RULE_NAME_BYTES];
    cm_rule_print_name(d->rule, name, sizeof name);
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
    char name[CM_RULE_NAME_BYTES];
    struct cm_err err;
    bool allowed = false;
    if (rule->max_hits == 0)
        return true;
    cm_rule_print_name(rule, name, sizeof name);
    if (cm_stateful_hit(session->filter->stateful, name, rule->max_hits,
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

/* Whose bucket it is; NULL: that is not known here. */
static const char *
bucket_owner(const struct cm_session *session, const struct cm_walk *walk,
             enum cm_throttle_per per)
{
    const struct cm_event *event = walk->event;
    switch (per) {
    case CM_THROTTLE_INBOX:
        return event->recipient ? event->recipient->text : NULL;
    case CM_THROTTLE_DOMAIN:
        return event->recipient ? cm_address_domain(event->recipient) : NULL;
    case CM_THROTTLE_SENDER:
        return event->sender ? event->sender->text : NULL;
    case CM_THROTTLE_CLIENT:
        return session->client.family ? session->client_text : NULL;
    }
    return NULL;
}

static bool
throttle_is_empty(struct cm_session *session, const struct cm_walk *walk,
                  struct cm_fate *fate)
{
    static const char *const owners[] = {
        [CM_THROTTLE_INBOX] = "inbox",
        [CM_THROTTLE_DOMAIN] = "domain",
        [CM_THROTTLE_SENDER] = "sender",
        [CM_THROTTLE_CLIENT] = "client",
    };
    const struct cm_fault_throttle *config = &fate->fault->u.throttle;
    const char *owner = bucket_owner(session, walk, config->per);
    char name[CM_RULE_NAME_BYTES];
    struct cm_err err;
    bool empty = false;
    if (!owner)
        return false;
    cm_rule_print_name(fate->rule, name, sizeof name);
    if (cm_stateful_throttle(session->filter->stateful, name, config, owner,
                             &empty, &err) != CM_OK) {
        note_no_answer(session, fate->rule, &err);
        return false;
    }
    snprintf(fate->detail, sizeof fate->detail, "bucket of %s %.100s",
             owners[config->per], *owner ? owner : "<>");
    return empty;
}

/* Turns the fate into that of the step which is due; false: that step is "ok",
 * or not to be told. */
static bool
sequence_hurts(struct cm_session *session, const struct cm_walk *walk,
               const struct cm_decision *d, struct cm_fate *fate)
{
    const struct cm_fault_sequence *config = &fate->fault->u.sequence;
    char name[CM_RULE_NAME_BYTES];
    struct cm_decision chosen;
    struct cm_err err;
    int64_t n = 0;
    if ((config->key & CM_KEY_SENDER) && !walk->event->sender)
        return false;
    cm_rule_print_name(fate->rule, name, sizeof name);
    if (cm_stateful_sequence(session->filter->stateful, name, config,
                             session->client_text, sender_of(walk),
                             fate->recipient, &n, &err) != CM_OK) {
        note_no_answer(session, fate->rule, &err);
        return false;
    }
    const struct cm_fault *step = cm_fault_step(config, n);
    if (!step || !cm_decide_choose(walk, d, step, (uint64_t)n, &chosen))
        return false;
    take_decision(fate, &chosen);
    snprintf(fate->detail, sizeof fate->detail, "step %lld of %zu",
             (long long)(step - config->steps) + 1, config->nsteps);
    return true;
}

/* Does the state of the fault, if it has one, let it act now? */
static bool
is_due(struct cm_session *session, const struct cm_walk *walk,
       const struct cm_decision *d, const char *inbox_name,
       struct cm_fate *fate)
{
    switch (d->fault->kind) {
    case CM_FAULT_GREYLIST:
        return greylist_refuses(session, walk, inbox_name, fate);
    case CM_FAULT_THROTTLE:
        return throttle_is_empty(session, walk, fate);
    case CM_FAULT_SEQUENCE:
        return sequence_hurts(session, walk, d, fate);
    case CM_FAULT_ERROR:
    case CM_FAULT_LATENCY:
    case CM_FAULT_DROP:
    case CM_FAULT_BLACKHOLE:
    case CM_FAULT_QUARANTINE:
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_MISDELIVER:
    case CM_FAULT_MUTATE:
    case CM_FAULT_HIDE:
    case CM_FAULT_COUNT:
        break;
    }
    return true;
}

/* What cannot be done uses up no hit. */
static bool
acts(struct cm_session *session, const struct cm_fate *fate)
{
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
                                       .inbox = d.from_inbox ? inbox : NULL,
                                       .stage = d.rule->stage,
                                       .recipient = recipient,
                                       .typed = typed};
            take_decision(fate_r, &d);
            if (!is_due(session, walk, &d, inbox_name, fate_r))
                break;
            if (d.rule->mode == CM_RULE_SHADOW) {
                record_shadow(session, fate_r);
            } else if (acts(session, fate_r)) {
                if (fate_r->inbox)
                    cm_inbox_ref(inbox);
                return true;
            }
            break;
        }
    }
}
