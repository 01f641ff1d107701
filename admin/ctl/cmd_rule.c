/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rules: conditions and bounds by flags, and exactly one fault. What flags do
 * not say (several headers' patterns, the steps of a sequence as faults) can be
 * given as a document.
 */
#include "admin/ctl/command.h"
#include "admin/ctl/quantity.h"
#include "admin/ctl/show.h"
#include "milter/clock.h"
#include "milter/model/rfc3339.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_CTL_RULE_PAGE 1000

static const char rules_path[] = "/api/v1/rules";

/* --- faults --- */

static bool
complain(const char *flag, const char *what)
{
    cm_ctl_fail(0, "--%s: %s", flag, what);
    return false;
}

/* "451 4.7.1 text", "451 text" or "451". */
static bool
fill_error(json_t *fault, const char *value)
{
    struct cm_err err;
    int64_t code;
    char head[8] = "";
    size_t len = strcspn(value, " ");
    if (strcmp(value, "temporary") == 0 || strcmp(value, "permanent") == 0) {
        json_object_set_new(fault, "types", json_pack("[s]", value));
        return true;
    }
    snprintf(head, sizeof head, "%.*s", (int)len, value);
    if (cm_quantity_count(head, 400, 599, &code, &err) != CM_OK)
        return complain("error", err.msg);
    json_object_set_new(fault, "code", json_integer(code));
    const char *rest = value + len + strspn(value + len, " ");
    size_t token = strcspn(rest, " ");
    if (token >= 5 && strspn(rest, "0123456789.") == token && rest[1] == '.') {
        json_object_set_new(fault, "enhanced", json_stringn(rest, token));
        rest += token + strspn(rest + token, " ");
    }
    if (*rest)
        json_object_set_new(fault, "text", json_string(rest));
    return true;
}

/* "1s", "1s..5s", "median 2s sigma 0.5", "justUnder", "justOver rcpt". */
static bool
fill_latency(json_t *fault, const char *value)
{
    struct cm_err err;
    int64_t min_ms, max_ms;
    char median[32], of[16], side[16];
    double sigma;
    int n = sscanf(value, "%15s %15s", side, of);
    if (n >= 1 && strncmp(side, "just", 4) == 0) {
        json_object_set_new(fault, "limit", json_string(side));
        json_object_set_new(fault, "of", json_string(n == 2 ? of : "message"));
        return true;
    }
    if (sscanf(value, "median %31s sigma %lf", median, &sigma) == 2) {
        if (cm_quantity_duration(median, &min_ms, &err) != CM_OK)
            return complain("latency", err.msg);
        json_object_set_new(fault, "median", json_integer(min_ms));
        json_object_set_new(fault, "sigma", json_real(sigma));
        return true;
    }
    if (cm_quantity_span(value, &min_ms, &max_ms, &err) != CM_OK)
        return complain("latency", err.msg);
    if (min_ms == max_ms) {
        json_object_set_new(fault, "ms", json_integer(min_ms));
    } else {
        json_object_set_new(fault, "min", json_integer(min_ms));
        json_object_set_new(fault, "max", json_integer(max_ms));
    }
    return true;
}

/* "rst", "fin", "rst ackLost". */
static bool
fill_drop(json_t *fault, const char *value)
{
    char how[8] = "", outcome[16] = "";
    sscanf(value, "%7s %15s", how, outcome);
    json_object_set_new(fault, "how", json_string(how));
    if (*outcome)
        json_object_set_new(fault, "outcome", json_string(outcome));
    return true;
}

static bool
fill_greylist(json_t *fault, const char *value)
{
    struct cm_err err;
    int64_t attempts;
    if (cm_quantity_count(value, 1, 1000000, &attempts, &err) != CM_OK)
        return complain("greylist", err.msg);
    json_object_set_new(fault, "maxAttempts", json_integer(attempts));
    return true;
}

/* "5/s", "0.5/s burst 10 per sender". */
static bool
fill_throttle(json_t *fault, const char *value)
{
    double rate;
    long long burst = 0;
    char per[16] = "";
    int used = 0;
    if (sscanf(value, "%lf/s%n", &rate, &used) != 1 || used == 0)
        return complain("throttle", "say how many a second, such as 5/s or "
                                    "'0.5/s burst 10 per sender'");
    const char *rest = value + used;
    const char *at = strstr(rest, "burst ");
    if (at && sscanf(at, "burst %lld", &burst) == 1)
        json_object_set_new(fault, "burst", json_integer(burst));
    at = strstr(rest, "per ");
    if (at && sscanf(at, "per %15s", per) == 1)
        json_object_set_new(fault, "per", json_string(per));
    json_object_set_new(fault, "rate", json_real(rate));
    return true;
}

/* "451 4.7.1 later; 421; ok": one step after the other. */
static bool
fill_sequence(json_t *fault, const char *value)
{
    json_t *steps = json_array();
    for (const char *at = value; at; at = strchr(at, ';')) {
        at += strspn(at, "; ");
        size_t len = strcspn(at, ";");
        while (len > 0 && at[len - 1] == ' ')
            len--;
        json_array_append_new(steps, json_stringn(at, len));
    }
    json_object_set_new(fault, "steps", steps);
    return true;
}

static bool
fill_nothing(json_t *fault, const char *value)
{
    (void)fault;
    (void)value;
    return true;
}

static bool
fill_quarantine(json_t *fault, const char *value)
{
    return json_object_set_new(fault, "reason", json_string(value)) == 0;
}

static bool
fill_misdeliver(json_t *fault, const char *value)
{
    return json_object_set_new(fault, "to", json_string(value)) == 0;
}

/* "truncateBody=100", "dropHeader=DKIM-Signature", "addHeader=X-A: b". */
static bool
fill_mutate(json_t *fault, const char *value)
{
    struct cm_err err;
    int64_t n;
    char how[32];
    const char *equals = strchr(value, '=');
    if (!equals || (size_t)(equals - value) >= sizeof how)
        return complain("mutate", "say what, such as truncateBody=100");
    snprintf(how, sizeof how, "%.*s", (int)(equals - value), value);
    const char *what = equals + 1;
    if (strcmp(how, "addHeader") == 0) {
        const char *colon = strchr(what, ':');
        if (!colon)
            return complain("mutate", "say 'addHeader=Name: value'");
        char *name = cm_ctl_own(strndup(what, (size_t)(colon - what)));
        colon += 1 + strspn(colon + 1, " ");
        json_object_set_new(fault, how, json_pack("{s:s}", name, colon));
        free(name);
    } else if (strcmp(how, "dropHeader") == 0) {
        json_object_set_new(fault, how, json_string(what));
    } else {
        if (cm_quantity_count(what, 0, INT64_MAX, &n, &err) != CM_OK)
            return complain("mutate", err.msg);
        json_object_set_new(fault, how, json_integer(n));
    }
    return true;
}

/* "STARTTLS,SIZE" */
static bool
fill_hide(json_t *fault, const char *value)
{
    json_t *keywords = json_array();
    for (const char *at = value; *at; at += strspn(at, ", ")) {
        size_t len = strcspn(at, ", ");
        json_array_append_new(keywords, json_stringn(at, len));
        at += len;
    }
    return json_object_set_new(fault, "keywords", keywords) == 0;
}

static const struct {
    const char *kind; /* and name of the flag */
    bool (*fill)(json_t *fault, const char *value);
} faults[] = {
    {"error", fill_error},       {"latency", fill_latency},
    {"drop", fill_drop},         {"greylist", fill_greylist},
    {"blackhole", fill_nothing}, {"throttle", fill_throttle},
    {"sequence", fill_sequence}, {"quarantine", fill_quarantine},
    {"duplicate", fill_nothing}, {"misdeliver", fill_misdeliver},
    {"mutate", fill_mutate},     {"hide", fill_hide},
};

static bool
set_fault(json_t *rule, const struct cm_ctl_args *args)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const char *value = cm_ctl_arg(args, faults[i].kind, 0);
        if (!value)
            continue;
        json_t *fault = json_pack("{s:s}", "kind", faults[i].kind);
        json_object_set_new(rule, "fault", fault);
        if (!faults[i].fill(fault, value))
            return false;
        n++;
    }
    if (n != 1)
        cm_ctl_fail(0, "a rule has one fault: --error, --latency, --drop ... "
                       "(--help), or --file for a whole document");
    return n == 1;
}

