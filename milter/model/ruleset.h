/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULESET_H
#define CM_RULESET_H

#include "milter/err.h"
#include "milter/model/rule.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The ordered list of fault rules, indexed so that a decision's cost does not
 * grow with their number: exact recipients and domains are found by hash,
 * clients by a binary trie over the address bits, only rules without any such
 * condition (globs and the like) are walked. Order is kept: the candidates come
 * out by position, and the first that matches wins. Immutable; ref-counted.
 */
struct cm_ruleset;

/*
 * cm_ruleset_new - takes ownership of nrules rules at rules (an array from
 * malloc, itself freed too; NULL when nrules is 0), also when it fails. Effects
 * come last.
 * Returns CM_OK or CM_ENOMEM.
 */
enum cm_status cm_ruleset_new(struct cm_ruleset **set_r, struct cm_rule *rules,
                              size_t nrules) CM_MUST_CHECK;
struct cm_ruleset *cm_ruleset_ref(struct cm_ruleset *set);
void cm_ruleset_release(struct cm_ruleset **set);

size_t cm_ruleset_count(const struct cm_ruleset *set);
const struct cm_rule *cm_ruleset_at(const struct cm_ruleset *set, size_t i);

/* cm_ruleset_stages - CM_STAGE_BITs at which any rule acts, effects aside;
 * cm_ruleset_effect_stages - at which an effect does. */
unsigned cm_ruleset_stages(const struct cm_ruleset *set);
unsigned cm_ruleset_effect_stages(const struct cm_ruleset *set);

/* cm_ruleset_effects - the position of the first effect: all that follow are
 * effects, too. cm_ruleset_count when there is none. */
size_t cm_ruleset_effects(const struct cm_ruleset *set);

/*
 * What must be watched of a message for the enabled rules (see watch.h):
 * - a header by this name, without case: a condition looks at it, or a mutation
 *   takes it out; any header at all
 * - its size, for a condition at the end of the message
 * - how much of the body's beginning a mutation needs: a number of bytes,
 *   INT64_MAX for all of it, 0 for none
 */
bool cm_ruleset_wants_header(const struct cm_ruleset *set, const char *name);
bool cm_ruleset_wants_headers(const struct cm_ruleset *set);
bool cm_ruleset_wants_size(const struct cm_ruleset *set);
int64_t cm_ruleset_body_bytes(const struct cm_ruleset *set);

/*
 * cm_ruleset_body_needed - the same for one recipient of one message: what a
 * rule in force needs of the body that may yet meet this event at the end of
 * the message, none of its conditions being NO. Costs as much as a walk, and
 * nothing when no rule needs a body.
 */
int64_t cm_ruleset_body_needed(const struct cm_ruleset *set,
                               const struct cm_event *event);

/*
 * cm_ruleset_asks_attempt - must this attempt to deliver be counted? Yes while
 * a rule in force, at RCPT or later, has an attempt among its conditions and
 * none of the others is NO, as far as they can be told from this event at RCPT:
 * client, helo, user, sender and recipient. To be asked before the walk, so
 * that the number does not depend on which rule acted first. Costs as much as a
 * walk, and nothing when no rule has such a condition.
 */
bool cm_ruleset_asks_attempt(const struct cm_ruleset *set,
                             const struct cm_event *event);

/*
 * cm_ruleset_next - the position of the first rule at or after from that acts
 * at the event's stage, is in force and matches; cm_ruleset_count when none
 * does. Allocates nothing; thread-safe. set may be NULL (no rules).
 */
size_t cm_ruleset_next(const struct cm_ruleset *set,
                       const struct cm_event *event, size_t from);

#endif
