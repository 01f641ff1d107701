/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rule documents: the members that every rule has. Conditions are in
 * match_json.c, faults in fault_json.c. What depends on two members (may this
 * fault act at that stage, is this condition known there) is checked last, when
 * both are known to be sound on their own.
 */
#include "milter/model/rule_json.h"
#include "milter/model/ascii.h"
#include "milter/model/fault_json.h"
#include "milter/model/match_json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_RULE_ID_MAX 64

static const char *const mode_names[] = {"live", "shadow", NULL};

static const struct cm_member rule_members[] = {
    {.name = "id", .type = CM_MEMBER_STRING, .max = CM_RULE_ID_MAX},
    {.name = "description", .type = CM_MEMBER_STRING, .max = 8192},
    CM_MEMBER_ROW_BOOLEAN("enabled", true),
    CM_MEMBER_ROW_CHOICE("mode", "live", "live", "shadow"),
    {.name = "stage", .type = CM_MEMBER_STRING, .max = 16},
    CM_MATCH_MEMBERS CM_MEMBER_ROW_NUMBER("probability", 0, 1, 1),
    {.name = "seed", .type = CM_MEMBER_INTEGER, .max = CM_MEMBER_UNBOUNDED},
    {.name = "expiresAt", .type = CM_MEMBER_TIME},
    {.name = "maxHits",
     .type = CM_MEMBER_INTEGER,
     .min = 1,
     .max = CM_MEMBER_UNBOUNDED},
    {.name = "fault", .type = CM_MEMBER_ANY},
    CM_MEMBER_ROW_END,
};

static bool
is_id(const char *s)
{
    size_t len = strlen(s);
    for (const char *c = s; *c; c++) {
        if (!cm_ascii_is_letter(*c) && !cm_ascii_is_digit(*c) &&
            !strchr("._-", *c))
            return false;
    }
    return len >= 1 && len <= CM_RULE_ID_MAX;
}

static void
build_id(struct cm_draft *draft, struct cm_rule *rule, const char *key)
{
    const char *own = cm_draft_text(draft, "id");
    const char *id = own ? own : key;
    if (!id || !is_id(id))
        cm_draft_complain(draft, "id",
                          "must be 1 to %d letters, digits, dots, hyphens and "
                          "underscores",
                          CM_RULE_ID_MAX);
    else if (own && key && strcmp(own, key) != 0)
        cm_draft_complain(draft, "id", "must be %s, under which it is kept",
                          key);
    else
        rule->id = cm_draft_dup(draft, id);
}

static void
build_bounds(struct cm_draft *draft, struct cm_rule *rule)
{
    const char *expiry = cm_draft_text(draft, "expiresAt");
    rule->expires_at_ms = CM_RULE_NEVER_EXPIRES;
    if (expiry && cm_time_parse(expiry, &rule->expires_at_ms) != CM_OK)
        cm_draft_complain(draft, "expiresAt", "must be a time");
    rule->enabled = cm_draft_flag(draft, "enabled");
    rule->mode = (enum cm_rule_mode)cm_draft_choice(draft, "mode", mode_names);
    rule->max_hits = (uint64_t)cm_draft_integer(draft, "maxHits");
    rule->probability_ppb = cm_coin_ppb(cm_draft_number(draft, "probability"));
    rule->seeded = cm_draft_member(draft, "seed") != NULL;
    rule->seed = (uint64_t)cm_draft_integer(draft, "seed");
}

/* false after a complaint. */
static bool
build_stage(struct cm_draft *draft, struct cm_rule *rule)
{
    char list[128];
    const char *name = cm_draft_text(draft, "stage");
    unsigned stages = cm_fault_stages(&rule->fault);
    const char *kind = cm_fault_name(rule->fault.kind);
    if (!name && cm_draft_is_given(draft, "stage"))
        return false; /* no string: refused already */
    if (!stages) {
        cm_draft_complain(draft, "fault.steps",
                          "have no stage at which all of them can act");
        return false;
    }
    bool known = !name || cm_stage_parse(name, &rule->stage) == CM_OK;
    if (!name)
        rule->stage = cm_fault_default_stage(&rule->fault);
    if (known && stages & CM_STAGE_BIT(rule->stage))
        return true;
    cm_stage_list(stages, list, sizeof list);
    cm_draft_complain(draft, "stage",
                      "must be one of the following values: %s (where this "
                      "%s can act)",
                      list, kind);
    return false;
}

/* A bucket per recipient cannot be found before there is one. */
static void
check_throttle(struct cm_draft *draft, const struct cm_rule *rule)
{
    bool by_recipient = rule->fault.kind == CM_FAULT_THROTTLE &&
                        (rule->fault.u.throttle.per == CM_THROTTLE_INBOX ||
                         rule->fault.u.throttle.per == CM_THROTTLE_DOMAIN);
    if (by_recipient && rule->stage == CM_STAGE_MAIL)
        cm_draft_complain(draft, "fault.per",
                          "must be sender or client at stage mail: the "
                          "recipient is not known yet");
}

static void
build(struct cm_draft *draft, struct cm_rule *rule, const char *id)
{
    build_id(draft, rule, id);
    cm_match_build(draft, &rule->match);
    build_bounds(draft, rule);
    enum cm_status status =
        cm_fault_compile(&rule->fault, cm_draft_member(draft, "fault"), "fault",
                         draft->flags, draft->problems);
    if (status == CM_ENOMEM)
        draft->status = status;
    if (status == CM_OK && build_stage(draft, rule)) {
        if (rule->fault.kind == CM_FAULT_HIDE)
            cm_match_check_hide(draft);
        else
            cm_match_check_stage(draft, rule->stage);
        check_throttle(draft, rule);
    }
}

enum cm_status
cm_rule_compile(struct cm_rule *rule_r, const char *id,
                const struct json_t *doc, unsigned flags,
                struct cm_problems *problems)
{
    struct cm_rule rule = {.id = NULL};
    struct cm_draft draft;
    if (!json_is_object(doc)) {
        cm_problem_add(problems, "", "rule must be a JSON object");
        return CM_EINVAL;
    }
    cm_draft_init(&draft, doc, rule_members, "", flags, problems);
    if (draft.status == CM_OK)
        build(&draft, &rule, id);
    enum cm_status status = cm_draft_status(&draft);
    if (status == CM_OK)
        *rule_r = rule;
    else
        cm_rule_fini(&rule);
    cm_draft_fini(&draft);
    return status;
}
