/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Matching is a row of small questions, one per condition, each answered YES,
 * NO or UNKNOWN. NO beats UNKNOWN, and only YES to all of them is a match: a
 * condition that cannot be told must never hurt a mail.
 *
 * The index of a rule set narrows the candidates first, so nothing here needs
 * to be clever.
 */
#include "milter/model/rule.h"
#include "milter/model/address.h"
#include "milter/model/ascii.h"
#include "milter/model/event.h"
#include "milter/model/glob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
cm_rule_fini(struct cm_rule *rule)
{
    struct cm_match *match = &rule->match;
    free(rule->id);
    free(match->inbox.text);
    free(match->domain);
    free(match->sender.text);
    free(match->helo.text);
    free(match->user.text);
    free(match->mechanism);
    for (size_t i = 0; i < match->nheaders; i++) {
        free(match->headers[i].name);
        free(match->headers[i].pattern);
    }
    free(match->headers);
    cm_fault_fini(&rule->fault);
    memset(rule, 0, sizeof *rule);
}

static enum cm_verity
verity(bool holds)
{
    return holds ? CM_YES : CM_NO;
}

static bool
pattern_fits(const struct cm_pattern *pattern, const char *text)
{
    return pattern->kind == CM_PATTERN_EXACT
               ? strcmp(pattern->text, text) == 0
               : cm_glob_match(pattern->text, text);
}

static enum cm_verity
match_inbox(const struct cm_match *match, const struct cm_event *event)
{
    if (match->inbox.kind == CM_PATTERN_ANY)
        return CM_YES;
    if (!event->recipient)
        return CM_UNKNOWN;
    return verity(pattern_fits(&match->inbox, event->recipient->text) ||
                  (event->recipient_base &&
                   pattern_fits(&match->inbox, event->recipient_base->text)));
}

static enum cm_verity
match_domain(const struct cm_match *match, const struct cm_event *event)
{
    if (!match->domain)
        return CM_YES;
    if (!event->recipient)
        return CM_UNKNOWN;
    return verity(strcmp(match->domain, cm_address_domain(event->recipient)) ==
                  0);
}

static enum cm_verity
match_sender(const struct cm_match *match, const struct cm_event *event)
{
    if (match->sender.kind == CM_PATTERN_ANY)
        return CM_YES;
    if (!event->sender)
        return CM_UNKNOWN;
    return verity(pattern_fits(&match->sender, event->sender->text));
}

static enum cm_verity
match_client(const struct cm_match *match, const struct cm_event *event)
{
    if (match->client.family == 0)
        return CM_YES;
    if (!event->client || event->client->family == 0)
        return CM_UNKNOWN;
    return verity(cm_cidr_contains(&match->client, event->client->family,
                                   event->client->addr));
}

static enum cm_verity
match_helo(const struct cm_match *match, const struct cm_event *event)
{
    if (match->helo.kind == CM_PATTERN_ANY)
        return CM_YES;
    if (!event->helo)
        return CM_UNKNOWN;
    return verity(match->helo.kind == CM_PATTERN_EXACT
                      ? cm_ascii_equal(match->helo.text, event->helo)
                      : cm_glob_match_nocase(match->helo.text, event->helo));
}

static enum cm_verity
match_user(const struct cm_match *match, const struct cm_event *event)
{
    if (match->user.kind == CM_PATTERN_ANY)
        return CM_YES;
    if (!event->user)
        return CM_UNKNOWN;
    return verity(pattern_fits(&match->user, event->user) ||
                  (event->user_at_realm &&
                   pattern_fits(&match->user, event->user_at_realm)));
}

static enum cm_verity
match_mechanism(const struct cm_match *match, const struct cm_event *event)
{
    if (!match->mechanism)
        return CM_YES;
    if (!event->mechanism)
        return CM_UNKNOWN;
    return verity(cm_ascii_equal(match->mechanism, event->mechanism));
}

static bool
some_header_fits(const struct cm_header_match *wanted,
                 const struct cm_event *event)
{
    for (size_t i = 0; i < event->nheaders; i++) {
        const struct cm_header *header = &event->headers[i];
        if (header->name && header->value &&
            cm_ascii_equal(wanted->name, header->name) &&
            cm_glob_match_nocase(wanted->pattern, header->value))
            return true;
    }
    return false;
}

