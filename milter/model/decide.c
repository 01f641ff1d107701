/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The walk is two lists one after the other, the inbox's rules and the fault
 * rules, with one question per rule: does its coin fall heads? The walk never
 * remembers more than the two positions, so stopping to let the caller ask
 * Redis costs nothing, and a rule that asked for its occurrence is simply
 * looked at again.
 *
 * Draws are made only where chance has a say, so a rule that always fires the
 * same way needs neither a generator nor a count in Redis.
 */
#include "milter/model/decide.h"
#include "milter/model/address.h"
#include "milter/model/reply.h"

#include <string.h>

/* Chance for one rule, wherever it comes from, and one fault: the rule's, or a
 * step of it. */
struct chance {
    const struct cm_walk *walk;
    const struct cm_rule *rule;
    bool from_inbox;
    const struct cm_fault *fault;
    uint64_t occurrence;
};

void
cm_decide_start(struct cm_walk *walk, const struct cm_inbox *inbox,
                const struct cm_ruleset *rules, const struct cm_event *event,
                struct cm_coin *coin)
{
    bool asks_inbox =
        event->stage == CM_STAGE_RCPT && cm_inbox_active(inbox, event->now_ms);
    *walk = (struct cm_walk){
        .inbox = asks_inbox ? inbox : NULL,
        .rules = rules,
        .event = event,
        .coin = coin,
        .end_rule = cm_ruleset_effects(rules),
    };
}

void
cm_decide_effects(struct cm_walk *walk, const struct cm_ruleset *rules,
                  const struct cm_event *event, struct cm_coin *coin)
{
    *walk = (struct cm_walk){
        .rules = rules,
        .event = event,
        .coin = coin,
        .next_rule = cm_ruleset_effects(rules),
        .end_rule = cm_ruleset_count(rules),
    };
}

static const char *
text_of(const struct cm_address *addr)
{
    return addr ? addr->text : "";
}

/* false: there is no coin, so nothing may happen. */
static bool
draw(const struct chance *chance, enum cm_coin_purpose purpose,
     uint64_t *draw_r)
{
    const struct cm_walk *walk = chance->walk;
    if (!chance->rule->seeded) {
        *draw_r = cm_coin_draw(walk->coin);
        return true;
    }
    char name[CM_RULE_NAME_BYTES];
    cm_rule_print_name(chance->rule, name, sizeof name);
    return cm_coin_seeded(
        chance->rule->seed, name, text_of(walk->event->sender),
        text_of(walk->event->recipient), chance->occurrence, purpose, draw_r);
}

static bool
tosses(const struct cm_rule *rule)
{
    return rule->probability_ppb > CM_COIN_NEVER &&
           rule->probability_ppb < CM_COIN_ALWAYS;
}

static bool
draws_delay(const struct cm_fault *fault)
{
    return fault->kind == CM_FAULT_LATENCY &&
           fault->u.latency.kind != CM_DELAY_FIXED;
}

static bool
draws_reply(const struct cm_fault *fault)
{
    return fault->kind == CM_FAULT_ERROR && !fault->u.error.reply;
}

static bool
draws_bits(const struct cm_fault *fault)
{
    return fault->kind == CM_FAULT_MUTATE &&
           fault->u.mutate.how == CM_MUTATE_FLIP_BITS;
}

static bool
needs_occurrence(const struct cm_rule *rule)
{
    if (!rule->seeded || rule->probability_ppb == CM_COIN_NEVER)
        return false;
    return tosses(rule) || draws_delay(&rule->fault) ||
           draws_reply(&rule->fault) || draws_bits(&rule->fault);
}

static bool
falls_heads(const struct chance *chance)
{
    const struct cm_rule *rule = chance->rule;
    uint64_t n;
    if (!tosses(rule))
        return rule->probability_ppb >= CM_COIN_ALWAYS;
    return draw(chance, CM_COIN_FIRES, &n) &&
           cm_coin_toss(n, rule->probability_ppb);
}

static bool
choose_delay(const struct chance *chance, int64_t *delay_ms_r)
{
    const struct cm_fault_latency *latency = &chance->fault->u.latency;
    uint64_t first = 0, second = 0;
    if (draws_delay(chance->fault)) {
        if (!draw(chance, CM_COIN_DELAY, &first))
            return false;
        if (latency->kind == CM_DELAY_LOGNORMAL &&
            !draw(chance, CM_COIN_DELAY2, &second))
            return false;
    }
    *delay_ms_r = cm_fault_delay(latency, first, second);
    return true;
}