/* --- conditions and bounds --- */

/* Flags whose value is the member as it stands. */
static const struct {
    const char *flag, *member;
} texts[] = {
    {"id", "id"},
    {"stage", "stage"},
    {"inbox", "inbox"},
    {"domain", "domain"},
    {"sender", "sender"},
    {"client", "client"},
    {"helo", "helo"},
    {"user", "user"},
    {"mechanism", "mechanism"},
    {"until", "expiresAt"},
    {"description", "description"},
};

static bool
set_headers(json_t *rule, const struct cm_ctl_args *args)
{
    const char *value;
    json_t *headers = json_object();
    for (size_t i = 0; (value = cm_ctl_arg(args, "header", i)); i++) {
        const char *colon = strchr(value, ':');
        if (!colon) {
            json_decref(headers);
            return complain("header", "say 'Name: pattern'");
        }
        char *name = cm_ctl_own(strndup(value, (size_t)(colon - value)));
        colon += 1 + strspn(colon + 1, " ");
        json_object_set_new(headers, name, json_string(colon));
        free(name);
    }
    if (json_object_size(headers) > 0)
        json_object_set(rule, "header", headers);
    json_decref(headers);
    return true;
}

static bool
set_range(json_t *rule, const struct cm_ctl_args *args, const char *flag)
{
    struct cm_err err;
    int64_t gte = -1, lte = INT64_MAX;
    const char *value = cm_ctl_arg(args, flag, 0);
    if (!value)
        return true;
    if (cm_quantity_bounds(value, &gte, &lte, &err) != CM_OK)
        return complain(flag, err.msg);
    json_t *range = json_object();
    if (gte >= 0)
        json_object_set_new(range, "gte", json_integer(gte));
    if (lte < INT64_MAX)
        json_object_set_new(range, "lte", json_integer(lte));
    json_object_set_new(rule, flag, range);
    return true;
}