static enum cm_verity
match_headers(const struct cm_match *match, const struct cm_event *event)
{
    if (match->nheaders == 0)
        return CM_YES;
    if (!event->headers_known)
        return CM_UNKNOWN;
    for (size_t i = 0; i < match->nheaders; i++) {
        if (!some_header_fits(&match->headers[i], event))
            return CM_NO;
    }
    return CM_YES;
}

static enum cm_verity
match_range(const struct cm_range *range, bool known, int64_t n)
{
    if (!range->given)
        return CM_YES;
    if (!known)
        return CM_UNKNOWN;
    return verity(n >= range->gte && n <= range->lte);
}

static enum cm_verity
match_size(const struct cm_match *match, const struct cm_event *event)
{
    return match_range(&match->size, event->size_bytes >= 0, event->size_bytes);
}

static enum cm_verity
match_attempt(const struct cm_match *match, const struct cm_event *event)
{
    return match_range(&match->attempt, event->attempt > 0, event->attempt);
}

static const struct {
    const char *name; /* as in a document */
    enum cm_verity (*ask)(const struct cm_match *, const struct cm_event *);
} questions[] = {
    {"inbox", match_inbox},         {"domain", match_domain},
    {"sender", match_sender},       {"client", match_client},
    {"helo", match_helo},           {"user", match_user},
    {"mechanism", match_mechanism}, {"header", match_headers},
    {"size", match_size},           {"attempt", match_attempt},
};

enum cm_verity
cm_rule_failing(const struct cm_rule *rule, const struct cm_event *event,
                const char **condition_r)
{
    enum cm_verity all = CM_YES;
    *condition_r = NULL;
    if ((rule->fault.kind == CM_FAULT_HIDE) != event->keywords)
        return CM_NO;
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        enum cm_verity answer = questions[i].ask(&rule->match, event);
        if (answer == CM_NO || (answer == CM_UNKNOWN && all == CM_YES))
            *condition_r = questions[i].name;
        if (answer == CM_NO)
            return CM_NO;
        if (answer == CM_UNKNOWN)
            all = CM_UNKNOWN;
    }
    return all;
}

enum cm_verity
cm_rule_matches(const struct cm_rule *rule, const struct cm_event *event)
{
    const char *condition;
    return cm_rule_failing(rule, event, &condition);
}

/* Does the fault take, or count, one recipient at a time? */
static bool
is_by_recipient(const struct cm_fault *fault)
{
    switch (fault->kind) {
    case CM_FAULT_BLACKHOLE:
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_MISDELIVER:
    case CM_FAULT_GREYLIST:
        return true;
    case CM_FAULT_THROTTLE:
        return fault->u.throttle.per == CM_THROTTLE_INBOX ||
               fault->u.throttle.per == CM_THROTTLE_DOMAIN;
    case CM_FAULT_SEQUENCE:
        return (fault->u.sequence.key & CM_KEY_RECIPIENT) != 0;
    case CM_FAULT_ERROR:
    case CM_FAULT_LATENCY:
    case CM_FAULT_DROP:
    case CM_FAULT_QUARANTINE:
    case CM_FAULT_MUTATE:
    case CM_FAULT_HIDE:
    case CM_FAULT_COUNT:
        break;
    }
    return false;
}

const char *
cm_face_name(enum cm_face face)
{
    static const char *const names[] = {[CM_FACE_RULE] = "rule",
                                        [CM_FACE_FAULT] = "fault",
                                        [CM_FACE_TRIGGER] = "trigger",
                                        [CM_FACE_EFFECT] = "effect",
                                        [CM_FACE_INBOX] = "inbox"};
    return names[face];
}

bool
cm_rule_is_for_message(const struct cm_rule *rule)
{
    const struct cm_match *match = &rule->match;
    bool names_recipient = match->inbox.kind != CM_PATTERN_ANY || match->domain;
    return !names_recipient && !match->attempt.given &&
           !is_by_recipient(&rule->fault);
}

void
cm_rule_print_name(const struct cm_rule *rule, char *out, size_t cap)
{
    if (rule->face == CM_FACE_RULE)
        snprintf(out, cap, "%s", rule->id);
    else
        snprintf(out, cap, "%s:%s", cm_face_name(rule->face), rule->id);
}

bool
cm_rule_in_force(const struct cm_rule *rule, int64_t now_ms)
{
    return rule->enabled && now_ms < rule->expires_at_ms;
}
