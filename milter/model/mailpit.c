/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One table of triggers; everything else follows from its rows. JSON is in
 * mailpit_json.c: the list of the command line needs none.
 */
#include "milter/model/mailpit.h"
#include "milter/model/ascii.h"
#include "milter/model/coin.h"
#include "milter/model/reply.h"
#include "milter/model/rule.h"

#include <stdio.h>
#include <string.h>

#define CM_TRIGGER_ITEM_BYTES 64

static const struct {
    const char *name, *key;
    const char *other; /* name in the list alone; NULL: none */
    enum cm_stage stage;
    int code;
    const char *text;
} rows[CM_TRIGGER_COUNT] = {
    [CM_TRIGGER_SENDER] = {"Sender", "sender", NULL, CM_STAGE_MAIL, 451,
                           "Chaos sender error"},
    [CM_TRIGGER_RECIPIENT] = {"Recipient", "recipient", "recipients",
                              CM_STAGE_RCPT, 451, "Chaos recipient error"},
    [CM_TRIGGER_AUTHENTICATION] = {"Authentication", "authentication", "auth",
                                   CM_STAGE_AUTH, 535,
                                   "Chaos authentication error"},
};

const char *
cm_trigger_name(enum cm_trigger trigger)
{
    return rows[trigger].name;
}

const char *
cm_trigger_key(enum cm_trigger trigger)
{
    return rows[trigger].key;
}

enum cm_status
cm_trigger_find(const char *name, enum cm_trigger *trigger_r)
{
    for (int i = 0; i < CM_TRIGGER_COUNT; i++) {
        if (cm_ascii_equal(name, rows[i].key)) {
            *trigger_r = (enum cm_trigger)i;
            return CM_OK;
        }
    }
    return CM_NOTFOUND;
}

void
cm_triggers_default(struct cm_triggers *triggers_r)
{
    for (int i = 0; i < CM_TRIGGER_COUNT; i++)
        triggers_r->at[i] = (struct cm_trigger_setting){rows[i].code, 0};
}

const char *
cm_trigger_check(long long code, long long percent)
{
    if (code < 400 || code > 599)
        return CM_TRIGGER_CODE_TEXT;
    if (percent < 0 || percent > 100)
        return CM_TRIGGER_PERCENT_TEXT;
    return NULL;
}

/* --- the list --- */

static enum cm_status
find_listed(const char *name, enum cm_trigger *trigger_r)
{
    for (int i = 0; i < CM_TRIGGER_COUNT; i++) {
        if (rows[i].other && cm_ascii_equal(name, rows[i].other)) {
            *trigger_r = (enum cm_trigger)i;
            return CM_OK;
        }
    }
    return cm_trigger_find(name, trigger_r);
}

/* Digits alone, up to the byte end. -1: anything else. */
static int
take_number(const char **at, char end)
{
    int n = 0;
    const char *c = *at;
    for (; cm_ascii_is_digit(*c) && c - *at < 6; c++)
        n = n * 10 + (*c - '0');
    if (c == *at || *c != end)
        return -1;
    *at = c + 1;
    return n;
}

/* NULL when the item is good, else what it is not. */
static const char *
parse_item(struct cm_triggers *triggers, char *item)
{
    enum cm_trigger trigger;
    char *colon = strchr(item, ':');
    const char *rest = colon ? colon + 1 : item;
    int code = colon ? take_number(&rest, ':') : -1;
    int percent = code < 0 ? -1 : take_number(&rest, '\0');
    if (percent < 0)
        return "must be TRIGGER:CODE:PROBABILITY, such as Sender:451:50";
    *colon = '\0';
    if (find_listed(item, &trigger) != CM_OK)
        return "the trigger must be sender, recipient or authentication";
    const char *fault = cm_trigger_check(code, percent);
    if (!fault)
        triggers->at[trigger] = (struct cm_trigger_setting){code, percent};
    return fault;
}

enum cm_status
cm_triggers_parse(struct cm_triggers *triggers_r, const char *list,
                  struct cm_err *err)
{
    struct cm_triggers triggers;
    char item[CM_TRIGGER_ITEM_BYTES], shown[CM_TRIGGER_ITEM_BYTES];
    cm_triggers_default(&triggers);
    for (const char *at = list;; at++) {
        at += strspn(at, " \t");
        size_t len = strcspn(at, ","), bare = len;
        while (bare > 0 && strchr(" \t", at[bare - 1]))
            bare--;
        snprintf(item, sizeof item, "%.*s", (int)bare, at);
        memcpy(shown, item, sizeof shown);
        cm_ascii_make_printable(shown);
        const char *fault = bare < sizeof item ? parse_item(&triggers, item)
                                               : "is too long for a trigger";
        if (fault)
            return cm_err_set(err, CM_EINVAL, "\"%s\": %s", shown, fault);
        at += len;
        if (*at == '\0')
            break;
    }
    *triggers_r = triggers;
    return CM_OK;
}

/* --- the rule --- */

enum cm_status
cm_trigger_compile(struct cm_rule *rule_r, enum cm_trigger trigger,
                   const struct cm_trigger_setting *setting)
{
    struct cm_rule rule = {
        .id = NULL,
        .face = CM_FACE_TRIGGER,
        .enabled = true,
        .stage = rows[trigger].stage,
        .probability_ppb = (uint32_t)setting->percent * (CM_COIN_ALWAYS / 100),
        .expires_at_ms = CM_RULE_NEVER_EXPIRES,
        .fault = {.kind = CM_FAULT_ERROR},
    };
    if (setting->percent == 0)
        return CM_NOTFOUND;
    rule.id = strdup(rows[trigger].key);
    if (!rule.id ||
        cm_reply_new(&rule.fault.u.error.reply, setting->code, NULL,
                     (const char *[]){rows[trigger].text}, 1, NULL) != CM_OK) {
        cm_rule_fini(&rule);
        return CM_ENOMEM;
    }
    *rule_r = rule;
    return CM_OK;
}
