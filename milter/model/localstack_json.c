/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fault rule of LocalStack's is another spelling of a rule document, so it is
 * rewritten as one and compiled like one: what the members mean is said in one
 * place. Complaints come back with the names of that spelling, and are put into
 * the words of the document that was given.
 */
#include "milter/model/localstack_json.h"
#include "milter/model/draft.h"
#include "milter/model/members.h"
#include "milter/model/rule.h"
#include "milter/model/rule_json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const stage_names[] = {"connect", "helo", "auth",   "mail",
                                          "rcpt",    "data", "message"};
#define NSTAGES (sizeof stage_names / sizeof stage_names[0])
#define STAGE_LIST                                                             \
    "must be one of the following values: connect, helo, auth, mail, rcpt, "   \
    "data, message"

/* LocalStack's users write operations in capitals. */
static const struct {
    const char *capital, *stage;
} capitals[] = {
    {"MAIL", "mail"}, {"RCPT", "rcpt"}, {"DATA", "data"}, {"AUTH", "auth"}};

/* How a member is called here, and in a rule document. The second of two names
 * for one thing is LocalStack's own. */
struct spelling {
    const char *given, *kept;
};
static const struct spelling rule_spellings[] = {
    {"inbox", "inbox"},
    {"service", "inbox"},
    {"domain", "domain"},
    {"region", "domain"},
    {"stage", "stage"},
    {"operation", "stage"},
    {"sender", "sender"},
    {"client", "client"},
    {"user", "user"},
    {"probability", "probability"},
    {"fault", "fault"},
    {"description", "description"},
    {"expiresAt", "expiresAt"},
    {"maxHits", "maxHits"},
    {"mode", "mode"},
    {"error", NULL}, /* becomes a fault, below */
    {NULL, NULL},
};
static const struct spelling error_spellings[] = {
    {"statusCode", "code"},
    {"code", "enhanced"},
    {"message", "text"},
    {NULL, NULL},
};

/* A document on its way to being a rule document. */
struct rewriting {
    const char *prefix;
    struct cm_problems *problems;
    bool out_of_memory;
};

static const struct spelling *
find_spelling(const struct spelling *spellings, const char *given)
{
    while (spellings->given && strcmp(spellings->given, given) != 0)
        spellings++;
    return spellings->given ? spellings : NULL;
}

static void
put(struct rewriting *re, json_t *to, const char *name, json_t *value)
{
    if (!value || json_object_set_new(to, name, value) != 0)
        re->out_of_memory = true;
}

/* The stage's name in a rule document; NULL after a complaint. */
static const char *
rewrite_stage(struct rewriting *re, const char *given, const json_t *value)
{
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < NSTAGES; i++) {
        if (strcmp(name, stage_names[i]) == 0)
            return name;
    }
    for (size_t i = 0; name && i < sizeof capitals / sizeof *capitals; i++) {
        if (strcmp(name, capitals[i].capital) == 0)
            return capitals[i].stage;
    }
    cm_member_problem(re->problems, re->prefix, given, STAGE_LIST);
    return NULL;
}

/* Copies the members of from under their names in a rule document. */
static void
rewrite_members(struct rewriting *re, json_t *to, const json_t *from,
                const struct spelling *spellings)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)from, key, value)
    {
        const struct spelling *spelling = find_spelling(spellings, key);
        if (!spelling) {
            char path[sizeof re->problems->at[0].path];
            snprintf(path, sizeof path, "%s%s", re->prefix, key);
            cm_problem_add(re->problems, path, "%sproperty %s should not exist",
                           re->prefix, key);
        } else if (json_is_null(value) || !spelling->kept) {
            continue;
        } else if (json_object_get(to, spelling->kept)) {
            cm_member_problem(re->problems, re->prefix, key,
                              "must not be given beside its other name");
        } else if (strcmp(spelling->kept, "stage") == 0) {
            const char *stage = rewrite_stage(re, key, value);
            if (stage)
                put(re, to, "stage", json_string(stage));
        } else {
            put(re, to, spelling->kept, json_incref(value));
        }
    }
}

