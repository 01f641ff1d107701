/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mailpit's triggers, and LocalStack's faults and effects. The daemon's PUT of
 * triggers replaces all three; a person who names one means that one, so the
 * others are read first and sent along.
 */
#include "admin/ctl/command.h"
#include "admin/ctl/quantity.h"
#include "admin/ctl/show.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char triggers_path[] = "/api/v1/chaos";
static const char faults_path[] = "/chaos/faults";
static const char effects_path[] = "/chaos/effects";

static const struct {
    const char *flag, *member;
} triggers[] = {
    {"sender", "Sender"},
    {"recipient", "Recipient"},
    {"auth", "Authentication"},
};
#define CM_CTL_TRIGGERS (sizeof triggers / sizeof *triggers)

static void
show_triggers(const struct cm_ctl *ctl, const json_t *all)
{
    static const char *const head[] = {"TRIGGER", "CODE", "PROBABILITY", NULL};
    if (ctl->json) {
        cm_show_json(all);
        return;
    }
    struct cm_show_table *table = cm_show_table_new(head);
    for (size_t i = 0; i < CM_CTL_TRIGGERS; i++) {
        char text[64];
        const json_t *one = json_object_get(all, triggers[i].member);
        cm_show_cell(table, "%s", triggers[i].flag);
        cm_show_cell(table, "%s",
                     cm_show_text(one, "ErrorCode", text, sizeof text));
        cm_show_cell(table, "%s%%",
                     cm_show_text(one, "Probability", text, sizeof text));
    }
    cm_show_end(&table, "");
}

