/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VaultSandbox configurations. The tables say what the API takes and answers;
 * five small functions say what rule each part becomes. Compiling always goes
 * through the normalized form, so that a document put into Redis by hand meets
 * the same checks and defaults as one that came by HTTP.
 */
#include "milter/model/inbox_json.h"
#include "milter/model/json.h"
#include "milter/model/members.h"
#include "milter/model/reply.h"
#include "milter/model/rfc3339.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENABLED                                                                \
    {                                                                          \
        .name = "enabled", .type = CM_MEMBER_BOOLEAN, .required = true         \
    }
#define STAGE(...)                                                             \
    {                                                                          \
        .name = "stage", .type = CM_MEMBER_CHOICE,                             \
        .choices = CM_MEMBER_TEXTS(__VA_ARGS__)                                \
    }

static const struct cm_member latency_members[] = {
    ENABLED,
    CM_MEMBER_ROW_NUMBER("minDelayMs", 0, CM_MEMBER_UNBOUNDED, 500),
    CM_MEMBER_ROW_NUMBER("maxDelayMs", 0, CM_FAULT_DELAY_MAX_MS, 10000),
    CM_MEMBER_ROW_BOOLEAN("jitter", true),
    CM_MEMBER_ROW_NUMBER("probability", 0, 1, 1),
    STAGE("rcpt", "data", "message"),
    CM_MEMBER_ROW_END,
};
static const struct cm_member drop_members[] = {
    ENABLED,
    CM_MEMBER_ROW_NUMBER("probability", 0, 1, 1),
    CM_MEMBER_ROW_BOOLEAN("graceful", true),
    CM_MEMBER_ROW_END,
};
static const struct cm_member random_error_members[] = {
    ENABLED,
    CM_MEMBER_ROW_NUMBER("errorRate", 0, 1, 0.1),
    {.name = "errorTypes",
     .type = CM_MEMBER_CHOICES,
     .choices = CM_MEMBER_TEXTS("temporary", "permanent"),
     .has_default = true,
     .default_texts = CM_MEMBER_TEXTS("temporary")},
    {.name = "code", .type = CM_MEMBER_INTEGER, .min = 400, .max = 599},
    {.name = "text", .type = CM_MEMBER_STRING, .max = CM_REPLY_LINE_BYTES_MAX},
    STAGE("rcpt", "data", "message"),
    CM_MEMBER_ROW_END,
};
static const struct cm_member greylist_members[] = {
    ENABLED,
    CM_MEMBER_ROW_NUMBER("retryWindowMs", 0, CM_MEMBER_UNBOUNDED, 300000),
    CM_MEMBER_ROW_NUMBER("maxAttempts", 1, CM_MEMBER_UNBOUNDED, 2),
    CM_MEMBER_ROW_CHOICE("trackBy", "ip_sender", "ip", "sender", "ip_sender"),
    STAGE("rcpt", "message"),
    CM_MEMBER_ROW_END,
};
static const struct cm_member blackhole_members[] = {
    ENABLED,
    CM_MEMBER_ROW_BOOLEAN("triggerWebhooks", false),
    CM_MEMBER_ROW_END,
};
static const struct cm_member config_members[] = {
    ENABLED,
    {.name = "expiresAt", .type = CM_MEMBER_TIME},
    CM_MEMBER_ROW_OBJECT("latency", latency_members),
    CM_MEMBER_ROW_OBJECT("connectionDrop", drop_members),
    CM_MEMBER_ROW_OBJECT("randomError", random_error_members),
    CM_MEMBER_ROW_OBJECT("greylist", greylist_members),
    CM_MEMBER_ROW_OBJECT("blackhole", blackhole_members),
    {.name = "seed", .type = CM_MEMBER_INTEGER, .max = CM_MEMBER_UNBOUNDED},
    {.name = "description", .type = CM_MEMBER_STRING, .max = 8192},
    CM_MEMBER_ROW_END,
};

/* What is wrong with a configuration that is no object: of the whole body, or
 * of the member that prefix names ("chaos."). */
static void
complain_shape(const json_t *in, const char *prefix,
               struct cm_problems *problems)
{
    size_t len = strlen(prefix);
    char name[sizeof problems->at[0].path] = "";
    if (len == 0) {
        cm_problem_add(problems, "", "body must be a JSON object");
        return;
    }
    if (len < sizeof name)
        memcpy(name, prefix, len - 1);
    if (json_is_array(in))
        cm_problem_add(problems, name, "%s must be an object", name);
    else
        cm_problem_add(problems, name,
                       "nested property %s must be either object or array",
                       name);
}

