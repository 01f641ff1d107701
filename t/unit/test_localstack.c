/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * LocalStack's fault rules and effects: each table row is a document and either
 * the sentences that refuse it, in its own words, or the rule that it becomes.
 */
#include "milter/model/json.h"
#include "milter/model/localstack_json.h"
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

static json_t *
parse(const char *text)
{
    json_t *json = NULL;
    struct cm_err err;
    if (cm_json_parse(&json, text, strlen(text), &err) != CM_OK)
        fail_msg("%s: %s", text, err.msg);
    return json;
}

/* "sentence; sentence" */
static const char *
join(const struct cm_problems *problems)
{
    static char out[4096];
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < problems->n; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%s",
                              i > 0 ? "; " : "", problems->at[i].text);
    return out;
}

static void
describe(const struct cm_rule *rule, char out[1024])
{
    const struct cm_match *m = &rule->match;
    char reply[256] = "", name[CM_RULE_NAME_BYTES];
    if (rule->fault.kind == CM_FAULT_ERROR && rule->fault.u.error.reply)
        cm_reply_print(rule->fault.u.error.reply, reply, sizeof reply);
    cm_rule_print_name(rule, name, sizeof name);
    snprintf(out, 1024, "%s %s %s%s%s%s%s%s%s p=%u %s%s%s%s", name,
             cm_stage_name(rule->stage),
             m->inbox.kind != CM_PATTERN_ANY ? m->inbox.text : "",
             m->domain ? " in " : "", m->domain ? m->domain : "",
             m->sender.kind != CM_PATTERN_ANY ? " from " : "",
             m->sender.kind != CM_PATTERN_ANY ? m->sender.text : "",
             m->client.family != 0 ? " client" : "",
             m->user.kind != CM_PATTERN_ANY ? " user" : "",
             rule->probability_ppb, cm_fault_name(rule->fault.kind),
             *reply ? " " : "", reply,
             rule->mode == CM_RULE_SHADOW ? " shadow" : "");
}