static bool
set_number(json_t *rule, const struct cm_ctl_args *args, const char *flag,
           const char *member)
{
    struct cm_err err;
    int64_t n;
    const char *value = cm_ctl_arg(args, flag, 0);
    if (!value)
        return true;
    if (cm_quantity_count(value, 0, INT64_MAX, &n, &err) != CM_OK)
        return complain(flag, err.msg);
    json_object_set_new(rule, member, json_integer(n));
    return true;
}

static bool
set_bounds(json_t *rule, const struct cm_ctl_args *args)
{
    struct cm_err err;
    double share;
    int64_t ms;
    char time[32];
    const char *probability = cm_ctl_arg(args, "probability", 0);
    const char *lasts = cm_ctl_arg(args, "for", 0);
    if (probability) {
        if (cm_quantity_share(probability, &share, &err) != CM_OK)
            return complain("probability", err.msg);
        json_object_set_new(rule, "probability", json_real(share));
    }
    if (lasts) {
        if (cm_quantity_duration(lasts, &ms, &err) != CM_OK)
            return complain("for", err.msg);
        cm_time_print(cm_clock_wall_ms() + ms, time, sizeof time);
        json_object_set_new(rule, "expiresAt", json_string(time));
    }
    if (cm_ctl_arg(args, "shadow", 0))
        json_object_set_new(rule, "mode", json_string("shadow"));
    if (cm_ctl_arg(args, "disabled", 0))
        json_object_set_new(rule, "enabled", json_false());
    return set_number(rule, args, "seed", "seed") &&
           set_number(rule, args, "max-hits", "maxHits");
}

/* The rule that the flags ask for; NULL after a message. */
static json_t *
make_rule(const struct cm_ctl_args *args)
{
    const char *file = cm_ctl_arg(args, "file", 0);
    if (file)
        return cm_ctl_read_document(file);
    json_t *rule = cm_ctl_own(json_object());
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = cm_ctl_arg(args, texts[i].flag, 0);
        if (value)
            json_object_set_new(rule, texts[i].member, json_string(value));
    }
    if (set_headers(rule, args) && set_range(rule, args, "size") &&
        set_range(rule, args, "attempt") && set_bounds(rule, args) &&
        set_fault(rule, args))
        return rule;
    json_decref(rule);
    return NULL;
}

/* --- the commands --- */

/* "inbox=a@x client=192.0.2.0/24": the conditions as one cell. */
static void
show_match(struct cm_show_table *table, const json_t *rule)
{
    static const char *const members[] = {
        "inbox", "domain", "sender",    "client", "helo",
        "user",  "header", "mechanism", "size",   "attempt"};
    char text[400] = "", one[200];
    size_t len = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (!json_object_get(rule, members[i]) || len >= sizeof text)
            continue;
        int n = snprintf(text + len, sizeof text - len, "%s%s=%s",
                         len > 0 ? " " : "", members[i],
                         cm_show_text(rule, members[i], one, sizeof one));
        len += (size_t)n;
    }
    cm_show_cell(table, "%s", len > 0 ? text : "everybody");
}

/* What a document leaves out is shown as what it then means. */
static void
show_member(struct cm_show_table *table, const json_t *rule, const char *member,
            const char *otherwise)
{
    char text[256];
    if (json_object_get(rule, member))
        cm_show_text(rule, member, text, sizeof text);
    else
        snprintf(text, sizeof text, "%s", otherwise);
    cm_show_cell(table, "%s", text);
}