/* What the table cannot say of a reply of one's own. */
static void
check_reply(const json_t *config, const json_t *in, const char *prefix,
            struct cm_problems *problems)
{
    char path[sizeof problems->at[0].path];
    const json_t *error = json_object_get(config, "randomError");
    const json_t *given = json_object_get(in, "randomError");
    const json_t *text = json_object_get(error, "text");
    if (!text)
        return;
    snprintf(path, sizeof path, "%srandomError.", prefix);
    const char *wrong =
        cm_reply_check_line(json_string_value(text), json_string_length(text));
    if (wrong)
        cm_member_problem(problems, path, "text", "%s", wrong);
    else if (!json_object_get(given, "code"))
        cm_member_problem(problems, path, "text", "must come with a code");
}

enum cm_status
cm_inbox_normalize(struct json_t **out_r, const struct json_t *in,
                   const char *prefix, struct cm_problems *problems)
{
    size_t before = problems->n + problems->dropped;
    json_t *out = NULL;
    enum cm_status status = CM_OK;
    if (json_is_object(in))
        status =
            cm_members_normalize(&out, in, config_members, prefix, problems);
    else
        complain_shape(in, prefix, problems);
    if (out)
        check_reply(out, in, prefix, problems);
    if (status == CM_OK && problems->n + problems->dropped > before)
        status = CM_EINVAL;
    if (status == CM_OK)
        *out_r = out;
    else
        json_decref(out);
    return status;
}

/* Numbers of the API as the model holds them. */
static int64_t
number(const json_t *part, const char *name, int64_t max)
{
    double value = json_number_value(json_object_get(part, name));
    return value < (double)max ? (int64_t)llround(value) : max;
}

static uint32_t
probability(const json_t *part, const char *name)
{
    return cm_coin_ppb(json_number_value(json_object_get(part, name)));
}

static bool
flag(const json_t *part, const char *name)
{
    return json_is_true(json_object_get(part, name));
}

static enum cm_stage
stage_or(const json_t *part, enum cm_stage fallback)
{
    enum cm_stage stage = fallback;
    const char *name = json_string_value(json_object_get(part, "stage"));
    if (name && cm_stage_parse(name, &stage) != CM_OK)
        stage = fallback; /* cannot be: the table knows the names */
    return stage;
}

static enum cm_status
fill_drop(struct cm_rule *rule, const json_t *part)
{
    rule->stage = CM_STAGE_MESSAGE;
    rule->probability_ppb = probability(part, "probability");
    rule->fault.kind = CM_FAULT_DROP;
    rule->fault.u.drop = (struct cm_fault_drop){
        .how = flag(part, "graceful") ? CM_DROP_FIN : CM_DROP_RST,
        .outcome = CM_DROP_LOST,
    };
    return CM_OK;
}

static enum cm_track
track_by(const json_t *part)
{
    const char *name = json_string_value(json_object_get(part, "trackBy"));
    if (strcmp(name, "ip") == 0)
        return CM_TRACK_IP;
    return strcmp(name, "sender") == 0 ? CM_TRACK_SENDER : CM_TRACK_IP_SENDER;
}

static enum cm_status
fill_greylist(struct cm_rule *rule, const json_t *part)
{
    double attempts =
        ceil(json_number_value(json_object_get(part, "maxAttempts")));
    rule->stage = stage_or(part, CM_STAGE_RCPT);
    rule->probability_ppb = CM_COIN_ALWAYS;
    rule->fault.kind = CM_FAULT_GREYLIST;
    rule->fault.u.greylist = (struct cm_fault_greylist){
        .window_ms = number(part, "retryWindowMs", CM_FAULT_WINDOW_MAX_MS),
        .max_attempts = attempts < CM_FAULT_ATTEMPTS_MAX
                            ? (int64_t)attempts
                            : CM_FAULT_ATTEMPTS_MAX,
        .min_delay_ms = 0,
        .track = track_by(part),
    };
    return CM_OK;
}

/* A reply of the inbox's own instead of one drawn from the lists. */
static enum cm_status
make_reply(const json_t *part, struct cm_reply **reply_r)
{
    const char *text = json_string_value(json_object_get(part, "text"));
    int code = (int)json_integer_value(json_object_get(part, "code"));
    if (!text)
        text = cm_reply_default_text();
    return cm_reply_new(reply_r, code, cm_reply_default_enhanced(code), &text,
                        1, NULL);
}

static enum cm_status
fill_random_error(struct cm_rule *rule, const json_t *part)
{
    unsigned types = 0;
    const json_t *list = json_object_get(part, "errorTypes");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *type = json_string_value(json_array_get(list, i));
        types |= strcmp(type, "permanent") == 0 ? CM_REPLY_PERMANENT
                                                : CM_REPLY_TEMPORARY;
    }
    rule->stage = stage_or(part, CM_STAGE_RCPT);
    rule->probability_ppb = probability(part, "errorRate");
    rule->fault.kind = CM_FAULT_ERROR;
    if (json_object_get(part, "code"))
        return make_reply(part, &rule->fault.u.error.reply);
    rule->fault.u.error.types = types ? types : CM_REPLY_TEMPORARY;
    return CM_OK;
}

