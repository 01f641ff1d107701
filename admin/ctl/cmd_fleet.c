/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What concerns everything at once: how the filters are, stopping all chaos and
 * letting it go on, and what is happening.
 */
#include "admin/ctl/command.h"
#include "admin/ctl/show.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- status --- */

static void
show_hosts(const json_t *status)
{
    static const char *const head[] = {"FILTER", "VERSION", "ALIVE", "ARMED",
                                       "LAG",    "HELD",    NULL};
    struct cm_show_table *table = cm_show_table_new(head);
    size_t i;
    json_t *host;
    json_array_foreach(json_object_get(status, "hosts"), i, host)
    {
        static const char *const members[] = {"host",  "version", "alive",
                                              "armed", "lag",     "held"};
        for (size_t n = 0; n < sizeof members / sizeof *members; n++) {
            char text[256];
            cm_show_cell(table, "%s",
                         cm_show_text(host, members[n], text, sizeof text));
        }
    }
    cm_show_end(&table, "No filter has reported.");
}

/* "alarm: text (host)" for each; how many. */
static size_t
show_notes(const json_t *status, const char *list, const char *word,
           const char *what)
{
    size_t i;
    json_t *note;
    char text[512], host[256];
    json_array_foreach(json_object_get(status, list), i, note)
    {
        printf("%s: %s", word, cm_show_text(note, what, text, sizeof text));
        if (strcmp(what, "fault") == 0)
            printf(": %s", cm_show_text(note, "reason", text, sizeof text));
        if (json_object_get(note, "host"))
            printf(" (%s)", cm_show_text(note, "host", host, sizeof host));
        putchar('\n');
    }
    return json_array_size(json_object_get(status, list));
}

static void
show_state(const json_t *status)
{
    char text[256];
    const json_t *halt = json_object_get(status, "halt");
    printf(
        "chaosadmin %s, %s", cm_show_text(status, "version", text, sizeof text),
        json_is_true(json_object_get(status, "armed")) ? "armed" : "not armed");
    if (json_is_true(json_object_get(halt, "halted")))
        printf(", HALTED: nothing is hurt until `chaosctl resume'");
    printf(", change %s\n", cm_show_text(status, "seq", text, sizeof text));
}

static int
status(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_ctl_answer answer;
    (void)args;
    int code = cm_ctl_do(ctl, "GET", "/api/v1/status", NULL, &answer);
    if (code != 0)
        return code;
    size_t alarms = json_array_size(json_object_get(answer.json, "alarms"));
    if (ctl->json) {
        cm_show_json(answer.json);
    } else {
        show_state(answer.json);
        show_hosts(answer.json);
        show_notes(answer.json, "alarms", "alarm", "text");
        show_notes(answer.json, "unavailable", "not available", "fault");
    }
    bool halted = json_is_true(
        json_object_get(json_object_get(answer.json, "halt"), "halted"));
    cm_ctl_answer_fini(&answer);
    return alarms == 0 && !halted ? CM_CTL_OK : CM_CTL_NO;
}

/* --- calls whose answer is shown as it is --- */

/* Takes body. */
static int
tell(struct cm_ctl *ctl, const char *method, const char *path, json_t *body,
     const char *done)
{
    struct cm_ctl_answer answer;
    int code = cm_ctl_do(ctl, method, path, body, &answer);
    json_decref(body);
    if (code != 0)
        return code;
    if (answer.json && (ctl->json || !done))
        cm_show_json(answer.json);
    else if (done)
        puts(done);
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

static int
halt(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    const char *reason = cm_ctl_arg(args, "reason", 0);
    return tell(ctl, "POST", "/api/v1/halt",
                reason ? json_pack("{s:s}", "reason", reason) : json_object(),
                "Halted: nothing is hurt until `chaosctl resume'.");
}

static int
resume(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    (void)args;
    return tell(ctl, "POST", "/api/v1/resume", json_object(),
                "Resumed: the rules act again.");
}

static int
reset(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    if (!cm_ctl_arg(args, "yes", 0))
        return cm_ctl_fail(CM_CTL_USAGE, "this removes every inbox's chaos and "
                                         "every rule; say --yes");
    return tell(ctl, "POST", "/api/v1/reset", json_object(), NULL);
}

/* --- keys --- */

static int
keys_list(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    static const char *const head[] = {"KEY", "NAME", "SCOPES", "MADE", NULL};
    static const char *const members[] = {"id", "name", "scopes", "createdAt"};
    struct cm_ctl_answer answer;
    (void)args;
    int code = cm_ctl_do(ctl, "GET", "/api/v1/keys", NULL, &answer);
    if (code != 0)
        return code;
    if (ctl->json) {
        cm_show_json(answer.json);
    } else {
        struct cm_show_table *table = cm_show_table_new(head);
        size_t i;
        json_t *key;
        json_array_foreach(json_object_get(answer.json, "keys"), i, key)
        {
            for (size_t n = 0; n < sizeof members / sizeof *members; n++) {
                char text[256];
                cm_show_cell(table, "%s",
                             cm_show_text(key, members[n], text, sizeof text));
            }
        }
        cm_show_end(&table, "No keys besides those of the settings.");
    }
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

static int
keys_add(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    json_t *scopes = cm_ctl_own(json_array());
    const char *scope;
    for (size_t i = 0; (scope = cm_ctl_arg(args, "scope", i)); i++)
        json_array_append_new(scopes, json_string(scope));
    json_t *body = cm_ctl_own(json_pack("{s:s}", "name", args->word[0]));
    if (json_array_size(scopes) > 0)
        json_object_set(body, "scopes", scopes);
    json_decref(scopes);
    return tell(ctl, "POST", "/api/v1/keys", body, NULL);
}

static int
keys_revoke(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    char *path = cm_ctl_path("/api/v1/keys/%s", args->word[0], NULL);
    int code = tell(ctl, "DELETE", path, NULL, "Revoked.");
    free(path);
    return code;
}

static const struct cm_ctl_flag halt_flags[] = {
    {"reason", "TEXT", "shown to whoever asks why"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag reset_flags[] = {
    {"yes", NULL, "I mean it"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag key_flags[] = {
    {"scope", "SCOPE", "read, write or halt; may be given several times"},
    {NULL, NULL, NULL},
};

const struct cm_ctl_command cm_ctl_fleet_commands[] = {
    {"status", "", 0, 0,
     "Show the filters and what is wrong (exit status 1: alarms, or halted)",
     "  chaosctl status\n", NULL, status},
    {"halt", "", 0, 0, "Stop all chaos now, until it is resumed",
     "  chaosctl halt --reason 'release today'\n", halt_flags, halt},
    {"resume", "", 0, 0, "Let the rules act again", "  chaosctl resume\n", NULL,
     resume},
    {"reset", "", 0, 0, "Remove all chaos, of every face",
     "  chaosctl reset --yes\n", reset_flags, reset},
    {"keys list", "", 0, 0, "List the API keys made here",
     "  chaosctl keys list\n", NULL, keys_list},
    {"keys add", "NAME", 1, 1, "Make an API key; it is shown this once",
     "  chaosctl keys add ci --scope read --scope write\n", key_flags,
     keys_add},
    {"keys revoke", "KEY", 1, 1, "Take an API key's rights away",
     "  chaosctl keys revoke k1\n", NULL, keys_revoke},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
