/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes are asked for always, because asking costs nothing and a rule may
 * come while the session lasts. Headers and bodies are asked for only when a
 * rule wants them at the start: every mail of the session would pay for them
 * (a third of Postfix's throughput, measured on 3.7). No event is negotiated
 * with a no-reply bit: such a reply could not be held.
 */
#include "milter/filter/terms.h"
#include "milter/filter/filter.h"
#include "milter/model/ruleset.h"
#include "milter/store/replica.h"

#include <libmilter/mfapi.h>

/* What each fault asks of the MTA at the end of a message. */
struct need {
    unsigned long action;
    const char *lack;
};
static const struct need to_hold = {
    SMFIF_QUARANTINE, "the MTA does not let a milter hold a message"};
static const struct need to_add = {
    SMFIF_ADDRCPT, "the MTA does not let a milter add a recipient"};
static const struct need to_move = {
    SMFIF_ADDRCPT | SMFIF_DELRCPT,
    "the MTA does not let a milter add and delete recipients"};
static const struct need to_change_body = {
    SMFIF_CHGBODY, "the MTA does not let a milter replace a body"};
static const struct need to_change_header = {
    SMFIF_CHGHDRS, "the MTA does not let a milter change headers"};
static const struct need to_add_header = {
    SMFIF_ADDHDRS, "the MTA does not let a milter add a header"};

unsigned long
cm_terms_actions(void)
{
    return SMFIF_ADDRCPT | SMFIF_DELRCPT | SMFIF_CHGHDRS | SMFIF_ADDHDRS |
           SMFIF_CHGBODY | SMFIF_QUARANTINE | SMFIF_SETSYMLIST;
}

void
cm_terms_assume(struct cm_terms *terms_r)
{
    *terms_r = (struct cm_terms){.actions = cm_terms_actions()};
}

/* All that an unarmed filter can do without. DATA stays: over TCP, Postfix then
 * sends two packets in a row, and Nagle's algorithm with a delayed
 * acknowledgement costs 40 ms a message. */
#define CM_EVENTS_UNARMED                                                      \
    (SMFIP_NOCONNECT | SMFIP_NOHELO | SMFIP_NOMAIL | SMFIP_NORCPT |            \
     SMFIP_NOHDRS | SMFIP_NOEOH | SMFIP_NOBODY | SMFIP_NOUNKNOWN)

static unsigned long
unwanted_events(const struct cm_filter *filter, const struct cm_ruleset *rules)
{
    unsigned long skip = SMFIP_NOEOH;
    bool sized = cm_ruleset_wants_size(rules);
    unsigned stages =
        cm_ruleset_stages(rules) | cm_ruleset_effect_stages(rules);
    if (!filter->attendance)
        skip |= SMFIP_NOUNKNOWN; /* only the hook's words come that way */
    if (!(stages & CM_STAGE_BIT(CM_STAGE_HELO)))
        skip |= SMFIP_NOHELO;
    if (!sized && !cm_ruleset_wants_headers(rules))
        skip |= SMFIP_NOHDRS;
    if (!sized && cm_ruleset_body_bytes(rules) == 0)
        skip |= SMFIP_NOBODY;
    return skip;
}

void
cm_terms_agree(struct cm_terms *terms_r, const struct cm_filter *filter,
               unsigned long *actions, unsigned long *steps)
{
    struct cm_view *view = cm_replica_view(filter->replica);
    struct cm_ruleset *rules = view ? cm_view_rules(view) : NULL;
    unsigned long skip =
        filter->armed ? unwanted_events(filter, rules) : CM_EVENTS_UNARMED;
    cm_ruleset_release(&rules);
    cm_view_release(&view);
    *terms_r = (struct cm_terms){
        .actions = *actions & cm_terms_actions(),
        .headers = !(*steps & skip & SMFIP_NOHDRS),
        .body = !(*steps & skip & SMFIP_NOBODY),
        .skip = (*steps & SMFIP_SKIP) != 0,
    };
    *actions = terms_r->actions;
    *steps &= skip | (terms_r->body ? SMFIP_SKIP : 0);
}

static const struct need *
need_of_mutation(enum cm_mutate_how how)
{
    switch (how) {
    case CM_MUTATE_DROP_HEADER:
        return &to_change_header;
    case CM_MUTATE_ADD_HEADER:
        return &to_add_header;
    case CM_MUTATE_TRUNCATE_BODY:
    case CM_MUTATE_FLIP_BITS:
        break;
    }
    return &to_change_body;
}

/* A blackhole is not among them: the last recipient's needs no permission. */
static const struct need *
need_of(const struct cm_fault *fault)
{
    switch (fault->kind) {
    case CM_FAULT_QUARANTINE:
        return &to_hold;
    case CM_FAULT_DUPLICATE:
        return &to_add;
    case CM_FAULT_MISDELIVER:
        return &to_move;
    case CM_FAULT_MUTATE:
        return need_of_mutation(fault->u.mutate.how);
    case CM_FAULT_ERROR:
    case CM_FAULT_LATENCY:
    case CM_FAULT_DROP:
    case CM_FAULT_GREYLIST:
    case CM_FAULT_BLACKHOLE:
    case CM_FAULT_THROTTLE:
    case CM_FAULT_SEQUENCE:
    case CM_FAULT_HIDE:
    case CM_FAULT_COUNT:
        break;
    }
    return NULL;
}

const char *
cm_terms_lack(const struct cm_terms *terms, const struct cm_fault *fault)
{
    const struct need *need = need_of(fault);
    if (!need)
        return NULL;
    if ((terms->actions & need->action) != need->action)
        return need->lack;
    if (need == &to_change_body && !terms->body)
        return "the session began before any rule wanted its bodies";
    if (need == &to_change_header && !terms->headers)
        return "the session began before any rule wanted its headers";
    return NULL;
}
