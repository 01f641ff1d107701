/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mailpit's triggers: the document of its API, the list of its command line,
 * and the rules that they become. Words and ranges were observed on Mailpit.
 */
#include "milter/model/coin.h"
#include "milter/model/json.h"
#include "milter/model/mailpit_json.h"
#include "milter/model/reply.h"
#include "milter/model/rule.h"
#include "t/unit/failing_alloc.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "451:0 451:0 535:0" */
static const char *
print(const struct cm_triggers *t)
{
    static char out[64];
    snprintf(out, sizeof out, "%d:%d %d:%d %d:%d", t->at[0].code,
             t->at[0].percent, t->at[1].code, t->at[1].percent, t->at[2].code,
             t->at[2].percent);
    return out;
}

static const struct {
    const char *doc, *out; /* the triggers, or the complaint */
} documents[] = {
    {"{}", "451:0 451:0 535:0"},
    {"{\"Sender\":{\"ErrorCode\":451,\"Probability\":5}}", "451:5 451:0 535:0"},
    {"{\"Sender\":{\"ErrorCode\":0,\"Probability\":5}}", "451:5 451:0 535:0"},
    {"{\"Authentication\":{\"Probability\":100}}", "451:0 451:0 535:100"},
    {"{\"Authentication\":{\"ErrorCode\":0}}", "451:0 451:0 535:0"},
    {"{\"sender\":{\"errorcode\":550,\"PROBABILITY\":1},"
     "\"RECIPIENT\":{\"ErrorCode\":599}}",
     "550:1 599:0 535:0"},
    {"{\"Sender\":null,\"Recipient\":{\"ErrorCode\":null,"
     "\"Probability\":null}}",
     "451:0 451:0 535:0"},
    {"{\"Sender\":{\"ErrorCode\":400,\"Probability\":0},"
     "\"Recipient\":{\"ErrorCode\":421,\"Probability\":100},"
     "\"Authentication\":{\"ErrorCode\":454,\"Probability\":50}}",
     "400:0 421:100 454:50"},
    {"{\"Sender\":{\"ErrorCode\":399}}",
     "error code must be between 400 and 599"},
    {"{\"Sender\":{\"ErrorCode\":600}}",
     "error code must be between 400 and 599"},
    {"{\"Recipient\":{\"ErrorCode\":-1}}",
     "error code must be between 400 and 599"},
    {"{\"Recipient\":{\"ErrorCode\":99999999999}}",
     "error code must be between 400 and 599"},
    {"{\"Sender\":{\"Probability\":101}}",
     "probability must be between 0 and 100"},
    {"{\"Sender\":{\"Probability\":-1}}",
     "probability must be between 0 and 100"},
    {"{\"Sender\":{\"ErrorCode\":1,\"Probability\":101}}",
     "error code must be between 400 and 599"},
    {"{\"Authentication\":{\"Probability\":101},\"Sender\":{\"ErrorCode\":1}}",
     "error code must be between 400 and 599"},
    {"{\"Sender\":{\"Probability\":0.5}}", "Probability must be an integer"},
    {"{\"Sender\":{\"Probability\":1.0}}", "Probability must be an integer"},
    {"{\"Sender\":{\"ErrorCode\":\"451\"}}", "ErrorCode must be an integer"},
    {"{\"Recipients\":{\"ErrorCode\":451,\"Probability\":5}}",
     "Recipients is not a member of this document"},
    {"{\"Sender\":{\"Code\":451}}", "Code is not a member of this document"},
    {"{\"Sender\":{\"Probability\":1},\"sender\":{\"Probability\":2}}",
     "Sender is given twice"},
    {"{\"Sender\":{\"ErrorCode\":451,\"errorCode\":452}}",
     "ErrorCode is given twice"},
    {"{\"Sender\":451}", "Sender must be an object"},
    {"[]", "the body must be a JSON object"},
    {"null", "the body must be a JSON object"},
    {"{\"a\\nb\\u00fc\":1}", "a?b?? is not a member of this document"},
};

