/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A parameter that is misspelt must not silently mean "all": unknown names and
 * unknown values are refused, with what is allowed. Globs were left out: who
 * wants all inboxes of a domain gives a rule's name, or looks at all.
 */
#include "admin/event_filter.h"
#include "admin/target.h"
#include "milter/model/fault.h"
#include "milter/model/problem.h"
#include "milter/model/stage.h"
#include "milter/store/incident.h"
#include "milter/store/record.h"

#include <stdio.h>
#include <string.h>

/* --- reading --- */

typedef bool parse_fn(const char *name, unsigned *bit_r);

static bool
parse_stage(const char *name, unsigned *bit_r)
{
    enum cm_stage stage;
    if (cm_stage_parse(name, &stage) != CM_OK)
        return false;
    *bit_r = CM_STAGE_BIT(stage);
    return true;
}

static bool
parse_kind(const char *name, unsigned *bit_r)
{
    enum cm_fault_kind kind;
    if (cm_fault_parse_kind(name, &kind) != CM_OK)
        return false;
    *bit_r = 1u << kind;
    return true;
}

static bool
parse_outcome(const char *name, unsigned *bit_r)
{
    enum cm_incident_outcome outcome;
    if (cm_incident_parse_outcome(name, &outcome) != CM_OK)
        return false;
    *bit_r = 1u << outcome;
    return true;
}

static void
read_names(const struct cm_target *target, const char *param, parse_fn *parse,
           unsigned *bits_r, struct cm_problems *problems)
{
    const char *at = cm_target_param(target, param);
    *bits_r = 0;
    while (at) {
        char name[24];
        unsigned bit;
        size_t len = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)len, at);
        if (len >= sizeof name || !parse(name, &bit)) {
            cm_problem_add(problems, param, "%s: there is no %s \"%.40s\"",
                           param, param, name);
            return;
        }
        *bits_r |= bit;
        at = at[len] ? at + len + 1 : NULL;
    }
}

static void
read_inbox(struct cm_event_filter *filter, const struct cm_target *target,
           unsigned flags, struct cm_problems *problems)
{
    const char *text = cm_target_param(target, "inbox");
    struct cm_err err;
    filter->by_inbox = text != NULL;
    if (!text)
        return;
    if (cm_address_parse(&filter->inbox, text, strlen(text), flags, &err) !=
        CM_OK)
        cm_problem_add(problems, "inbox", "inbox: %s", err.msg);
    else if (filter->inbox.len == 0)
        cm_problem_add(problems, "inbox", "inbox: an address is needed");
}

static bool
is_in(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name) != 0)
        list++;
    return *list != NULL;
}

void
cm_event_filter_read(struct cm_event_filter *filter_r,
                     const struct cm_target *target, unsigned flags,
                     const char *delimiters, const char *const *others,
                     struct cm_problems *problems)
{
    static const char *const own[] = {"inbox", "rule",    "stage",
                                      "kind",  "outcome", NULL};
    memset(filter_r, 0, sizeof *filter_r);
    filter_r->delimiters = delimiters;
    for (size_t i = 0; i < target->nparam; i++) {
        const char *name = target->param[i].name;
        if (!is_in(name, own) && !is_in(name, others))
            cm_problem_add(problems, name, "%.40s: there is no such parameter",
                           name);
    }
    read_inbox(filter_r, target, flags, problems);
    const char *rule = cm_target_param(target, "rule");
    if (rule && strlen(rule) >= sizeof filter_r->rule)
        cm_problem_add(problems, "rule", "rule: no rule has so long a name");
    else if (rule)
        memcpy(filter_r->rule, rule, strlen(rule) + 1);
    read_names(target, "stage", parse_stage, &filter_r->stages, problems);
    read_names(target, "kind", parse_kind, &filter_r->kinds, problems);
    read_names(target, "outcome", parse_outcome, &filter_r->outcomes, problems);
}

/* --- matching --- */

static bool
has(unsigned wanted, parse_fn *parse, const char *name)
{
    unsigned bit;
    return wanted == 0 || (parse(name, &bit) && (wanted & bit));
}

/* The text is canonical already: its last "@" parts it. */
static bool
is_inbox(const struct cm_event_filter *filter, const char *text)
{
    struct cm_address addr, base;
    size_t len = strlen(text);
    if (strcmp(text, filter->inbox.text) == 0)
        return true;
    if (len == 0 || len >= sizeof addr.text)
        return false;
    const char *at = strrchr(text, '@');
    memcpy(addr.text, text, len + 1);
    addr.len = (uint16_t)len;
    addr.domain_off = (uint16_t)(at ? at + 1 - text : (long)len);
    return cm_address_strip_tag(&addr, filter->delimiters, &base) &&
           strcmp(base.text, filter->inbox.text) == 0;
}

bool
cm_event_filter_match(const struct cm_event_filter *filter,
                      const struct cm_record *record)
{
    return has(filter->kinds, parse_kind, record->at[CM_ENTRY_KIND]) &&
           has(filter->stages, parse_stage, record->at[CM_ENTRY_STAGE]) &&
           has(filter->outcomes, parse_outcome, record->at[CM_ENTRY_OUTCOME]) &&
           (!*filter->rule ||
            strcmp(filter->rule, record->at[CM_ENTRY_RULE]) == 0) &&
           (!filter->by_inbox || is_inbox(filter, record->at[CM_ENTRY_INBOX]));
}
