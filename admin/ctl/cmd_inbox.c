/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inboxes: a configuration by flags in a person's units. Each flag fills one
 * part of the document that the API takes, so what can be said here and there
 * is the same.
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

#define CM_INBOX_PAGE 1000

/* --- the document --- */

/* "451:30%" parted at its last colon: the text before it into head, and the
 * probability as that member of part. */
static bool
take_share(json_t *part, const char *member, const char *value, char head[64])
{
    struct cm_err err;
    double share;
    const char *colon = strrchr(value, ':');
    size_t len = colon ? (size_t)(colon - value) : strlen(value);
    snprintf(head, 64, "%.*s", (int)len, value);
    if (!colon)
        return true;
    if (cm_quantity_share(colon + 1, &share, &err) != CM_OK) {
        cm_ctl_fail(0, "%s", err.msg);
        return false;
    }
    json_object_set_new(part, member, json_real(share));
    return true;
}

static bool
fill_greylist(json_t *part, const char *value)
{
    struct cm_err err;
    int64_t attempts, window_ms;
    char head[64];
    const char *colon = strchr(value, ':');
    snprintf(head, sizeof head, "%.*s",
             colon ? (int)(colon - value) : (int)strlen(value), value);
    if (cm_quantity_count(head, 1, 1000000, &attempts, &err) != CM_OK ||
        (colon && cm_quantity_duration(colon + 1, &window_ms, &err) != CM_OK)) {
        cm_ctl_fail(0, "--greylist: %s", err.msg);
        return false;
    }
    json_object_set_new(part, "maxAttempts", json_integer(attempts));
    if (colon)
        json_object_set_new(part, "retryWindowMs", json_integer(window_ms));
    return true;
}

static bool
fill_latency(json_t *part, const char *value)
{
    struct cm_err err;
    int64_t min_ms, max_ms;
    char span[64];
    if (!take_share(part, "probability", value, span))
        return false;
    if (cm_quantity_span(span, &min_ms, &max_ms, &err) != CM_OK) {
        cm_ctl_fail(0, "--latency: %s", err.msg);
        return false;
    }
    json_object_set_new(part, "minDelayMs", json_integer(min_ms));
    json_object_set_new(part, "maxDelayMs", json_integer(max_ms));
    return true;
}

static bool
fill_error(json_t *part, const char *value)
{
    char which[64];
    int64_t code;
    if (!take_share(part, "errorRate", value, which))
        return false;
    if (!json_object_get(part, "errorRate"))
        json_object_set_new(part, "errorRate", json_integer(1));
    if (strcmp(which, "temporary") == 0 || strcmp(which, "permanent") == 0) {
        json_object_set_new(part, "errorTypes", json_pack("[s]", which));
        return true;
    }
    if (cm_quantity_count(which, 400, 599, &code, NULL) != CM_OK) {
        cm_ctl_fail(0,
                    "--error: '%s' is neither a code from 400 to 599 nor "
                    "temporary or permanent",
                    which);
        return false;
    }
    json_object_set_new(part, "code", json_integer(code));
    return true;
}

static bool
fill_drop(json_t *part, const char *value)
{
    char how[64];
    if (!take_share(part, "probability", value, how))
        return false;
    if (strcmp(how, "fin") != 0 && strcmp(how, "rst") != 0) {
        cm_ctl_fail(0, "--drop: '%s' is neither fin nor rst", how);
        return false;
    }
    json_object_set_new(part, "graceful", json_boolean(how[0] == 'f'));
    return true;
}

static bool
fill_blackhole(json_t *part, const char *value)
{
    (void)part;
    (void)value;
    return true;
}

static const struct {
    const char *flag, *member;
    bool (*fill)(json_t *part, const char *value);
} parts[] = {
    {"latency", "latency", fill_latency},
    {"drop", "connectionDrop", fill_drop},
    {"error", "randomError", fill_error},
    {"greylist", "greylist", fill_greylist},
    {"blackhole", "blackhole", fill_blackhole},
};

static bool
fill_parts(json_t *doc, const struct cm_ctl_args *args)
{
    bool any = false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *value = cm_ctl_arg(args, parts[i].flag, 0);
        if (!value)
            continue;
        json_t *part = json_pack("{s:b}", "enabled", 1);
        json_object_set_new(doc, parts[i].member, part);
        if (!parts[i].fill(part, value))
            return false;
        any = true;
    }
    const char *text = cm_ctl_arg(args, "error-text", 0);
    json_t *error = json_object_get(doc, "randomError");
    if (text && !error) {
        cm_ctl_fail(0, "--error-text goes with --error CODE");
        return false;
    }
    if (text)
        json_object_set_new(error, "text", json_string(text));
    if (!any)
        cm_ctl_fail(0, "nothing to set: give --greylist, --latency, --error, "
                       "--drop, --blackhole or --file (and `inbox clear' to "
                       "take chaos away)");
    return any;
}

