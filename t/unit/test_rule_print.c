/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a rule is printed as is a document that compiles to the same rule: for
 * every kind of fault and every condition, and with memory running out.
 */
#include "milter/model/inbox_json.h"
#include "milter/model/json.h"
#include "milter/model/rule_json.h"
#include "milter/model/rule_print.h"
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

static void
compile(struct cm_rule *rule, const char *text)
{
    struct cm_problems problems;
    json_t *json = NULL;
    cm_problems_init(&problems);
    if (cm_json_parse(&json, text, strlen(text), NULL) != CM_OK)
        fail_msg("%s", text);
    if (cm_rule_compile(rule, "r1", json, 0, &problems) != CM_OK)
        fail_msg("%s: %s", text, cm_problems_first(&problems));
    json_decref(json);
}

static char *
print(const struct cm_rule *rule)
{
    json_t *json = cm_rule_json(rule);
    size_t len;
    assert_non_null(json);
    char *text = cm_json_dump(json, &len);
    json_decref(json);
    assert_non_null(text);
    return text;
}

static const char *const documents[] = {
    "{\"fault\":{\"kind\":\"error\"}}",
    "{\"fault\":{\"kind\":\"error\",\"code\":550,\"enhanced\":\"5.1.1\","
    "\"text\":[\"100% no\",\"second\"]}}",
    "{\"fault\":{\"kind\":\"error\",\"types\":[\"temporary\",\"permanent\"]}}",
    "{\"fault\":{\"kind\":\"latency\",\"ms\":1500}}",
    "{\"fault\":{\"kind\":\"latency\",\"min\":1,\"max\":60000}}",
    "{\"fault\":{\"kind\":\"latency\",\"median\":200.5,\"sigma\":0.75}}",
    "{\"fault\":{\"kind\":\"drop\"}}",
    "{\"stage\":\"message\",\"fault\":{\"kind\":\"drop\",\"how\":\"fin\","
    "\"outcome\":\"ackLost\"}}",
    "{\"fault\":{\"kind\":\"greylist\",\"retryWindowMs\":5000,\"maxAttempts\":"
    "3,"
    "\"trackBy\":\"ip\",\"minDelayMs\":100}}",
    "{\"fault\":{\"kind\":\"blackhole\",\"triggerWebhooks\":true}}",
    "{\"fault\":{\"kind\":\"throttle\",\"rate\":0.5,\"burst\":10,\"per\":"
    "\"client\",\"code\":421,\"text\":\"slow\"}}",
    "{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 4.7.1 later\",\"ok\","
    "{\"kind\":\"latency\",\"ms\":5}],\"key\":[\"sender\",\"recipient\"],"
    "\"after\":\"repeat\",\"ttlMs\":60000}}",
    "{\"fault\":{\"kind\":\"quarantine\",\"reason\":\"held\"}}",
    "{\"fault\":{\"kind\":\"duplicate\"}}",
    "{\"fault\":{\"kind\":\"misdeliver\",\"to\":\"Other@EXAMPLE.org\"}}",
    "{\"fault\":{\"kind\":\"mutate\",\"truncateBody\":100}}",
    "{\"fault\":{\"kind\":\"mutate\",\"dropHeader\":\"DKIM-Signature\"}}",
    "{\"fault\":{\"kind\":\"mutate\",\"addHeader\":{\"X-A\":\"b\"}}}",
    "{\"fault\":{\"kind\":\"mutate\",\"flipBits\":3}}",
    "{\"stage\":\"helo\",\"fault\":{\"kind\":\"hide\",\"keywords\":"
    "[\"starttls\",\"size\"]}}",
    "{\"enabled\":false,\"mode\":\"shadow\",\"stage\":\"message\","
    "\"inbox\":\"User@EXAMPLE.com\",\"domain\":\"example.COM\","
    "\"sender\":\"<>\",\"client\":\"192.0.2.0/24\",\"helo\":\"*.Example\","
    "\"user\":\"ann\",\"header\":{\"X-Campaign\":\"spring*\",\"To\":\"*\"},"
    "\"size\":{\"gte\":1000},\"attempt\":{\"gte\":2,\"lte\":3},"
    "\"probability\":0.123456789,\"seed\":9223372036854775807,"
    "\"expiresAt\":\"2030-01-01T12:00:00.5Z\",\"maxHits\":100,"
    "\"fault\":{\"kind\":\"error\"}}",
    "{\"client\":\"2001:db8::/32\",\"probability\":0,\"fault\":"
    "{\"kind\":\"error\"}}",
    "{\"stage\":\"auth\",\"mechanism\":\"plain\",\"user\":\"b*\",\"fault\":"
    "{\"kind\":\"error\",\"code\":535}}",
};
#define NDOCUMENTS (sizeof documents / sizeof documents[0])