static enum cm_status
fill_blackhole(struct cm_rule *rule, const json_t *part)
{
    rule->stage = CM_STAGE_MESSAGE;
    rule->probability_ppb = CM_COIN_ALWAYS;
    rule->fault.kind = CM_FAULT_BLACKHOLE;
    rule->fault.u.blackhole.webhooks = flag(part, "triggerWebhooks");
    return CM_OK;
}

static enum cm_status
fill_latency(struct cm_rule *rule, const json_t *part)
{
    int64_t min_ms = number(part, "minDelayMs", CM_FAULT_DELAY_MAX_MS);
    int64_t max_ms = number(part, "maxDelayMs", CM_FAULT_DELAY_MAX_MS);
    bool spread = flag(part, "jitter") && min_ms < max_ms;
    rule->stage = stage_or(part, CM_STAGE_MESSAGE);
    rule->probability_ppb = probability(part, "probability");
    rule->fault.kind = CM_FAULT_LATENCY;
    rule->fault.u.latency = (struct cm_fault_latency){
        .kind = spread ? CM_DELAY_UNIFORM : CM_DELAY_FIXED,
        .min_ms = spread ? min_ms : max_ms,
        .max_ms = max_ms,
    };
    return CM_OK;
}

/* In the order of priority. */
static const struct {
    const char *member;
    const char *id;
    enum cm_status (*fill)(struct cm_rule *rule, const json_t *part);
} parts[CM_INBOX_RULES_MAX] = {
    {"connectionDrop", "drop", fill_drop},
    {"greylist", "greylist", fill_greylist},
    {"randomError", "randomError", fill_random_error},
    {"blackhole", "blackhole", fill_blackhole},
    {"latency", "latency", fill_latency},
};

static enum cm_status
add_rules(struct cm_inbox *inbox, const json_t *config)
{
    const json_t *seed = json_object_get(config, "seed");
    for (size_t i = 0; i < CM_INBOX_RULES_MAX; i++) {
        const json_t *part = json_object_get(config, parts[i].member);
        if (!flag(part, "enabled"))
            continue;
        struct cm_rule *rule = &inbox->rules[inbox->nrules];
        rule->id = strdup(parts[i].id);
        if (!rule->id)
            return CM_ENOMEM;
        inbox->nrules++;
        rule->face = CM_FACE_INBOX;
        rule->enabled = true;
        rule->expires_at_ms = CM_RULE_NEVER_EXPIRES; /* the inbox expires */
        rule->seeded = seed != NULL;
        rule->seed = (uint64_t)json_integer_value(seed);
        enum cm_status status = parts[i].fill(rule, part);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status
build(struct cm_inbox *inbox, const json_t *config, const char *doc, size_t len)
{
    const char *expiry =
        json_string_value(json_object_get(config, "expiresAt"));
    inbox->enabled = flag(config, "enabled");
    inbox->expires_at_ms = CM_RULE_NEVER_EXPIRES;
    if (expiry && cm_time_parse(expiry, &inbox->expires_at_ms) != CM_OK)
        return CM_EINVAL; /* cannot be: it was checked */
    inbox->doc = malloc(len + 1);
    if (!inbox->doc)
        return CM_ENOMEM;
    memcpy(inbox->doc, doc, len);
    inbox->doc[len] = '\0';
    inbox->doc_len = len;
    return add_rules(inbox, config);
}

enum cm_status
cm_inbox_compile(struct cm_inbox **inbox_r, const char *doc, size_t len,
                 struct cm_err *err)
{
    json_t *in = NULL, *config = NULL;
    struct cm_inbox *inbox = NULL;
    struct cm_problems problems;
    cm_problems_init(&problems);

    if (len > CM_INBOX_DOC_MAX)
        return cm_err_set(err, CM_EINVAL, "document is longer than %d bytes",
                          CM_INBOX_DOC_MAX);
    enum cm_status status = cm_json_parse(&in, doc, len, err);
    if (status != CM_OK)
        return status;
    status = cm_inbox_normalize(&config, in, "", &problems);
    if (status == CM_EINVAL)
        cm_err_set(err, status, "%s", cm_problems_first(&problems));
    if (status != CM_OK)
        goto done;

    inbox = calloc(1, sizeof *inbox);
    if (inbox) {
        inbox->refs = 1;
        status = build(inbox, config, doc, len);
    } else {
        status = CM_ENOMEM;
    }
    if (status == CM_OK)
        *inbox_r = inbox;
    else
        cm_inbox_release(&inbox);
done:
    if (status == CM_ENOMEM)
        cm_err_set(err, status, "out of memory");
    json_decref(config);
    json_decref(in);
    return status;
}
