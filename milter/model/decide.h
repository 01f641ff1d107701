/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DECIDE_H
#define CM_DECIDE_H

#include "milter/model/coin.h"
#include "milter/model/event.h"
#include "milter/model/inbox.h"
#include "milter/model/rule.h"
#include "milter/model/ruleset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Which fault, if any, meets one SMTP event. Pure: what Redis must answer is
 * asked of the caller, so the walk is one of steps:
 *
 *     cm_decide_start(&walk, inbox, rules, &event, &coin);
 *     while (cm_decide_next(&walk, &d) != CM_DECIDE_NONE) { ... }
 *
 * - CM_DECIDE_NEED_OCCURRENCE: the next rule has a seed, and chance a say in
 *   it: count this mail (rule, sender, recipient) and give the number to
 *   cm_decide_occurrence, or call cm_decide_pass: without the number there is
 *   no coin, and so no fault.
 *
 * - CM_DECIDE_FAULT: d.rule matched and its coin fell heads. Where the fault
 *   has a state (greylist, throttle, sequence, maxHits) the caller asks it; if
 *   the fault acts the walk is over, if it lets the mail pass (also: shadow
 *   mode) the caller goes on with cm_decide_next.
 *
 * - CM_DECIDE_NONE: nothing (more) acts; d is zeroed.
 *
 * Order of authority: the recipient's own inbox configuration, then the rules
 * of the list, each in their order; the first that acts decides. Effects, at
 * the end of the list, decide nothing: they are walked by themselves and each
 * adds its delay, where the reply is not a refusal. At RCPT an inbox decides
 * for every stage at which its rules act ("decide at RCPT, act at the right
 * stage"): d.rule->stage tells. Fault rules are matched at the stage they act
 * at.
 */
struct cm_decision {
    const struct cm_rule *rule;   /* borrowed from the inbox or the rule set */
    const struct cm_fault *fault; /* the rule's, or one step of its sequence */
    bool from_inbox;
    uint64_t occurrence; /* that its seeded coin was tossed for; 0: no such */
    int64_t delay_ms;    /* of a latency fault, else 0 */
    uint64_t draw;       /* of a fault that flips bits, else 0 */
    const struct cm_reply *reply; /* of error, greylist and throttle, else
                                     NULL; borrowed as rule is, or static */
};

struct cm_walk {
    const struct cm_inbox *inbox;   /* borrowed, may be NULL */
    const struct cm_ruleset *rules; /* borrowed, may be NULL */
    const struct cm_event *event;   /* borrowed */
    struct cm_coin *coin;           /* borrowed; drawn from when unseeded */
    size_t next_inbox, next_rule;
    size_t end_rule;       /* where the walk ends in rules */
    size_t turns_taken;    /* see cm_decide_turns */
    bool occurrence_known; /* for the rule at hand */
    uint64_t occurrence;
};

enum cm_decide_step {
    CM_DECIDE_NONE,
    CM_DECIDE_FAULT,
    CM_DECIDE_NEED_OCCURRENCE
};

/*
 * inbox  the configuration found for event->recipient, or NULL. Looked at only
 *        at stage RCPT, and only while cm_inbox_active.
 * All arguments are borrowed until the walk ends. Allocates nothing.
 */
void cm_decide_start(struct cm_walk *walk, const struct cm_inbox *inbox,
                     const struct cm_ruleset *rules,
                     const struct cm_event *event, struct cm_coin *coin);
enum cm_decide_step cm_decide_next(struct cm_walk *walk,
                                   struct cm_decision *d_r);

/* cm_decide_effects - instead of cm_decide_start: walk the effects alone. Every
 * fault that comes out is to be applied. */
void cm_decide_effects(struct cm_walk *walk, const struct cm_ruleset *rules,
                       const struct cm_event *event, struct cm_coin *coin);

/*
 * cm_decide_turns - a message's rules at a late stage are walked once for each
 * recipient; what the walks before got through is given to the next here, so
 * that a rule for the whole message (cm_rule_is_for_message) tosses its coin
 * once.
 *
 * taken  0 for the first walk, then what cm_decide_taken told after the one
 * before
 */
void cm_decide_turns(struct cm_walk *walk, size_t taken);
size_t cm_decide_taken(const struct cm_walk *walk);

/* After NEED_OCCURRENCE, whose d_r holds the rule in question: the number (>=
 * 1) of this mail, or no answer. In the coin an inbox's rule is called "inbox:"
 * and its id, so the caller should count it under that name too. */
void cm_decide_occurrence(struct cm_walk *walk, uint64_t occurrence);
void cm_decide_pass(struct cm_walk *walk);

/*
 * cm_decide_choose - the details of one step of a sequence: how long its
 * latency, which reply. Chance is the rule's own coin.
 *
 * walk        the walk that led to d, not yet gone on with
 * d           what cm_decide_next gave: its rule's fault is the sequence
 * step        from cm_fault_step
 * occurrence  the number of the attempt, for a seeded rule
 * d_r         out: d with fault, delay_ms and reply of the step; may be d. Its
 *             occurrence stays that of the toss which let the sequence act.
 *
 * false: chance is not to be had, so nothing may happen; *d_r is not touched.
 */
bool cm_decide_choose(const struct cm_walk *walk, const struct cm_decision *d,
                      const struct cm_fault *step, uint64_t occurrence,
                      struct cm_decision *d_r) CM_MUST_CHECK;

#endif