static void
test_rule_json_compiles_to_the_same_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < NDOCUMENTS; i++) {
        struct cm_rule rule, again;
        compile(&rule, documents[i]);
        char *text = print(&rule);
        compile(&again, text);
        char *twice = print(&again);
        assert_string_equal(text, twice);
        assert_memory_equal(&rule.match.client, &again.match.client,
                            sizeof rule.match.client);
        assert_int_equal(rule.probability_ppb, again.probability_ppb);
        assert_int_equal(rule.seed, again.seed);
        assert_int_equal(rule.expires_at_ms, again.expires_at_ms);
        cm_rule_fini(&rule);
        cm_rule_fini(&again);
        free(text);
        free(twice);
    }
}

static void
test_rule_json_says_every_default(void **state)
{
    static const struct {
        const char *document, *printed;
    } cases[] = {
        {"{\"fault\":{\"kind\":\"error\"}}",
         "{\"id\":\"r1\",\"enabled\":true,\"mode\":\"live\",\"stage\":\"rcpt\","
         "\"probability\":1,\"fault\":{\"kind\":\"error\",\"code\":451,"
         "\"enhanced\":\"4.3.0\",\"text\":[\"Service unavailable\"]}}"},
        {"{\"sender\":\"<>\",\"size\":{\"lte\":5},\"fault\":{\"kind\":"
         "\"blackhole\"}}",
         "{\"id\":\"r1\",\"enabled\":true,\"mode\":\"live\",\"stage\":"
         "\"message\",\"sender\":\"<>\",\"size\":{\"lte\":5},\"probability\":1,"
         "\"fault\":{\"kind\":\"blackhole\",\"triggerWebhooks\":false}}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_rule rule;
        compile(&rule, cases[i].document);
        char *text = print(&rule);
        assert_string_equal(text, cases[i].printed);
        cm_rule_fini(&rule);
        free(text);
    }
}

static void
test_rule_json_of_an_inbox(void **state)
{
    static const char config[] =
        "{\"enabled\":true,\"latency\":{\"enabled\":true},\"connectionDrop\":"
        "{\"enabled\":true},\"randomError\":{\"enabled\":true},\"greylist\":"
        "{\"enabled\":true},\"blackhole\":{\"enabled\":true}}";
    struct cm_inbox *inbox = NULL;
    (void)state;
    assert_int_equal(cm_inbox_compile(&inbox, config, strlen(config), NULL),
                     CM_OK);
    assert_int_equal(inbox->nrules, 5);
    for (size_t i = 0; i < inbox->nrules; i++)
        free(print(&inbox->rules[i]));
    cm_inbox_release(&inbox);
}

/* Whole or not at all: never a rule that lacks a member. */
static void
test_rule_json_without_memory_is_null(void **state)
{
    (void)state;
    for (size_t i = 0; i < NDOCUMENTS; i++) {
        struct cm_rule rule;
        compile(&rule, documents[i]);
        json_t *whole = cm_rule_json(&rule);
        bool failed = true;
        size_t nulls = 0;
        for (long n = 1; failed; n++) {
            failing_alloc_arm(n);
            json_t *json = cm_rule_json(&rule);
            failed = failing_alloc_disarm();
            nulls += json == NULL;
            assert_true(!json || json_equal(json, whole));
            json_decref(json);
        }
        assert_true(nulls > 5);
        json_decref(whole);
        cm_rule_fini(&rule);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule_json_compiles_to_the_same_rule),
        cmocka_unit_test(test_rule_json_says_every_default),
        cmocka_unit_test(test_rule_json_of_an_inbox),
        cmocka_unit_test(test_rule_json_without_memory_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