static bool
fill_bounds(json_t *doc, const struct cm_ctl_args *args)
{
    struct cm_err err;
    int64_t ms;
    char time[32];
    const char *lasts = cm_ctl_arg(args, "for", 0);
    const char *until = cm_ctl_arg(args, "until", 0);
    const char *seed = cm_ctl_arg(args, "seed", 0);
    const char *description = cm_ctl_arg(args, "description", 0);
    if (lasts && until) {
        cm_ctl_fail(0, "--for and --until exclude each other");
        return false;
    }
    if ((lasts && cm_quantity_duration(lasts, &ms, &err) != CM_OK) ||
        (seed && cm_quantity_count(seed, 0, INT64_MAX, &ms, &err) != CM_OK)) {
        cm_ctl_fail(0, "%s", err.msg);
        return false;
    }
    if (seed)
        json_object_set_new(doc, "seed", json_integer(ms));
    if (lasts && cm_quantity_duration(lasts, &ms, &err) == CM_OK) {
        cm_time_print(cm_clock_wall_ms() + ms, time, sizeof time);
        until = time;
    }
    if (until)
        json_object_set_new(doc, "expiresAt", json_string(until));
    if (description)
        json_object_set_new(doc, "description", json_string(description));
    return true;
}

/* The document that the flags ask for; NULL after a message. */
static json_t *
make_document(const struct cm_ctl_args *args)
{
    const char *file = cm_ctl_arg(args, "file", 0);
    if (file && args->ngiven > 1) {
        cm_ctl_fail(0, "--file gives the whole document, so no other flag");
        return NULL;
    }
    if (file)
        return cm_ctl_read_document(file);
    json_t *doc = cm_ctl_own(json_pack("{s:b}", "enabled", 1));
    if (!fill_parts(doc, args) || !fill_bounds(doc, args)) {
        json_decref(doc);
        return NULL;
    }
    return doc;
}

/* --- showing one --- */

static void
show_part(const json_t *config, const char *member)
{
    const json_t *part = json_object_get(config, member), *value;
    const char *name, *comma = "";
    if (!part)
        return;
    printf("  %-15s", member);
    if (!json_is_true(json_object_get(part, "enabled"))) {
        puts("off");
        return;
    }
    json_object_foreach((json_t *)part, name, value)
    {
        char text[512];
        if (strcmp(name, "enabled") == 0)
            continue;
        printf("%s%s %s", comma, name,
               cm_show_text(part, name, text, sizeof text));
        comma = ", ";
    }
    puts(*comma ? "" : "on");
}

static void
show_config(const char *address, const json_t *config)
{
    static const char *const members[] = {
        "connectionDrop", "greylist", "randomError", "blackhole", "latency"};
    char text[512];
    bool enabled = json_is_true(json_object_get(config, "enabled"));
    printf("%s: %s", address, enabled ? "on" : "quiet");
    if (json_object_get(config, "expiresAt"))
        printf(", until %s",
               cm_show_text(config, "expiresAt", text, sizeof text));
    putchar('\n');
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        show_part(config, members[i]);
    if (json_object_get(config, "seed"))
        printf("  %-15s%s\n", "seed",
               cm_show_text(config, "seed", text, sizeof text));
    if (json_object_get(config, "description"))
        printf("  %-15s%s\n", "description",
               cm_show_text(config, "description", text, sizeof text));
}

static void
show(const struct cm_ctl *ctl, const char *address,
     const struct cm_ctl_answer *answer)
{
    if (ctl->json)
        cm_show_json(answer->json);
    else
        show_config(address, answer->json);
}

/* --- the commands --- */

static const char chaos_path[] = "/api/inboxes/%s/chaos";

static int
inbox_get(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_ctl_answer answer;
    char *path = cm_ctl_path(chaos_path, args->word[0], NULL);
    int code = cm_ctl_do(ctl, "GET", path, NULL, &answer);
    free(path);
    if (code != 0)
        return code;
    show(ctl, args->word[0], &answer);
    bool enabled = json_is_true(json_object_get(answer.json, "enabled"));
    cm_ctl_answer_fini(&answer);
    return enabled ? CM_CTL_OK : CM_CTL_NO;
}

/* One request for each address; the first that fails ends it. */
static int
for_each(struct cm_ctl *ctl, const struct cm_ctl_args *args, const char *method,
         const json_t *doc)
{
    int code = 0;
    for (size_t i = 0; i < args->nwords && code == 0; i++) {
        struct cm_ctl_answer answer;
        char *path = cm_ctl_path(chaos_path, args->word[i], NULL);
        code = cm_ctl_do(ctl, method, path, doc, &answer);
        free(path);
        if (code == 0) {
            if (answer.json)
                show(ctl, args->word[i], &answer);
            cm_ctl_answer_fini(&answer);
        } else if (args->nwords > 1) {
            cm_ctl_fail(0, "%s: not done, nor those after it", args->word[i]);
        }
    }
    return code;
}