static void
show_rule(struct cm_show_table *table, const json_t *entry)
{
    char text[256];
    const json_t *rule = json_object_get(entry, "rule");
    const json_t *fault = json_object_get(rule, "fault");
    const json_t *enabled = json_object_get(rule, "enabled");
    const char *mode = json_string_value(json_object_get(rule, "mode"));
    cm_show_cell(table, "%s", cm_show_text(entry, "id", text, sizeof text));
    cm_show_cell(table, "%s",
                 json_is_false(enabled) ? "off"
                 : mode                 ? mode
                                        : "live");
    show_member(table, rule, "stage", "(usual)");
    cm_show_cell(table, "%s", cm_show_text(fault, "kind", text, sizeof text));
    show_member(table, rule, "probability", "1");
    show_match(table, rule);
    cm_show_cell(table, "%s", cm_show_text(entry, "hits", text, sizeof text));
    show_member(table, rule, "expiresAt", "-");
}

static void
show_rules(const json_t *page)
{
    static const char *const head[] = {"RULE", "MODE", "STAGE", "FAULT", "PROB",
                                       "WHOM", "HITS", "UNTIL", NULL};
    struct cm_show_table *table = cm_show_table_new(head);
    size_t i;
    json_t *rule;
    json_array_foreach(json_object_get(page, "rules"), i, rule)
    {
        show_rule(table, rule);
    }
    cm_show_end(&table, "No rules.");
}

static int
rule_list(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    bool all = cm_ctl_arg(args, "all", 0) != NULL;
    char *after = NULL;
    do {
        struct cm_ctl_answer answer;
        char form[96];
        snprintf(form, sizeof form, "%s?limit=%d%s%s", rules_path,
                 CM_CTL_RULE_PAGE, all ? "&face=all" : "",
                 after ? "&after=%s" : "");
        char *path = cm_ctl_path(form, after, NULL);
        int code = cm_ctl_do(ctl, "GET", path, NULL, &answer);
        free(path);
        free(after);
        if (code != 0)
            return code;
        if (ctl->json)
            cm_show_json(answer.json);
        else
            show_rules(answer.json);
        const char *next =
            json_string_value(json_object_get(answer.json, "next"));
        after = next ? cm_ctl_own(strdup(next)) : NULL;
        cm_ctl_answer_fini(&answer);
    } while (after);
    return CM_CTL_OK;
}

