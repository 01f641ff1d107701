/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has happened, and what is happening. Following is server-sent events,
 * taken up again where they broke off: a person who watches a restart of the
 * daemon wants to go on watching.
 */
#include "admin/ctl/command.h"
#include "admin/ctl/quantity.h"
#include "admin/ctl/show.h"
#include "milter/buf.h"
#include "milter/model/json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CM_CTL_EVENTS      20
#define CM_CTL_PATH_BYTES  4096
#define CM_CTL_RECONNECT_S 1

static const char *const filters[] = {"inbox", "rule", "stage", "kind",
                                      "outcome"};

/* "/api/v1/events" and what of it is asked for; the caller's to free. */
static char *
events_path(const struct cm_ctl_args *args, const char *limit)
{
    struct cm_buf path;
    char sign = '?';
    cm_buf_init(&path, CM_CTL_PATH_BYTES);
    cm_buf_puts(&path, "/api/v1/events");
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        const char *value = cm_ctl_arg(args, filters[i], 0);
        if (!value)
            continue;
        char *escaped = cm_ctl_own(cm_ctl_escape(value));
        cm_buf_printf(&path, "%c%s=%s", sign, filters[i], escaped);
        free(escaped);
        sign = '&';
    }
    if (limit)
        cm_buf_printf(&path, "%climit=%s", sign, limit);
    return cm_ctl_own(cm_buf_take(&path, NULL));
}

static void
show_event(const json_t *event)
{
    static const char *const members[] = {"time", "stage", "outcome", "rule"};
    char text[512];
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        printf("%s ", cm_show_text(event, members[i], text, sizeof text));
    const json_t *fault = json_object_get(event, "fault");
    const json_t *delay = json_object_get(event, "delay");
    printf("%s", cm_show_text(fault, "kind", text, sizeof text));
    printf(" %s", cm_show_text(event, "sender", text, sizeof text));
    printf(" -> %s", cm_show_text(event, "recipient", text, sizeof text));
    if (json_is_string(json_object_get(event, "reply")))
        printf(" \"%s\"", cm_show_text(event, "reply", text, sizeof text));
    if (json_is_object(delay))
        printf(" %s ms", cm_show_text(delay, "measuredMs", text, sizeof text));
    if (json_is_string(json_object_get(event, "detail")))
        printf(" (%s)", cm_show_text(event, "detail", text, sizeof text));
    putchar('\n');
}

/* --- following --- */

struct follower {
    const struct cm_ctl *ctl;
    char last_id[64];
};

static bool
on_line(void *arg, const char *line)
{
    struct follower *follower = arg;
    if (strncmp(line, "id:", 3) == 0) {
        snprintf(follower->last_id, sizeof follower->last_id, "%s",
                 line + 3 + strspn(line + 3, " "));
    } else if (strncmp(line, "event:", 6) == 0) {
        fprintf(stderr, "chaosctl: %s\n", line + 6 + strspn(line + 6, " "));
    } else if (strncmp(line, "data:", 5) == 0) {
        const char *text = line + 5 + strspn(line + 5, " ");
        json_t *event = NULL;
        if (follower->ctl->json)
            puts(text);
        else if (cm_json_parse(&event, text, strlen(text), NULL) == CM_OK &&
                 json_object_get(event, "stage"))
            show_event(event);
        json_decref(event);
        fflush(stdout);
    }
    return !ferror(stdout);
}

/* Until the reader of our output leaves, or the daemon refuses. */
static int
follow(struct cm_ctl *ctl, const char *path)
{
    struct follower follower = {.ctl = ctl};
    for (;;) {
        struct cm_err err = {CM_OK, "the daemon ended the stream"};
        long status = 0;
        enum cm_status ended = cm_ctl_stream(
            ctl->client, path, follower.last_id[0] ? follower.last_id : NULL,
            on_line, &follower, &status, &err);
        if (ferror(stdout))
            return CM_CTL_OK;
        if (status >= 400 && status < 500) /* asked once more, for the words */
        {
            struct cm_ctl_answer answer;
            int code = cm_ctl_do(ctl, "GET", path, NULL, &answer);
            if (code == 0)
                cm_ctl_answer_fini(&answer);
            return code ? code : CM_CTL_INTERNAL;
        }
        if (ended == CM_ENOMEM)
            return cm_ctl_fail(CM_CTL_INTERNAL, "%s", err.msg);
        if (!follower.last_id[0] && status == 0)
            return cm_ctl_fail(CM_CTL_UNAVAILABLE, "%s", err.msg);
        cm_ctl_fail(0, "%s; trying again", err.msg);
        sleep(CM_CTL_RECONNECT_S);
    }
}

static int
events(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_ctl_answer answer;
    struct cm_err err;
    int64_t n = CM_CTL_EVENTS;
    char limit[24];
    const char *wanted = cm_ctl_arg(args, "limit", 0);
    if (wanted && cm_quantity_count(wanted, 1, 1000, &n, &err) != CM_OK)
        return cm_ctl_fail(CM_CTL_USAGE, "--limit: %s", err.msg);
    bool follows = cm_ctl_arg(args, "follow", 0) != NULL;
    snprintf(limit, sizeof limit, "%lld", (long long)n);
    char *path = events_path(args, follows ? NULL : limit);
    int code = follows ? follow(ctl, path)
                       : cm_ctl_do(ctl, "GET", path, NULL, &answer);
    free(path);
    if (follows || code != 0)
        return code;
    const json_t *list = json_object_get(answer.json, "events");
    if (ctl->json)
        cm_show_json(answer.json);
    for (size_t i = json_array_size(list); i > 0 && !ctl->json; i--)
        show_event(json_array_get(list, i - 1)); /* the newest last */
    if (json_array_size(list) == 0 && !ctl->json)
        puts("No events.");
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

static const struct cm_ctl_flag event_flags[] = {
    {"follow", NULL, "show them as they happen"},
    {"limit", "N", "the last N, 20 by default"},
    {"inbox", "ADDRESS", "of this recipient"},
    {"rule", "NAME", "of this rule, e.g. r7 or inbox:greylist"},
    {"stage", "STAGES", "at these stages: rcpt,message"},
    {"kind", "KINDS", "of these faults: error,drop"},
    {"outcome", "OUTCOMES", "applied, unavailable, shadow, shed"},
    {NULL, NULL, NULL},
};

const struct cm_ctl_command cm_ctl_event_commands[] = {
    {"events", "", 0, 0, "Show which faults met which mails",
     "  chaosctl events --inbox a@example.com --limit 5\n"
     "  chaosctl events --follow --kind error,greylist\n",
     event_flags, events},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