static const struct {
    const char *name, *doc;
    const char *rule; /* NULL: refused */
    const char *problems;
} rules[] = {
    {"nothing given", "{}",
     "fault:1 rcpt  p=1000000000 error 451 4.3.0 Service unavailable", NULL},
    {"an empty error", "{\"error\":{}}",
     "fault:1 rcpt  p=1000000000 error 451 4.3.0 Service unavailable", NULL},
    {"null is absent", "{\"inbox\":null,\"error\":null,\"fault\":null}",
     "fault:1 rcpt  p=1000000000 error 451 4.3.0 Service unavailable", NULL},
    {"permanent code", "{\"error\":{\"statusCode\":550}}",
     "fault:1 rcpt  p=1000000000 error 550 5.3.0 Service unavailable", NULL},
    {"the whole error",
     "{\"error\":{\"statusCode\":452,\"code\":\"4.3.1\","
     "\"message\":[\"full\",\"up\"]}}",
     "fault:1 rcpt  p=1000000000 error 452 4.3.1 full", NULL},
    {"every condition",
     "{\"inbox\":\"*@Example.COM\",\"domain\":\"example.com\","
     "\"stage\":\"message\",\"sender\":\"<>\",\"client\":\"192.0.2.0/24\","
     "\"user\":\"joe\",\"probability\":0.25}",
     "fault:1 message *@example.com in example.com from  client user "
     "p=250000000 error 451 4.3.0 Service unavailable",
     NULL},
    {"LocalStack's names",
     "{\"service\":\"a@b.example\",\"region\":\"b.example\","
     "\"operation\":\"RCPT\"}",
     "fault:1 rcpt a@b.example in b.example p=1000000000 error 451 4.3.0 "
     "Service unavailable",
     NULL},
    {"MAIL", "{\"stage\":\"MAIL\"}",
     "fault:1 mail  p=1000000000 error 451 4.3.0 Service unavailable", NULL},
    {"AUTH", "{\"operation\":\"AUTH\",\"user\":\"x\"}",
     "fault:1 auth  user p=1000000000 error 451 4.3.0 Service unavailable",
     NULL},
    {"DATA", "{\"operation\":\"DATA\"}",
     "fault:1 data  p=1000000000 error 451 4.3.0 Service unavailable", NULL},
    {"IPv6 client", "{\"client\":\"2001:db8::/32\",\"stage\":\"connect\"}",
     "fault:1 connect  client p=1000000000 error 451 4.3.0 Service unavailable",
     NULL},
    {"any fault by its kind",
     "{\"fault\":{\"kind\":\"blackhole\"},\"mode\":\"shadow\"}",
     "fault:1 message  p=1000000000 blackhole shadow", NULL},
    {"never", "{\"probability\":0}",
     "fault:1 rcpt  p=0 error 451 4.3.0 Service unavailable", NULL},
    {"bounds",
     "{\"expiresAt\":\"2030-01-01T00:00:00Z\",\"maxHits\":3,"
     "\"mode\":\"live\",\"description\":\"why\"}",
     "fault:1 rcpt  p=1000000000 error 451 4.3.0 Service unavailable", NULL},

    {"unknown member", "{\"inboxes\":\"a@b\"}", NULL,
     "property inboxes should not exist"},
    {"members of a rule document",
     "{\"seed\":1,\"id\":\"x\",\"enabled\":true,\"helo\":\"x\"}", NULL,
     "property seed should not exist; property id should not exist; property "
     "enabled should not exist; property helo should not exist"},
    {"unknown member of the error", "{\"error\":{\"text\":\"x\"}}", NULL,
     "error.property text should not exist"},
    {"both names", "{\"inbox\":\"a@b.c\",\"service\":\"a@b.c\"}", NULL,
     "service must not be given beside its other name"},
    {"both names of the stage", "{\"operation\":\"MAIL\",\"stage\":\"mail\"}",
     NULL, "stage must not be given beside its other name"},
    {"error and fault", "{\"error\":{},\"fault\":{\"kind\":\"drop\"}}", NULL,
     "fault must not be given together with error"},
    {"error is text", "{\"error\":\"451\"}", NULL, "error must be an object"},
    {"fault is text", "{\"fault\":\"drop\"}", NULL, "fault must be an object"},
    {"code out of range", "{\"error\":{\"statusCode\":399}}", NULL,
     "error.statusCode must not be less than 400"},
    {"code out of range", "{\"error\":{\"statusCode\":600}}", NULL,
     "error.statusCode must not be greater than 599"},
    {"H7 code is text", "{\"error\":{\"statusCode\":\"451\"}}", NULL,
     "error.statusCode must be an integer number"},
    {"class of the enhanced code",
     "{\"error\":{\"statusCode\":550,\"code\":\"4.7.1\"}}", NULL,
     "error.code must be of the same class as the code"},
    {"not an enhanced code", "{\"error\":{\"code\":\"Busy\"}}", NULL,
     "error.code must be an enhanced status code such as 4.7.1"},
    {"H1 line break", "{\"error\":{\"message\":\"x\\r\\n250 ok\"}}", NULL,
     "error.message must be printable ASCII without line breaks"},
    {"H1 in a line", "{\"error\":{\"message\":[\"a\",\"b\\u0085\"]}}", NULL,
     "error.message[1] must be printable ASCII without line breaks"},
    {"no line", "{\"error\":{\"message\":[]}}", NULL,
     "error.message must have 1 to 32 lines"},
    {"H7 probability", "{\"probability\":1.0000001}", NULL,
     "probability must not be greater than 1"},
    {"probability is text", "{\"probability\":\"0.5\"}", NULL,
     "probability must be a number conforming to the specified constraints"},
    {"stage of nobody", "{\"stage\":\"body\"}", NULL,
     "stage must be one of the following values: connect, helo, auth, mail, "
     "rcpt, data, message"},
    {"a stage of rule documents alone", "{\"stage\":\"quit\"}", NULL,
     "stage must be one of the following values: connect, helo, auth, mail, "
     "rcpt, data, message"},
    {"LocalStack's name of a stage", "{\"operation\":\"Mail\"}", NULL,
     "operation must be one of the following values: connect, helo, auth, "
     "mail, rcpt, data, message"},
    {"a stage where the fault cannot act",
     "{\"operation\":\"RCPT\",\"fault\":{\"kind\":\"blackhole\"}}", NULL,
     "operation must be one of the following values: message (where this "
     "blackhole can act)"},
    {"a condition that is not known there",
     "{\"service\":\"a@b.c\",\"stage\":\"mail\"}", NULL,
     "service is not known at stage mail, only at rcpt, data, message"},
    {"no address", "{\"service\":\"a@@b@\"}", NULL,
     "service must be an address or a pattern such as *@example.com: domain "
     "holds a character that it must not"},
    {"client with host bits", "{\"client\":\"192.0.2.1/24\"}", NULL,
     "client must not set bits beyond its prefix length"},
    {"time", "{\"expiresAt\":\"soon\"}", NULL,
     "expiresAt must be a valid ISO 8601 date string"},
    {"maxHits", "{\"maxHits\":0}", NULL, "maxHits must not be less than 1"},
    {"mode", "{\"mode\":\"dead\"}", NULL,
     "mode must be one of the following values: live, shadow"},
    {"no object", "[]", NULL, "rule must be a JSON object"},
    {"several at once",
     "{\"x\":1,\"probability\":2,\"error\":{\"y\":1,\"statusCode\":1}}", NULL,
     "property x should not exist; error.property y should not exist; "
     "probability must not be greater than 1; error.statusCode must not be "
     "less than 400"},
};