/* What becomes of the mail: the error, in the words of a fault document. */
static void
rewrite_error(struct rewriting *re, json_t *to, const json_t *from)
{
    const json_t *error = json_object_get(from, "error");
    bool given = error && !json_is_null(error);
    if (given && json_object_get(to, "fault")) {
        cm_member_problem(re->problems, re->prefix, "fault",
                          "must not be given together with error");
        return;
    }
    if (json_object_get(to, "fault"))
        return;
    json_t *fault = json_pack("{s:s}", "kind", "error");
    if (given && !json_is_object(error)) {
        cm_member_problem(re->problems, re->prefix, "error",
                          "must be an object");
    } else if (fault && given) {
        char prefix[CM_DRAFT_PREFIX_BYTES];
        struct rewriting inner = {prefix, re->problems, false};
        snprintf(prefix, sizeof prefix, "%serror.", re->prefix);
        rewrite_members(&inner, fault, error, error_spellings);
        re->out_of_memory |= inner.out_of_memory;
    }
    put(re, to, "fault", fault);
}

/* The name that was given for a path of the rule document, NULL for the same:
 * "service" for "inbox", "error.statusCode" for "fault.code". */
static const char *
given_name(const json_t *doc, const char *path, char out[64])
{
    static const char fault[] = "fault.";
    const struct spelling *s = rule_spellings;
    if (strncmp(path, fault, sizeof fault - 1) == 0 &&
        !json_object_get(doc, "fault")) {
        for (s = error_spellings; s->given; s++) {
            size_t len = strlen(s->kept);
            const char *rest = path + sizeof fault - 1 + len;
            if (strncmp(path + sizeof fault - 1, s->kept, len) == 0 &&
                (*rest == '\0' || *rest == '[')) {
                snprintf(out, 64, "error.%s%s", s->given, rest);
                return out;
            }
        }
        return NULL;
    }
    for (; s->given; s++) {
        if (s->kept && strcmp(s->kept, path) == 0 &&
            strcmp(s->given, path) != 0 && json_object_get(doc, s->given))
            return s->given;
    }
    return NULL;
}

/* Complaints of the rule document, in the words of the given one. A sentence
 * begins with its path. */
static void
pass_on(const struct cm_problems *from, const json_t *doc, const char *prefix,
        struct cm_problems *to)
{
    for (size_t i = 0; i < from->n; i++) {
        const struct cm_problem *p = &from->at[i];
        char name[64], path[sizeof p->path];
        const char *given = given_name(doc, p->path, name);
        size_t len = strlen(p->path);
        bool begins = strncmp(p->text, p->path, len) == 0;
        snprintf(path, sizeof path, "%s%s", prefix, given ? given : p->path);
        if (begins && given)
            cm_problem_add(to, path, "%s%s", path, p->text + len);
        else
            cm_problem_add(to, path, "%s%s", prefix, p->text);
    }
    to->dropped += from->dropped;
}

static enum cm_status
rewrite(json_t **rule_r, const json_t *doc, const char *prefix,
        struct cm_problems *problems)
{
    struct rewriting re = {prefix, problems, false};
    size_t before = problems->n + problems->dropped;
    json_t *rule = json_object();
    if (!rule)
        return CM_ENOMEM;
    rewrite_members(&re, rule, doc, rule_spellings);
    rewrite_error(&re, rule, doc);
    *rule_r = rule;
    if (re.out_of_memory)
        return CM_ENOMEM;
    return problems->n + problems->dropped > before ? CM_EINVAL : CM_OK;
}

enum cm_status
cm_localstack_compile(struct cm_rule *rule_r, const char *id,
                      const struct json_t *doc, const char *prefix,
                      unsigned flags, struct cm_problems *problems)
{
    struct cm_problems own;
    json_t *rule = NULL;
    if (!json_is_object(doc)) {
        char name[sizeof problems->at[0].path] = "rule.";
        snprintf(name, sizeof name, "%s", *prefix ? prefix : "rule.");
        name[strlen(name) - 1] = '\0'; /* the dot */
        cm_problem_add(problems, *prefix ? name : "",
                       "%s must be a JSON object", name);
        return CM_EINVAL;
    }
    cm_problems_init(&own);
    /* All faults at once: the rest is looked at, too, when a part is wrong. */
    enum cm_status rewritten = rewrite(&rule, doc, prefix, problems);
    enum cm_status status =
        rewritten == CM_ENOMEM ? rewritten
                               : cm_rule_compile(rule_r, id, rule, flags, &own);
    pass_on(&own, doc, prefix, problems);
    if (status == CM_OK && rewritten != CM_OK)
        cm_rule_fini(rule_r);
    else if (status == CM_OK)
        rule_r->face = CM_FACE_FAULT;
    json_decref(rule);
    return status == CM_OK ? rewritten : status;
}