static void
test_triggers_read_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        struct cm_triggers got = {{{1, 2}, {3, 4}, {5, 6}}};
        struct cm_err err = {CM_OK, ""};
        json_t *json = NULL;
        assert_int_equal(cm_json_parse(&json, documents[i].doc,
                                       strlen(documents[i].doc), NULL),
                         CM_OK);
        enum cm_status st = cm_triggers_read(&got, json, &err);
        const char *out = st == CM_OK ? print(&got) : err.msg;
        if (strcmp(out, documents[i].out) != 0)
            fail_msg("%s: %s", documents[i].doc, out);
        if (st != CM_OK) /* nothing of it was taken */
            assert_string_equal(print(&got), "1:2 3:4 5:6");
        json_decref(json);
    }
}

static void
test_triggers_json_is_what_mailpit_answers(void **state)
{
    struct cm_triggers triggers;
    (void)state;
    cm_triggers_default(&triggers);
    json_t *json = cm_triggers_json(&triggers);
    char *text = cm_json_dump(json, NULL);
    assert_string_equal(
        text, "{\"Sender\":{\"ErrorCode\":451,\"Probability\":0},"
              "\"Recipient\":{\"ErrorCode\":451,\"Probability\":0},"
              "\"Authentication\":{\"ErrorCode\":535,\"Probability\":0}}");
    free(text);
    json_decref(json);
}

static const struct {
    const char *list, *out;
} lists[] = {
    {"Sender:451:50", "451:50 451:0 535:0"},
    {"sender:451:5,recipient:550:10,auth:454:100", "451:5 550:10 454:100"},
    {"  sender:451:5 ,\trecipients:452:7 ", "451:5 452:7 535:0"},
    {"AUTHENTICATION:500:1,Authentication:501:2", "451:0 451:0 501:2"},
    {"recipients:400:0", "451:0 400:0 535:0"},
    {"Sender:451:101",
     "\"Sender:451:101\": probability must be between 0 and 100"},
    {"Sender:399:1",
     "\"Sender:399:1\": error code must be between 400 and 599"},
    {"Sender:600:1",
     "\"Sender:600:1\": error code must be between 400 and 599"},
    {"Sender:0:1", "\"Sender:0:1\": error code must be between 400 and 599"},
    {"Sender:451",
     "\"Sender:451\": must be TRIGGER:CODE:PROBABILITY, such as Sender:451:50"},
    {"Sender:451:-1",
     "\"Sender:451:-1\": must be TRIGGER:CODE:PROBABILITY, such as "
     "Sender:451:50"},
    {"Sender:451:5.5",
     "\"Sender:451:5.5\": must be TRIGGER:CODE:PROBABILITY, such as "
     "Sender:451:50"},
    {"Sender:451:5:6",
     "\"Sender:451:5:6\": must be TRIGGER:CODE:PROBABILITY, such as "
     "Sender:451:50"},
    {"Sender:+451:5",
     "\"Sender:+451:5\": must be TRIGGER:CODE:PROBABILITY, such as "
     "Sender:451:50"},
    {"Sender: 451:5",
     "\"Sender: 451:5\": must be TRIGGER:CODE:PROBABILITY, such as "
     "Sender:451:50"},
    {"Data:451:5",
     "\"Data:451:5\": the trigger must be sender, recipient or authentication"},
    {"senders:451:5",
     "\"senders:451:5\": the trigger must be sender, recipient or "
     "authentication"},
    {":451:5",
     "\":451:5\": the trigger must be sender, recipient or authentication"},
    {"Sender:451:5,",
     "\"\": must be TRIGGER:CODE:PROBABILITY, such as Sender:451:50"},
    {"Sender:451:5,,auth:535:1",
     "\"\": must be TRIGGER:CODE:PROBABILITY, such as Sender:451:50"},
    {"", "\"\": must be TRIGGER:CODE:PROBABILITY, such as Sender:451:50"},
    {" ", "\"\": must be TRIGGER:CODE:PROBABILITY, such as Sender:451:50"},
    {"Sender:4294967747:5",
     "\"Sender:4294967747:5\": must be TRIGGER:CODE:PROBABILITY, such as "
     "Sender:451:50"},
    {"a\nb\xff:451:5",
     "\"a?b?:451:5\": the trigger must be sender, recipient or "
     "authentication"},
    {"Sender:451:0000000000000000000000000000000000000000000000000000000000005",
     "\"Sender:451:0000000000000000000000000000000000000000000000000000\": is "
     "too long for a trigger"},
};