static void
test_compile_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        struct cm_rule rule;
        struct cm_problems problems;
        char text[1024];
        json_t *doc = parse(rules[i].doc);
        cm_problems_init(&problems);
        enum cm_status st =
            cm_localstack_compile(&rule, "1", doc, "", 0, &problems);
        json_decref(doc);
        if (st == CM_OK && !rules[i].rule)
            fail_msg("%s: taken", rules[i].name);
        if (st != CM_OK && rules[i].rule)
            fail_msg("%s: %s", rules[i].name, join(&problems));
        if (st == CM_OK) {
            describe(&rule, text);
            if (strcmp(text, rules[i].rule) != 0)
                fail_msg("%s: %s", rules[i].name, text);
            cm_rule_fini(&rule);
            continue;
        }
        assert_int_equal(st, CM_EINVAL);
        assert_true(problems.n > 0);
        if (*rules[i].problems &&
            strcmp(join(&problems), rules[i].problems) != 0)
            fail_msg("%s: %s", rules[i].name, join(&problems));
    }
}

static void
test_compile_names_the_place_in_a_list(void **state)
{
    static const struct {
        const char *doc, *path, *text;
    } cases[] = {
        {"{\"region\":\"b@\"}", "[7].region", "[7].region must be a domain"},
        {"{\"foo\":1}", "[7].foo", "[7].property foo should not exist"},
        {"{\"error\":{\"code\":\"x\"}}", "[7].error.code",
         "[7].error.code must be an enhanced"},
        {"{\"fault\":{\"kind\":\"drop\",\"how\":\"x\"}}", "[7].fault.how",
         "[7].fault.how must be one of"},
        {"{\"stage\":5}", "[7].stage", "[7].stage must be one of"},
        {"5", "[7]", "[7] must be a JSON object"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_rule rule;
        struct cm_problems problems;
        json_t *doc = parse(cases[i].doc);
        cm_problems_init(&problems);
        assert_int_equal(
            cm_localstack_compile(&rule, "1", doc, "[7].", 0, &problems),
            CM_EINVAL);
        assert_int_equal(problems.n, 1);
        assert_string_equal(problems.at[0].path, cases[i].path);
        if (strncmp(problems.at[0].text, cases[i].text,
                    strlen(cases[i].text)) != 0)
            fail_msg("%s", problems.at[0].text);
        json_decref(doc);
    }
}

static const struct {
    const char *name, *doc;
    enum cm_status status;
    const char *out; /* of the delay, or the sentences */
} effects[] = {
    {"none", "{\"latency\":0}", CM_NOTFOUND, ""},
    {"fixed", "{\"latency\":250}", CM_OK, "message fixed 250..250"},
    {"jitter", "{\"latency\":200,\"jitter\":50}", CM_OK,
     "message uniform 150..250"},
    {"more jitter than latency", "{\"latency\":20,\"jitter\":50}", CM_OK,
     "message uniform 0..70"},
    {"jitter alone", "{\"latency\":0,\"jitter\":50}", CM_OK,
     "message uniform 0..50"},
    {"lognormal",
     "{\"latency\":100,\"jitter\":100,\"distribution\":\"lognormal\"}", CM_OK,
     "message lognormal 100 0.693"},
    {"stage", "{\"latency\":5,\"stage\":\"rcpt\"}", CM_OK, "rcpt fixed 5..5"},
    {"the longest", "{\"latency\":60000}", CM_OK, "message fixed 60000..60000"},
    {"empty", "{}", CM_EINVAL, "latency must be an integer number"},
    {"null", "{\"latency\":null}", CM_EINVAL,
     "latency must be an integer number"},
    {"negative", "{\"latency\":-1}", CM_EINVAL,
     "latency must not be less than 0"},
    {"text", "{\"latency\":\"100\"}", CM_EINVAL,
     "latency must be an integer number"},
    {"real", "{\"latency\":1.5}", CM_EINVAL,
     "latency must be an integer number"},
    {"too long", "{\"latency\":60001}", CM_EINVAL,
     "latency must not be greater than 60000"},
    {"too long together", "{\"latency\":60000,\"jitter\":1}", CM_EINVAL,
     "jitter must not be greater than 0 (latency and jitter together are at "
     "most 60000)"},
    {"unknown member", "{\"latency\":1,\"x\":1}", CM_EINVAL,
     "property x should not exist"},
    {"lognormal of nothing", "{\"latency\":0,\"distribution\":\"lognormal\"}",
     CM_EINVAL, "distribution lognormal needs a latency and a jitter above 0"},
    {"stage", "{\"latency\":1,\"stage\":\"auth\"}", CM_EINVAL,
     "stage must be one of the following values: connect, helo, mail, rcpt, "
     "data, message"},
    {"no object", "100", CM_EINVAL, "body must be a JSON object"},
};

static void
test_effect_table(void **state)
{
    static const char *const kinds[] = {"fixed", "uniform", "lognormal"};
    (void)state;
    for (size_t i = 0; i < sizeof effects / sizeof *effects; i++) {
        struct cm_rule rule;
        struct cm_problems problems;
        char text[256] = "";
        json_t *doc = parse(effects[i].doc);
        cm_problems_init(&problems);
        enum cm_status st = cm_localstack_effect(&rule, doc, &problems);
        if (st != effects[i].status)
            fail_msg("%s: %s %s", effects[i].name, cm_status_name(st),
                     join(&problems));
        if (st == CM_EINVAL)
            snprintf(text, sizeof text, "%s", join(&problems));
        if (st == CM_OK) {
            const struct cm_fault_latency *l = &rule.fault.u.latency;
            int n = snprintf(text, sizeof text, "%s %s ",
                             cm_stage_name(rule.stage), kinds[l->kind]);
            if (l->kind == CM_DELAY_LOGNORMAL)
                snprintf(text + n, sizeof text - (size_t)n, "%g %.3f",
                         l->median_ms, l->sigma);
            else
                snprintf(text + n, sizeof text - (size_t)n, "%d..%d",
                         (int)l->min_ms, (int)l->max_ms);
            assert_int_equal(rule.face, CM_FACE_EFFECT);
            cm_rule_fini(&rule);
        }
        if (strcmp(text, effects[i].out) != 0)
            fail_msg("%s: %s", effects[i].name, text);
        json_decref(doc);
    }
}

static void
test_compile_without_memory(void **state)
{
    static const char *const docs[] = {
        "{\"service\":\"*@example.com\",\"operation\":\"RCPT\","
        "\"client\":\"192.0.2.0/24\",\"error\":{\"statusCode\":451,"
        "\"message\":[\"a\",\"b\"]}}",
        "{\"inbox\":\"a@b\",\"x\":1,\"error\":{\"y\":1}}"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        json_t *doc = parse(docs[i]);
        for (long n = 1;; n++) {
            struct cm_rule rule;
            struct cm_problems problems;
            cm_problems_init(&problems);
            failing_alloc_arm(n);
            enum cm_status st =
                cm_localstack_compile(&rule, "1", doc, "", 0, &problems);
            bool failed = failing_alloc_disarm();
            if (st == CM_OK)
                cm_rule_fini(&rule);
            if (!failed)
                break;
            assert_int_equal(st, CM_ENOMEM);
        }
        json_decref(doc);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compile_table),
        cmocka_unit_test(test_compile_names_the_place_in_a_list),
        cmocka_unit_test(test_effect_table),
        cmocka_unit_test(test_compile_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