static bool
choose_reply(const struct chance *chance, const struct cm_reply **reply_r)
{
    const struct cm_fault_error *error = &chance->fault->u.error;
    uint64_t n;
    if (error->reply) {
        *reply_r = error->reply;
        return true;
    }
    if (!draw(chance, CM_COIN_REPLY, &n))
        return false;
    /* A reply that ends the session would take the others along, whose inboxes
     * nobody wanted to hurt: where chance decides, it decides among the rest.
     */
    *reply_r = cm_reply_draw(
        error->types |
            (chance->walk->event->others ? CM_REPLY_KEEPS_SESSION : 0),
        n);
    return true;
}

/* The details of the fault; false when chance is not to be had. */
static bool
fill(const struct chance *chance, struct cm_decision *d)
{
    const struct cm_fault *fault = chance->fault;
    if (fault->kind == CM_FAULT_LATENCY)
        return choose_delay(chance, &d->delay_ms);
    if (fault->kind == CM_FAULT_ERROR)
        return choose_reply(chance, &d->reply);
    if (draws_bits(fault))
        return draw(chance, CM_COIN_BITS, &d->draw);
    if (fault->kind == CM_FAULT_GREYLIST)
        d->reply = cm_reply_greylist();
    else if (fault->kind == CM_FAULT_THROTTLE)
        d->reply = fault->u.throttle.reply;
    return true;
}

/* The rule to look at, where the walk's positions point; NULL at the end. */
static const struct cm_rule *
rule_at_hand(struct cm_walk *walk, bool *from_inbox_r)
{
    const struct cm_inbox *inbox = walk->inbox;
    *from_inbox_r = true;
    for (; inbox && walk->next_inbox < inbox->nrules; walk->next_inbox++) {
        const struct cm_rule *rule = &inbox->rules[walk->next_inbox];
        if (cm_rule_in_force(rule, walk->event->now_ms) &&
            cm_rule_matches(rule, walk->event) == CM_YES)
            return rule;
    }
    *from_inbox_r = false;
    while ((walk->next_rule = cm_ruleset_next(
                walk->rules, walk->event, walk->next_rule)) < walk->end_rule) {
        const struct cm_rule *rule =
            cm_ruleset_at(walk->rules, walk->next_rule);
        if (walk->next_rule >= walk->turns_taken ||
            !cm_rule_is_for_message(rule))
            return rule;
        walk->next_rule++;
    }
    return NULL;
}

static void
advance(struct cm_walk *walk)
{
    if (walk->inbox && walk->next_inbox < walk->inbox->nrules)
        walk->next_inbox++;
    else
        walk->next_rule++;
    walk->occurrence_known = false;
    walk->occurrence = 0;
}

enum cm_decide_step
cm_decide_next(struct cm_walk *walk, struct cm_decision *d_r)
{
    struct chance chance = {.walk = walk};
    while ((chance.rule = rule_at_hand(walk, &chance.from_inbox))) {
        chance.fault = &chance.rule->fault;
        chance.occurrence = walk->occurrence;
        *d_r = (struct cm_decision){
            .rule = chance.rule,
            .fault = chance.fault,
            .from_inbox = chance.from_inbox,
            .occurrence = walk->occurrence,
        };
        if (needs_occurrence(chance.rule) && !walk->occurrence_known)
            return CM_DECIDE_NEED_OCCURRENCE;
        bool acts = falls_heads(&chance) && fill(&chance, d_r);
        advance(walk);
        if (acts)
            return CM_DECIDE_FAULT;
    }
    memset(d_r, 0, sizeof *d_r);
    return CM_DECIDE_NONE;
}

void
cm_decide_turns(struct cm_walk *walk, size_t taken)
{
    walk->turns_taken = taken;
}

size_t
cm_decide_taken(const struct cm_walk *walk)
{
    return walk->next_rule > walk->turns_taken ? walk->next_rule
                                               : walk->turns_taken;
}

void
cm_decide_occurrence(struct cm_walk *walk, uint64_t occurrence)
{
    walk->occurrence = occurrence;
    walk->occurrence_known = true;
}

void
cm_decide_pass(struct cm_walk *walk)
{
    advance(walk);
}

bool
cm_decide_choose(const struct cm_walk *walk, const struct cm_decision *d,
                 const struct cm_fault *step, uint64_t occurrence,
                 struct cm_decision *d_r)
{
    const struct chance chance = {
        .walk = walk,
        .rule = d->rule,
        .fault = step,
        .occurrence = occurrence,
    };
    struct cm_decision chosen = {
        .rule = d->rule,
        .fault = step,
        .from_inbox = d->from_inbox,
        .occurrence = d->occurrence,
    };
    if (!fill(&chance, &chosen))
        return false;
    *d_r = chosen;
    return true;
}