static void
test_triggers_parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct cm_triggers got = {{{1, 2}, {3, 4}, {5, 6}}};
        struct cm_err err = {CM_OK, ""};
        enum cm_status st = cm_triggers_parse(&got, lists[i].list, &err);
        const char *out = st == CM_OK ? print(&got) : err.msg;
        if (strcmp(out, lists[i].out) != 0)
            fail_msg("%s: %s", lists[i].list, out);
        if (st != CM_OK)
            assert_string_equal(print(&got), "1:2 3:4 5:6");
    }
}

static void
test_trigger_compile_makes_mailpits_reply(void **state)
{
    static const struct {
        enum cm_trigger trigger;
        struct cm_trigger_setting setting;
        const char *name, *reply;
        enum cm_stage stage;
        uint32_t ppb;
    } cases[] = {
        {CM_TRIGGER_SENDER,
         {451, 1},
         "trigger:sender",
         "451 Chaos sender error",
         CM_STAGE_MAIL,
         10000000},
        {CM_TRIGGER_RECIPIENT,
         {550, 50},
         "trigger:recipient",
         "550 Chaos recipient error",
         CM_STAGE_RCPT,
         500000000},
        {CM_TRIGGER_AUTHENTICATION,
         {535, 100},
         "trigger:authentication",
         "535 Chaos authentication error",
         CM_STAGE_AUTH,
         CM_COIN_ALWAYS},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_rule rule;
        char text[128];
        assert_int_equal(
            cm_trigger_compile(&rule, cases[i].trigger, &cases[i].setting),
            CM_OK);
        cm_rule_print_name(&rule, text, sizeof text);
        assert_string_equal(text, cases[i].name);
        cm_reply_print(rule.fault.u.error.reply, text, sizeof text);
        assert_string_equal(text, cases[i].reply);
        assert_string_equal(rule.fault.u.error.reply->enhanced, "");
        assert_int_equal(rule.stage, cases[i].stage);
        assert_int_equal(rule.probability_ppb, cases[i].ppb);
        assert_true(cm_rule_in_force(&rule, INT64_MAX - 1));
        cm_rule_fini(&rule);
    }
}

static void
test_trigger_compile_never_is_no_rule(void **state)
{
    struct cm_rule rule;
    const struct cm_trigger_setting never = {451, 0};
    (void)state;
    assert_int_equal(cm_trigger_compile(&rule, CM_TRIGGER_SENDER, &never),
                     CM_NOTFOUND);
}

static void
test_trigger_compile_without_memory(void **state)
{
    const struct cm_trigger_setting always = {451, 100};
    struct cm_rule rule;
    (void)state;
    for (long n = 1;; n++) {
        failing_alloc_arm(n);
        enum cm_status st =
            cm_trigger_compile(&rule, CM_TRIGGER_SENDER, &always);
        bool failed = failing_alloc_disarm();
        if (st == CM_OK)
            cm_rule_fini(&rule);
        if (!failed)
            break;
        assert_int_equal(st, CM_ENOMEM);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_triggers_read_table),
        cmocka_unit_test(test_triggers_json_is_what_mailpit_answers),
        cmocka_unit_test(test_triggers_parse_table),
        cmocka_unit_test(test_trigger_compile_makes_mailpits_reply),
        cmocka_unit_test(test_trigger_compile_never_is_no_rule),
        cmocka_unit_test(test_trigger_compile_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