/* Takes body; the rule in the answer is shown. */
static int
change(struct cm_ctl *ctl, const char *method, char *path, json_t *body,
       const char *done)
{
    struct cm_ctl_answer answer;
    int code = cm_ctl_do(ctl, method, path, body, &answer);
    json_decref(body);
    free(path);
    if (code != 0)
        return code;
    char id[80];
    if (ctl->json && answer.json)
        cm_show_json(answer.json);
    else if (json_object_get(answer.json, "id"))
        printf("%s %s\n", done, cm_show_text(answer.json, "id", id, sizeof id));
    else
        puts(done);
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

static int
rule_add(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    const char *before = cm_ctl_arg(args, "before", 0);
    const char *after = cm_ctl_arg(args, "after", 0);
    json_t *rule = make_rule(args);
    if (!rule)
        return CM_CTL_USAGE;
    return change(ctl, "POST",
                  cm_ctl_path(before  ? "/api/v1/rules?before=%s"
                              : after ? "/api/v1/rules?after=%s"
                                      : "/api/v1/rules",
                              before ? before : after, NULL),
                  rule, "added");
}

static int
rule_get(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_ctl_answer answer;
    char *path = cm_ctl_path("/api/v1/rules/%s", args->word[0], NULL);
    int code = cm_ctl_do(ctl, "GET", path, NULL, &answer);
    free(path);
    if (code != 0)
        return code;
    cm_show_json(answer.json);
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

static int
rule_rm(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    int code = 0;
    for (size_t i = 0; i < args->nwords && code == 0; i++)
        code = change(ctl, "DELETE",
                      cm_ctl_path("/api/v1/rules/%s", args->word[i], NULL),
                      NULL, "removed");
    return code;
}

static int
rule_move(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    const char *before = cm_ctl_arg(args, "before", 0);
    const char *after = cm_ctl_arg(args, "after", 0);
    if (!before == !after)
        return cm_ctl_fail(CM_CTL_USAGE,
                           "where to? --before or --after a rule");
    return change(ctl, "POST",
                  cm_ctl_path("/api/v1/rules/%s/move", args->word[0], NULL),
                  json_pack("{s:s}", before ? "before" : "after",
                            before ? before : after),
                  "moved");
}

static int
rule_enable(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    return change(ctl, "POST",
                  cm_ctl_path("/api/v1/rules/%s/enable", args->word[0], NULL),
                  json_object(), "enabled");
}

static int
rule_disable(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    return change(ctl, "POST",
                  cm_ctl_path("/api/v1/rules/%s/disable", args->word[0], NULL),
                  json_object(), "disabled");
}

static const struct cm_ctl_flag add_flags[] = {
    {"error", "REPLY", "'451 4.7.1 later', 550, temporary or permanent"},
    {"latency", "HOW", "1s..5s; 'median 2s sigma 0.5'; 'justUnder data'"},
    {"drop", "HOW", "rst, fin, 'rst ackLost'"},
    {"greylist", "N", "refuse with 451 until attempt N"},
    {"blackhole", NULL, "accept and deliver nothing"},
    {"throttle", "RATE", "5/s, '0.5/s burst 10 per sender'"},
    {"sequence", "STEPS", "'451 4.7.1 later; 421; ok', one for each attempt"},
    {"quarantine", "REASON", "into the hold queue"},
    {"duplicate", NULL, "deliver twice"},
    {"misdeliver", "ADDRESS", "deliver to another"},
    {"mutate", "HOW",
     "truncateBody=N, flipBits=N, dropHeader=NAME, "
     "'addHeader=NAME: VALUE'"},
    {"hide", "KEYWORDS", "EHLO keywords: STARTTLS,SIZE"},
    {"stage", "STAGE", "where it acts: rcpt, message, auth, ..."},
    {"inbox", "ADDRESS", "recipient, or a pattern such as *@example.com"},
    {"domain", "DOMAIN", "of the recipient"},
    {"sender", "ADDRESS", "or a pattern; <> is the null sender"},
    {"client", "ADDRESS", "or a block: 192.0.2.0/24"},
    {"helo", "PATTERN", "what the client says after EHLO"},
    {"user", "LOGIN", "that it authenticates as"},
    {"mechanism", "NAME", "of AUTH"},
    {"header", "'NAME: PATTERN'", "may be given several times"},
    {"size", "RANGE", "bytes: 1000.., ..5000"},
    {"attempt", "RANGE", "1..2: the first two attempts of a mail"},
    {"probability", "PROB", "30% or 0.3"},
    {"seed", "N", "the same mails meet the same fate"},
    {"for", "TIME", "gone after 15m, 2h, ..."},
    {"until", "WHEN", "gone at 2030-01-01T12:00:00Z"},
    {"max-hits", "N", "gone after it has hit N times"},
    {"shadow", NULL, "record what would happen, hurt nobody"},
    {"disabled", NULL, "add it switched off"},
    {"id", "ID", "its name; one is made otherwise"},
    {"description", "TEXT", "kept and shown, no effect"},
    {"before", "ID", "put it before this rule instead of last"},
    {"after", "ID", "put it behind this rule"},
    {"file", "FILE", "the whole rule as JSON (- reads it from a pipe)"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag move_flags[] = {
    {"before", "ID", "put it before this rule"},
    {"after", "ID", "put it behind this rule"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag list_flags[] = {
    {"all", NULL, "those of the other APIs too, in the order of evaluation"},
    {NULL, NULL, NULL},
};

const struct cm_ctl_command cm_ctl_rule_commands[] = {
    {"rule list", "", 0, 0, "List the rules, in order",
     "  chaosctl rule list --all\n", list_flags, rule_list},
    {"rule get", "ID", 1, 1, "Show one rule, as JSON",
     "  chaosctl rule get r7\n", NULL, rule_get},
    {"rule add", "", 0, 0, "Add a rule",
     "  chaosctl rule add --error '451 4.7.1 later' --inbox '*@example.com' "
     "--attempt ..2\n"
     "  chaosctl rule add --throttle '2/s burst 5 per client' --for 1h\n"
     "  chaosctl rule add --error '535 5.7.8 no' --stage auth --mechanism "
     "PLAIN\n",
     add_flags, rule_add},
    {"rule rm", "ID..", 1, CM_CTL_WORDS_MAX, "Remove rules",
     "  chaosctl rule rm r7 r8\n", NULL, rule_rm},
    {"rule move", "ID", 1, 1, "Change a rule's place in the order",
     "  chaosctl rule move r7 --before r1\n", move_flags, rule_move},
    {"rule enable", "ID", 1, 1, "Switch a rule on",
     "  chaosctl rule enable r7\n", NULL, rule_enable},
    {"rule disable", "ID", 1, 1, "Switch a rule off; it stays where it is",
     "  chaosctl rule disable r7\n", NULL, rule_disable},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