static int
trigger_get(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_ctl_answer answer;
    (void)args;
    int code = cm_ctl_do(ctl, "GET", triggers_path, NULL, &answer);
    if (code != 0)
        return code;
    show_triggers(ctl, answer.json);
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

/* What one flag asks for; code 0: leave it as it is. */
struct wish {
    int64_t code;
    long percent;
    bool off;
};

/* "451:50%", "535", "off". */
static bool
read_wish(struct wish *wish, const char *flag, const char *value)
{
    struct cm_err err = {CM_OK, "its probability must be whole percents"};
    const char *colon = strchr(value, ':');
    double share = 1;
    char head[16];
    wish->off = strcmp(value, "off") == 0;
    if (wish->off)
        return true;
    snprintf(head, sizeof head, "%.*s",
             colon ? (int)(colon - value) : (int)strlen(value), value);
    if (cm_quantity_count(head, 400, 599, &wish->code, &err) == CM_OK &&
        (!colon || cm_quantity_share(colon + 1, &share, &err) == CM_OK)) {
        wish->percent = lround(share * 100);
        if (fabs(share * 100 - (double)wish->percent) < 1e-9)
            return true;
    }
    cm_ctl_fail(0, "--%s: %s", flag, err.msg);
    return false;
}

static void
grant(json_t *trigger, const struct wish *wish)
{
    if (wish->code)
        json_object_set_new(trigger, "ErrorCode", json_integer(wish->code));
    if (wish->code || wish->off)
        json_object_set_new(trigger, "Probability",
                            json_integer(wish->percent));
}

static int
trigger_set(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct wish wishes[CM_CTL_TRIGGERS] = {{.code = 0}};
    struct cm_ctl_answer now, then;
    bool all_off = cm_ctl_arg(args, "off", 0) != NULL;
    if (args->ngiven == 0)
        return cm_ctl_fail(CM_CTL_USAGE, "which trigger? --sender, --recipient "
                                         "or --auth, or --off for all");
    for (size_t i = 0; i < CM_CTL_TRIGGERS; i++) {
        const char *value = cm_ctl_arg(args, triggers[i].flag, 0);
        wishes[i].off = all_off;
        if (value && !all_off &&
            !read_wish(&wishes[i], triggers[i].flag, value))
            return CM_CTL_USAGE;
    }
    int code = cm_ctl_do(ctl, "GET", triggers_path, NULL, &now);
    if (code != 0)
        return code;
    for (size_t i = 0; i < CM_CTL_TRIGGERS; i++)
        grant(json_object_get(now.json, triggers[i].member), &wishes[i]);
    code = cm_ctl_do(ctl, "PUT", triggers_path, now.json, &then);
    cm_ctl_answer_fini(&now);
    if (code != 0)
        return code;
    show_triggers(ctl, then.json);
    cm_ctl_answer_fini(&then);
    return CM_CTL_OK;
}

/* GET, or POST of a file's document, and the answer as JSON: these documents
 * are LocalStack's, and people know them as that. */
static int
exchange(struct cm_ctl *ctl, const char *method, const char *path, json_t *body)
{
    struct cm_ctl_answer answer;
    int code = cm_ctl_do(ctl, method, path, body, &answer);
    json_decref(body);
    if (code != 0)
        return code;
    if (answer.json)
        cm_show_json(answer.json);
    cm_ctl_answer_fini(&answer);
    return CM_CTL_OK;
}

static int
faults(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    const char *set = cm_ctl_arg(args, "set", 0);
    const char *add = cm_ctl_arg(args, "add", 0);
    const char *remove = cm_ctl_arg(args, "remove", 0);
    const char *file = set ? set : add ? add : remove;
    bool clear = cm_ctl_arg(args, "clear", 0) != NULL;
    if (args->ngiven > 1)
        return cm_ctl_fail(CM_CTL_USAGE, "one of --set, --add, --remove and "
                                         "--clear at a time");
    if (args->ngiven == 0)
        return exchange(ctl, "GET", faults_path, NULL);
    json_t *body = clear ? json_array() : cm_ctl_read_document(file);
    if (!body)
        return CM_CTL_USAGE;
    return exchange(ctl,
                    add      ? "PATCH"
                    : remove ? "DELETE"
                             : "POST",
                    faults_path, body);
}

static int
effects(struct cm_ctl *ctl, const struct cm_ctl_args *args)
{
    struct cm_err err;
    int64_t ms;
    const char *latency = cm_ctl_arg(args, "latency", 0);
    if (!latency)
        return exchange(ctl, "GET", effects_path, NULL);
    if (cm_quantity_duration(latency, &ms, &err) != CM_OK)
        return cm_ctl_fail(CM_CTL_USAGE, "--latency: %s", err.msg);
    return exchange(ctl, "POST", effects_path,
                    json_pack("{s:I}", "latency", (json_int_t)ms));
}

static const struct cm_ctl_flag trigger_flags[] = {
    {"sender", "CODE[:PROB]", "errors at MAIL, e.g. 451:50%; or off"},
    {"recipient", "CODE[:PROB]", "errors at RCPT"},
    {"auth", "CODE[:PROB]", "errors at AUTH"},
    {"off", NULL, "none of the three"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag fault_flags[] = {
    {"set", "FILE", "these rules and no others"},
    {"add", "FILE", "these rules behind those that are there"},
    {"remove", "FILE", "take away the rules that equal these"},
    {"clear", NULL, "no rules"},
    {NULL, NULL, NULL},
};
static const struct cm_ctl_flag effect_flags[] = {
    {"latency", "TIME", "every message's reply comes this late; 0 for none"},
    {NULL, NULL, NULL},
};

const struct cm_ctl_command cm_ctl_face_commands[] = {
    {"trigger get", "", 0, 0, "Show Mailpit's three triggers",
     "  chaosctl trigger get\n", NULL, trigger_get},
    {"trigger set", "", 0, 0, "Set one or more of them; the others stay",
     "  chaosctl trigger set --sender 451:50% --auth 535\n"
     "  chaosctl trigger set --off\n",
     trigger_flags, trigger_set},
    {"faults", "", 0, 0, "Show or change LocalStack's fault rules, as JSON",
     "  chaosctl faults\n  chaosctl faults --set rules.json\n", fault_flags,
     faults},
    {"effects", "", 0, 0, "Show or set LocalStack's effects",
     "  chaosctl effects --latency 300ms\n", effect_flags, effects},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