/* --- effects --- */

static const char *const distributions[] = {"uniform", "lognormal", NULL};

static const struct cm_member effect_members[] = {
    {.name = "latency",
     .type = CM_MEMBER_INTEGER,
     .required = true,
     .max = CM_FAULT_DELAY_MAX_MS},
    {.name = "jitter", .type = CM_MEMBER_INTEGER, .max = CM_FAULT_DELAY_MAX_MS},
    {.name = "distribution",
     .type = CM_MEMBER_CHOICE,
     .choices = distributions},
    {.name = "stage",
     .type = CM_MEMBER_CHOICE,
     .choices = CM_MEMBER_TEXTS("connect", "helo", "mail", "rcpt", "data",
                                "message")},
    CM_MEMBER_ROW_END,
};

static struct cm_fault_latency
spread(int64_t latency_ms, int64_t jitter_ms, bool lognormal)
{
    struct cm_fault_latency fault = {
        .kind = CM_DELAY_FIXED, .min_ms = latency_ms, .max_ms = latency_ms};
    if (jitter_ms == 0)
        return fault;
    if (lognormal) {
        fault.kind = CM_DELAY_LOGNORMAL;
        fault.median_ms = (double)latency_ms;
        fault.sigma = log(1.0 + (double)jitter_ms / (double)latency_ms);
        return fault;
    }
    fault.kind = CM_DELAY_UNIFORM;
    fault.min_ms = latency_ms > jitter_ms ? latency_ms - jitter_ms : 0;
    fault.max_ms = latency_ms + jitter_ms;
    return fault;
}

static void
build_effect(struct cm_draft *draft, struct cm_rule *rule)
{
    int64_t latency_ms = cm_draft_integer(draft, "latency");
    int64_t jitter_ms = cm_draft_integer(draft, "jitter");
    bool lognormal = cm_draft_choice(draft, "distribution", distributions) == 1;
    const char *stage = cm_draft_text(draft, "stage");
    if (latency_ms + jitter_ms > CM_FAULT_DELAY_MAX_MS)
        cm_draft_complain(draft, "jitter",
                          "must not be greater than %lld (latency and jitter "
                          "together are at most %d)",
                          (long long)(CM_FAULT_DELAY_MAX_MS - latency_ms),
                          CM_FAULT_DELAY_MAX_MS);
    if (lognormal && (latency_ms == 0 || jitter_ms == 0))
        cm_draft_complain(draft, "distribution",
                          "lognormal needs a latency and a jitter above 0");
    if (!stage || cm_stage_parse(stage, &rule->stage) != CM_OK)
        rule->stage = CM_STAGE_MESSAGE;
    rule->fault.u.latency = spread(latency_ms, jitter_ms, lognormal);
}

enum cm_status
cm_localstack_effect(struct cm_rule *rule_r, const struct json_t *doc,
                     struct cm_problems *problems)
{
    struct cm_rule rule = {
        .id = NULL,
        .face = CM_FACE_EFFECT,
        .enabled = true,
        .probability_ppb = CM_COIN_ALWAYS,
        .expires_at_ms = CM_RULE_NEVER_EXPIRES,
        .fault = {.kind = CM_FAULT_LATENCY},
    };
    struct cm_draft draft;
    if (!json_is_object(doc)) {
        cm_problem_add(problems, "", "body must be a JSON object");
        return CM_EINVAL;
    }
    cm_draft_init(&draft, doc, effect_members, "", 0, problems);
    if (draft.status == CM_OK)
        build_effect(&draft, &rule);
    enum cm_status status = cm_draft_status(&draft);
    cm_draft_fini(&draft);
    if (status != CM_OK)
        return status;
    if (rule.fault.u.latency.max_ms == 0)
        return CM_NOTFOUND;
    rule.id = strdup("latency");
    if (!rule.id)
        return CM_ENOMEM;
    *rule_r = rule;
    return CM_OK;
}