static int
inbox_set(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    json_t *doc = make_document(args);
    if (!doc)
        return CM_CTL_USAGE;
    int code = for_each(ctl, args, "POST", doc);
    json_decref(doc);
    return code;
}

static int
inbox_clear(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    return for_each(ctl, args, "DELETE", NULL);
}

/* One page as a table; the next page's start, the caller's to free, or NULL. */
static char *
show_page(const json_t *page, size_t left)
{
    static const char *const head[] = {"INBOX", "CHAOS", "EXISTS UNTIL", NULL};
    struct cm_show_table *table = cm_show_table_new(head);
    size_t i;
    json_t *entry;
    char text[512];
    json_array_foreach(json_object_get(page, "inboxes"), i, entry)
    {
        if (i >= left)
            break;
        cm_show_cell(table, "%s",
                     cm_show_text(entry, "emailAddress", text, sizeof text));
        cm_show_cell(table, "%s",
                     json_is_true(json_object_get(entry, "chaos")) ? "yes"
                                                                   : "no");
        cm_show_cell(table, "%s",
                     cm_show_text(entry, "expiresAt", text, sizeof text));
    }
    cm_show_end(&table, "No inboxes.");
    const char *next = json_string_value(json_object_get(page, "next"));
    return next ? cm_ctl_own(strdup(next)) : NULL;
}

static int
inbox_list(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_err err;
    int64_t left = INT64_MAX;
    const char *limit = cm_ctl_arg(args, "limit", 0);
    const char *prefix = args->nwords > 0 ? args->word[0] : "";
    char *after = NULL;
    int code = 0;
    if (limit && cm_quantity_count(limit, 1, INT64_MAX, &left, &err) != CM_OK)
        return cm_ctl_fail(CM_CTL_USAGE, "--limit: %s", err.msg);
    do {
        struct cm_ctl_answer answer;
        char form[96];
        int64_t n = left < CM_INBOX_PAGE ? left : CM_INBOX_PAGE;
        snprintf(form, sizeof form, "/api/inboxes?limit=%lld&prefix=%%s%s",
                 (long long)n, after ? "&after=%s" : "");
        char *path = cm_ctl_path(form, prefix, after);
        code = cm_ctl_do(ctl, "GET", path, NULL, &answer);
        free(path);
        free(after);
        after = NULL;
        if (code != 0)
            return code;
        if (ctl->json)
            cm_show_json(answer.json);
        else
            after = show_page(answer.json, (size_t)n);
        cm_ctl_answer_fini(&answer);
        left -= n;
    } while (after && left > 0);
    if (after && limit)
        printf("... and more\n");
    free(after);
    return code;
}

static const struct cm_ctl_flag set_flags[] = {
    {"greylist", "N[:WINDOW]",
     "refuse with 451 until attempt N (within WINDOW, 5m)"},
    {"latency", "SPAN[:PROB]", "the final reply comes late: 1s..5s, 800ms:50%"},
    {"error", "WHICH[:PROB]",
     "refuse with a code (451), or one drawn of temporary or permanent"},
    {"error-text", "TEXT", "what the reply says, with --error CODE"},
    {"drop", "HOW[:PROB]", "cut the connection after the message: fin or rst"},
    {"blackhole", NULL, "accept and deliver nothing"},
    {"for", "TIME", "quiet again after 15m, 2h, ..."},
    {"until", "WHEN", "quiet again at 2030-01-01T12:00:00Z"},
    {"seed", "N", "the same mails meet the same fate"},
    {"description", "TEXT", "kept and shown, no effect"},
    {"file", "FILE",
     "the whole configuration as JSON (- reads it from a pipe)"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag list_flags[] = {
    {"limit", "N", "show the first N"},
    {NULL, NULL, NULL},
};

const struct cm_ctl_command cm_ctl_inbox_commands[] = {
    {"inbox get", "ADDRESS", 1, 1,
     "Show an inbox's chaos (exit status 1: it is quiet)",
     "  chaosctl inbox get a@example.com --json\n", NULL, inbox_get},
    {"inbox set", "ADDRESS..", 1, CM_CTL_WORDS_MAX,
     "Set an inbox's chaos, whole: what is not given is off",
     "  chaosctl inbox set a@example.com --greylist 3 --for 15m\n"
     "  chaosctl inbox set a@example.com --latency 1s..5s --error 451:30%\n"
     "  chaosctl inbox set b@example.com --drop rst --description 'lost'\n"
     "  chaosctl inbox set c@example.com --file chaos.json\n",
     set_flags, inbox_set},
    {"inbox clear", "ADDRESS..", 1, CM_CTL_WORDS_MAX, "Back to quiet",
     "  chaosctl inbox clear a@example.com b@example.com\n", NULL, inbox_clear},
    {"inbox list", "[PREFIX]", 0, 1, "List the inboxes, in order",
     "  chaosctl inbox list load- --limit 20\n", list_flags, inbox_list},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
