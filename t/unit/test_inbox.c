/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VaultSandbox configurations: what the API answers (normalize), in its very
 * words, and what rules they become (compile). The answers were observed on a
 * VaultSandbox gateway 0.9.1, save what is marked as ours.
 */
#include "milter/model/fault.h"
#include "milter/model/inbox_json.h"
#include "milter/model/json.h"
#include "milter/model/reply.h"
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

#define FULL                                                                   \
    "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":500,"      \
    "\"maxDelayMs\":10000,\"jitter\":true,\"probability\":1},"                 \
    "\"connectionDrop\":{\"enabled\":true,\"probability\":1,"                  \
    "\"graceful\":true},\"randomError\":{\"enabled\":true,\"errorRate\":0.1,"  \
    "\"errorTypes\":[\"temporary\"]},\"greylist\":{\"enabled\":true,"          \
    "\"retryWindowMs\":300000,\"maxAttempts\":2,\"trackBy\":\"ip_sender\"},"   \
    "\"blackhole\":{\"enabled\":true,\"triggerWebhooks\":false}}"

static const struct {
    const char *name, *in, *out;
} answers[] = {
    {"only enabled", "{\"enabled\":true}", "{\"enabled\":true}"},
    {"all defaults, in order",
     "{\"blackhole\":{\"enabled\":true},\"greylist\":{\"enabled\":true},"
     "\"randomError\":{\"enabled\":true},\"connectionDrop\":{\"enabled\":true},"
     "\"latency\":{\"enabled\":true},\"enabled\":true}",
     FULL},
    {"the full answer again", FULL, FULL},
    {"null is absent",
     "{\"enabled\":false,\"expiresAt\":null,\"latency\":null,"
     "\"blackhole\":{\"enabled\":false,\"triggerWebhooks\":null},"
     "\"seed\":null,\"description\":null}",
     "{\"enabled\":false,\"blackhole\":{\"enabled\":false,"
     "\"triggerWebhooks\":false}}"},
    {"disabled keeps the rest",
     "{\"enabled\":false,\"latency\":{\"enabled\":false,\"minDelayMs\":7}}",
     "{\"enabled\":false,\"latency\":{\"enabled\":false,\"minDelayMs\":7,"
     "\"maxDelayMs\":10000,\"jitter\":true,\"probability\":1}}"},
    {"min above max is taken",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":5000,"
     "\"maxDelayMs\":100}}",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":5000,"
     "\"maxDelayMs\":100,\"jitter\":true,\"probability\":1}}"},
    {"zeros are values",
     "{\"enabled\":true,\"latency\":{\"enabled\":false,\"minDelayMs\":0,"
     "\"maxDelayMs\":0,\"jitter\":false,\"probability\":0},"
     "\"randomError\":{\"enabled\":false,\"errorRate\":0,\"errorTypes\":[]},"
     "\"greylist\":{\"enabled\":true,\"retryWindowMs\":0}}",
     "{\"enabled\":true,\"latency\":{\"enabled\":false,\"minDelayMs\":0,"
     "\"maxDelayMs\":0,\"jitter\":false,\"probability\":0},"
     "\"randomError\":{\"enabled\":false,\"errorRate\":0,\"errorTypes\":[]},"
     "\"greylist\":{\"enabled\":true,\"retryWindowMs\":0,\"maxAttempts\":2,"
     "\"trackBy\":\"ip_sender\"}}"},
    {"1.0 is 1, -0.0 is 0, 1e3 is 1000",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":-0.0,"
     "\"maxDelayMs\":1e3,\"probability\":1.0}}",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0,"
     "\"maxDelayMs\":1000,\"jitter\":true,\"probability\":1}}"},
    {"fractions stay",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0.5,"
     "\"maxDelayMs\":59999.9,\"probability\":1e-9}}",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0.5,"
     "\"maxDelayMs\":59999.9,\"jitter\":true,\"probability\":1e-9}}"},
    {"a huge window",
     "{\"enabled\":true,\"greylist\":{\"enabled\":true,"
     "\"retryWindowMs\":1e300,\"maxAttempts\":9223372036854775807}}",
     "{\"enabled\":true,\"greylist\":{\"enabled\":true,"
     "\"retryWindowMs\":1e300,\"maxAttempts\":9.22337203685478e18,"
     "\"trackBy\":\"ip_sender\"}}"},
    {"past expiry, verbatim",
     "{\"enabled\":true,\"expiresAt\":\"2001-01-01T00:00:00.1+01:00\"}",
     "{\"enabled\":true,\"expiresAt\":\"2001-01-01T00:00:00.1+01:00\"}"},
    {"error types keep their order",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,"
     "\"errorTypes\":[\"permanent\",\"temporary\"]}}",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":0.1,"
     "\"errorTypes\":[\"permanent\",\"temporary\"]}}"},
    {"ours: seed, description and stages",
     "{\"description\":\"caf\xc3\xa9\",\"seed\":9223372036854775807,"
     "\"enabled\":true,\"latency\":{\"stage\":\"rcpt\",\"enabled\":true},"
     "\"greylist\":{\"stage\":\"message\",\"enabled\":true}}",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":500,"
     "\"maxDelayMs\":10000,\"jitter\":true,\"probability\":1,"
     "\"stage\":\"rcpt\"},\"greylist\":{\"enabled\":true,"
     "\"retryWindowMs\":300000,\"maxAttempts\":2,\"trackBy\":\"ip_sender\","
     "\"stage\":\"message\"},\"seed\":9223372036854775807,"
     "\"description\":\"caf\xc3\xa9\"}"},
    {"ours: one reply instead of a draw",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,"
     "\"text\":\"100% full\",\"code\":452}}",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":0.1,"
     "\"errorTypes\":[\"temporary\"],\"code\":452,\"text\":\"100% full\"}}"},
};

static json_t *
parse(const char *text)
{
    json_t *json = NULL;
    struct cm_err err;
    if (cm_json_parse(&json, text, strlen(text), &err) != CM_OK)
        fail_msg("%s: %s", text, err.msg);
    return json;
}

static void
test_inbox_normalize_good_gives_canonical_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct cm_problems problems;
        json_t *in = parse(answers[i].in), *out = NULL;
        cm_problems_init(&problems);
        if (cm_inbox_normalize(&out, in, "", &problems) != CM_OK)
            fail_msg("%s: %s", answers[i].name, cm_problems_first(&problems));
        char *text = cm_json_dump(out, NULL);
        if (strcmp(text, answers[i].out) != 0)
            fail_msg("%s: %s", answers[i].name, text);
        free(text);
        json_decref(out);
        json_decref(in);
    }
}

static const struct {
    const char *name, *in;
    const char *sentences; /* joined by "; " */
} refusals[] = {
    {"no enabled", "{}", "enabled must be a boolean value"},
    {"enabled null", "{\"enabled\":null}", "enabled must be a boolean value"},
    {"enabled as a number", "{\"enabled\":1}",
     "enabled must be a boolean value"},
    {"enabled as a string", "{\"enabled\":\"true\"}",
     "enabled must be a boolean value"},
    {"nested enabled", "{\"enabled\":true,\"latency\":{}}",
     "latency.enabled must be a boolean value"},
    {"body an array", "[]", "body must be a JSON object"},
    {"body null", "null", "body must be a JSON object"},
    {"ranges",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":-1,"
     "\"maxDelayMs\":60001,\"probability\":1.0000001}}",
     "latency.minDelayMs must not be less than 0; "
     "latency.maxDelayMs must not be greater than 60000; "
     "latency.probability must not be greater than 1"},
    {"more ranges",
     "{\"enabled\":true,\"connectionDrop\":{\"enabled\":true,"
     "\"probability\":-0.1},\"randomError\":{\"enabled\":true,"
     "\"errorRate\":2},\"greylist\":{\"enabled\":true,\"maxAttempts\":0.5,"
     "\"retryWindowMs\":-5}}",
     "connectionDrop.probability must not be less than 0; "
     "randomError.errorRate must not be greater than 1; "
     "greylist.retryWindowMs must not be less than 0; "
     "greylist.maxAttempts must not be less than 1"},
    {"types",
     "{\"enabled\":true,\"expiresAt\":5,\"latency\":{\"enabled\":true,"
     "\"minDelayMs\":\"5\",\"jitter\":\"yes\"}}",
     "expiresAt must be a string; latency.minDelayMs must be a number "
     "conforming to the specified constraints; "
     "latency.jitter must be a boolean value"},
    {"expiresAt in words", "{\"enabled\":true,\"expiresAt\":\"tomorrow\"}",
     "expiresAt must be a valid ISO 8601 date string"},
    {"expiresAt empty", "{\"enabled\":true,\"expiresAt\":\"\"}",
     "expiresAt must be a valid ISO 8601 date string"},
    {"choices",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,"
     "\"errorTypes\":[\"temporary\",\"fatal\"]},\"greylist\":{"
     "\"enabled\":true,\"trackBy\":\"host\"}}",
     "randomError.each value in errorTypes must be one of the following "
     "values: temporary, permanent; greylist.trackBy must be one of the "
     "following values: ip, sender, ip_sender"},
    {"errorTypes no array",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,"
     "\"errorTypes\":\"temporary\"}}",
     "randomError.errorTypes must be an array"},
    {"unknown members first, nested ones in their place",
     "{\"foo\":1,\"enabled\":5,\"bar\":null,\"latency\":{\"enabled\":true,"
     "\"foo\":1,\"minDelayMs\":-1},\"blackhole\":{\"enabled\":0}}",
     "property foo should not exist; property bar should not exist; "
     "enabled must be a boolean value; latency.property foo should not exist; "
     "latency.minDelayMs must not be less than 0; "
     "blackhole.enabled must be a boolean value"},
    {"a part that is no object",
     "{\"enabled\":true,\"latency\":5,\"greylist\":\"on\","
     "\"blackhole\":true}",
     "nested property latency must be either object or array; "
     "nested property greylist must be either object or array; "
     "nested property blackhole must be either object or array"},
    {"ours: a part that is an array", "{\"enabled\":true,\"latency\":[]}",
     "latency must be an object"},
    {"ours: seed", "{\"enabled\":true,\"seed\":-1}",
     "seed must not be less than 0"},
    {"H7 seed 1.0", "{\"enabled\":true,\"seed\":1.0}",
     "seed must be an integer number"},
    {"ours: stage",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"stage\":\"mail\"},"
     "\"randomError\":{\"enabled\":true,\"stage\":\"quit\"},"
     "\"greylist\":{\"enabled\":true,\"stage\":\"data\"}}",
     "latency.stage must be one of the following values: rcpt, data, message; "
     "randomError.stage must be one of the following values: rcpt, data, "
     "message; greylist.stage must be one of the following values: rcpt, "
     "message"},
    {"ours: a code that SMTP has not",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"code\":399,"
     "\"text\":\"no\"}}",
     "randomError.code must not be less than 400"},
    {"ours: a text alone",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"text\":\"no\"}}",
     "randomError.text must come with a code"},
    {"H1 a second reply in the text",
     "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"code\":451,"
     "\"text\":\"x\\r\\n250 ok\"}}",
     "randomError.text must be printable ASCII without line breaks"},
    {"a name that is not ASCII",
     "{\"enabled\":true,\"\xc3\xbc\\r\\n250 ok\":1}",
     "property ????250 ok should not exist"},
};

static void
join(const struct cm_problems *problems, char out[2048])
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < problems->n; i++)
        n += (size_t)snprintf(out + n, 2048 - n, "%s%s", i > 0 ? "; " : "",
                              problems->at[i].text);
}

static void
test_inbox_normalize_bad_tells_every_fault_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct cm_problems problems;
        char sentences[2048];
        json_t *in = parse(refusals[i].in), *out = NULL;
        cm_problems_init(&problems);
        enum cm_status status = cm_inbox_normalize(&out, in, "", &problems);
        join(&problems, sentences);
        if (status != CM_EINVAL || out ||
            strcmp(sentences, refusals[i].sentences) != 0)
            fail_msg("%s: %s", refusals[i].name, sentences);
        json_decref(in);
    }
}

static void
test_inbox_normalize_prefix_goes_before_path_and_sentence(void **state)
{
    struct cm_problems problems;
    json_t *in = parse("{\"foo\":1,\"latency\":{\"enabled\":true,\"x\":1,"
                       "\"minDelayMs\":-1},\"greylist\":7}");
    json_t *five = json_integer(5), *list = json_array(), *out = NULL;
    char sentences[2048];
    (void)state;
    cm_problems_init(&problems);
    assert_int_equal(cm_inbox_normalize(&out, in, "chaos.", &problems),
                     CM_EINVAL);
    join(&problems, sentences);
    assert_string_equal(
        sentences,
        "chaos.property foo should not exist; chaos.enabled must be a boolean "
        "value; chaos.latency.property x should not exist; "
        "chaos.latency.minDelayMs must not be less than 0; chaos.nested "
        "property greylist must be either object or array");
    assert_string_equal(problems.at[2].path, "chaos.latency.x");
    assert_string_equal(problems.at[3].path, "chaos.latency.minDelayMs");

    cm_problems_init(&problems);
    assert_int_equal(cm_inbox_normalize(&out, five, "chaos.", &problems),
                     CM_EINVAL);
    assert_string_equal(problems.at[0].path, "chaos");
    assert_string_equal(problems.at[0].text,
                        "nested property chaos must be either object or array");
    cm_problems_init(&problems);
    assert_int_equal(cm_inbox_normalize(&out, list, "chaos.", &problems),
                     CM_EINVAL);
    assert_string_equal(problems.at[0].text, "chaos must be an object");
    assert_null(out);
    json_decref(list);
    json_decref(five);
    json_decref(in);
}

static void
test_inbox_normalize_description_counts_characters(void **state)
{
    struct cm_problems problems;
    json_t *in = parse("{\"enabled\":true}"), *out = NULL;
    char *text = malloc(2 * 8193 + 1);
    (void)state;
    assert_non_null(text);
    for (int i = 0; i < 8193; i++)
        memcpy(text + 2 * i, "\xc3\xbc", 3);
    json_object_set_new(in, "description", json_string(text + 2));
    cm_problems_init(&problems);
    assert_int_equal(cm_inbox_normalize(&out, in, "", &problems), CM_OK);
    json_decref(out);
    out = NULL;
    json_object_set_new(in, "description", json_string(text));
    assert_int_equal(cm_inbox_normalize(&out, in, "", &problems), CM_EINVAL);
    assert_string_equal(cm_problems_first(&problems),
                        "description must be shorter than or equal to 8192 "
                        "characters");
    free(text);
    json_decref(in);
}

/* More faults than the list holds are counted, not lost or overrun. */
static void
test_inbox_normalize_many_faults_are_counted(void **state)
{
    struct cm_problems problems;
    json_t *in = parse("{\"enabled\":true}"), *out = NULL;
    (void)state;
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        json_object_set_new(in, name, json_true());
    }
    cm_problems_init(&problems);
    assert_int_equal(cm_inbox_normalize(&out, in, "", &problems), CM_EINVAL);
    assert_int_equal(problems.n, CM_PROBLEMS_MAX);
    assert_int_equal(problems.dropped, 100 - CM_PROBLEMS_MAX);
    json_decref(in);
}

/* --- compile --- */

static struct cm_inbox *
compile(const char *doc)
{
    struct cm_inbox *inbox = NULL;
    struct cm_err err;
    if (cm_inbox_compile(&inbox, doc, strlen(doc), &err) != CM_OK)
        fail_msg("%s: %s", doc, err.msg);
    return inbox;
}

static void
test_inbox_compile_rules_come_in_order_of_priority(void **state)
{
    static const char *const ids[] = {"drop", "greylist", "randomError",
                                      "blackhole", "latency"};
    static const enum cm_stage stages[] = {CM_STAGE_MESSAGE, CM_STAGE_RCPT,
                                           CM_STAGE_RCPT, CM_STAGE_MESSAGE,
                                           CM_STAGE_MESSAGE};
    struct cm_inbox *inbox = compile(FULL);
    (void)state;
    assert_int_equal(inbox->nrules, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(inbox->rules[i].id, ids[i]);
        assert_int_equal(inbox->rules[i].stage, stages[i]);
        assert_true(inbox->rules[i].enabled);
        assert_false(inbox->rules[i].seeded);
        assert_int_equal(inbox->rules[i].mode, CM_RULE_LIVE);
    }
    const struct cm_rule *r = inbox->rules;
    assert_int_equal(r[0].fault.u.drop.how, CM_DROP_FIN);
    assert_int_equal(r[0].fault.u.drop.outcome, CM_DROP_LOST);
    assert_int_equal(r[1].fault.u.greylist.window_ms, 300000);
    assert_int_equal(r[1].fault.u.greylist.max_attempts, 2);
    assert_int_equal(r[1].fault.u.greylist.track, CM_TRACK_IP_SENDER);
    assert_int_equal(r[2].probability_ppb, 100000000);
    assert_int_equal(r[2].fault.u.error.types, CM_REPLY_TEMPORARY);
    assert_null(r[2].fault.u.error.reply);
    assert_false(r[3].fault.u.blackhole.webhooks);
    assert_int_equal(r[4].fault.u.latency.kind, CM_DELAY_UNIFORM);
    assert_int_equal(r[4].fault.u.latency.min_ms, 500);
    assert_int_equal(r[4].fault.u.latency.max_ms, 10000);
    assert_string_equal(inbox->doc, FULL);
    assert_int_equal(inbox->doc_len, strlen(FULL));
    assert_int_equal(cm_inbox_stages(inbox),
                     CM_STAGE_BIT(CM_STAGE_RCPT) |
                         CM_STAGE_BIT(CM_STAGE_MESSAGE));
    cm_inbox_release(&inbox);
}

static const struct {
    const char *name, *doc;
    enum cm_delay_kind kind;
    int64_t min_ms, max_ms;
} delays[] = {
    {"no jitter is the maximum",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"jitter\":false}}",
     CM_DELAY_FIXED, 10000, 10000},
    {"min above max is the maximum",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":200,"
     "\"maxDelayMs\":100}}",
     CM_DELAY_FIXED, 100, 100},
    {"min beyond all bounds",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":1e300,"
     "\"maxDelayMs\":60000}}",
     CM_DELAY_FIXED, 60000, 60000},
    {"fractions round to the nearest",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0.4,"
     "\"maxDelayMs\":1.5}}",
     CM_DELAY_UNIFORM, 0, 2},
    {"zeros",
     "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0,"
     "\"maxDelayMs\":0}}",
     CM_DELAY_FIXED, 0, 0},
};

static void
test_inbox_compile_latency_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof delays / sizeof *delays; i++) {
        struct cm_inbox *inbox = compile(delays[i].doc);
        const struct cm_fault_latency *l = &inbox->rules[0].fault.u.latency;
        if (l->kind != delays[i].kind || l->min_ms != delays[i].min_ms ||
            l->max_ms != delays[i].max_ms)
            fail_msg("%s: %lld..%lld", delays[i].name, (long long)l->min_ms,
                     (long long)l->max_ms);
        cm_inbox_release(&inbox);
    }
}

static void
test_inbox_compile_what_it_was_told(void **state)
{
    struct cm_inbox *inbox = compile(
        "{\"enabled\":true,\"expiresAt\":\"2026-01-31T12:00:00Z\",\"seed\":42,"
        "\"latency\":{\"enabled\":true,\"stage\":\"data\"},"
        "\"connectionDrop\":{\"enabled\":true,\"graceful\":false,"
        "\"probability\":0.25},\"randomError\":{\"enabled\":true,"
        "\"errorTypes\":[\"permanent\",\"temporary\"],\"stage\":\"message\"},"
        "\"greylist\":{\"enabled\":true,\"maxAttempts\":2.1,"
        "\"retryWindowMs\":1e300,\"trackBy\":\"sender\","
        "\"stage\":\"message\"},\"blackhole\":{\"enabled\":true,"
        "\"triggerWebhooks\":true}}");
    const struct cm_rule *r = inbox->rules;
    (void)state;
    assert_int_equal(r[0].fault.u.drop.how, CM_DROP_RST);
    assert_int_equal(r[0].probability_ppb, 250000000);
    assert_int_equal(r[1].fault.u.greylist.max_attempts, 3);
    assert_true(r[1].fault.u.greylist.window_ms == CM_FAULT_WINDOW_MAX_MS);
    assert_int_equal(r[1].fault.u.greylist.track, CM_TRACK_SENDER);
    assert_int_equal(r[1].stage, CM_STAGE_MESSAGE);
    assert_int_equal(r[2].fault.u.error.types,
                     CM_REPLY_TEMPORARY | CM_REPLY_PERMANENT);
    assert_int_equal(r[2].stage, CM_STAGE_MESSAGE);
    assert_true(r[3].fault.u.blackhole.webhooks);
    assert_int_equal(r[4].stage, CM_STAGE_DATA);
    for (size_t i = 0; i < 5; i++) {
        assert_true(r[i].seeded);
        assert_int_equal(r[i].seed, 42);
    }
    assert_true(cm_inbox_active(inbox, 1769860799999));
    assert_false(cm_inbox_active(inbox, 1769860800000));
    cm_inbox_release(&inbox);
}

static void
test_inbox_compile_track_by_table(void **state)
{
    static const struct {
        const char *name, *doc;
        enum cm_track track;
    } cases[] = {
        {"ip",
         "{\"enabled\":true,\"greylist\":{\"enabled\":true,"
         "\"trackBy\":\"ip\"}}",
         CM_TRACK_IP},
        {"sender",
         "{\"enabled\":true,\"greylist\":{\"enabled\":true,"
         "\"trackBy\":\"sender\"}}",
         CM_TRACK_SENDER},
        {"both", "{\"enabled\":true,\"greylist\":{\"enabled\":true}}",
         CM_TRACK_IP_SENDER},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_inbox *inbox = compile(cases[i].doc);
        if (inbox->rules[0].fault.u.greylist.track != cases[i].track)
            fail_msg("%s", cases[i].name);
        cm_inbox_release(&inbox);
    }
}

static void
test_inbox_compile_empty_error_types_are_temporary(void **state)
{
    struct cm_inbox *inbox =
        compile("{\"enabled\":true,\"randomError\":{\"enabled\":true,"
                "\"errorTypes\":[]}}");
    (void)state;
    assert_int_equal(inbox->rules[0].fault.u.error.types, CM_REPLY_TEMPORARY);
    cm_inbox_release(&inbox);
}

static void
test_inbox_compile_code_gives_one_reply(void **state)
{
    struct cm_inbox *inbox =
        compile("{\"enabled\":true,\"randomError\":{\"enabled\":true,"
                "\"code\":550,\"text\":\"100% full\"}}");
    const struct cm_reply *reply = inbox->rules[0].fault.u.error.reply;
    (void)state;
    assert_non_null(reply);
    assert_int_equal(reply->code, 550);
    assert_string_equal(reply->enhanced, "5.3.0");
    assert_string_equal(reply->wire[0], "100%% full");
    cm_inbox_release(&inbox);
}

static void
test_inbox_active_only_when_something_can_hurt(void **state)
{
    static const struct {
        const char *name, *doc;
        bool active;
    } cases[] = {
        {"never set", "{\"enabled\":false}", false},
        {"enabled, no part", "{\"enabled\":true}", false},
        {"enabled, part disabled",
         "{\"enabled\":true,\"latency\":{\"enabled\":false}}", false},
        {"disabled, part enabled",
         "{\"enabled\":false,\"latency\":{\"enabled\":true}}", false},
        {"both enabled", "{\"enabled\":true,\"latency\":{\"enabled\":true}}",
         true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_inbox *inbox = compile(cases[i].doc);
        if (cm_inbox_active(inbox, 0) != cases[i].active ||
            (cm_inbox_stages(inbox) != 0) != cases[i].active)
            fail_msg("%s", cases[i].name);
        cm_inbox_release(&inbox);
    }
    assert_false(cm_inbox_active(NULL, 0));
    assert_int_equal(cm_inbox_stages(NULL), 0);
}

static void
test_inbox_compile_bad_document_says_why(void **state)
{
    static const struct {
        const char *name, *doc, *message;
    } cases[] = {
        {"R12 cut off", "{\"enabled\":tr",
         "line 1 column 13: invalid token near 'tr'"},
        {"R12 not an object", "[true]", "body must be a JSON object"},
        {"R12 a string", "\"x\"", "body must be a JSON object"},
        {"R12 wrong type", "{\"enabled\":\"yes\"}",
         "enabled must be a boolean value"},
        {"R12 unknown member", "{\"enabled\":true,\"chaos\":1}",
         "property chaos should not exist"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_inbox *inbox = NULL;
        struct cm_err err = {.msg = ""};
        enum cm_status status =
            cm_inbox_compile(&inbox, cases[i].doc, strlen(cases[i].doc), &err);
        if (status != CM_EINVAL || inbox ||
            strcmp(err.msg, cases[i].message) != 0)
            fail_msg("%s: %s", cases[i].name, err.msg);
    }
}

/* R11 */
static void
test_inbox_compile_document_has_a_limit(void **state)
{
    struct cm_inbox *inbox = NULL;
    struct cm_err err;
    char *doc = malloc(CM_INBOX_DOC_MAX + 2);
    (void)state;
    assert_non_null(doc);
    memset(doc, ' ', CM_INBOX_DOC_MAX + 1);
    memcpy(doc, "{\"enabled\":true}", 16);
    assert_int_equal(cm_inbox_compile(&inbox, doc, CM_INBOX_DOC_MAX, &err),
                     CM_OK);
    cm_inbox_release(&inbox);
    assert_int_equal(cm_inbox_compile(&inbox, doc, CM_INBOX_DOC_MAX + 1, &err),
                     CM_EINVAL);
    assert_string_equal(err.msg, "document is longer than 65536 bytes");
    free(doc);
}

static void
test_inbox_ref_last_release_frees(void **state)
{
    struct cm_inbox *inbox = compile(FULL), *none = NULL;
    struct cm_inbox *again = cm_inbox_ref(inbox);
    (void)state;
    assert_ptr_equal(inbox, again);
    cm_inbox_release(&inbox);
    assert_null(inbox);
    assert_int_equal(again->nrules, 5); /* still there */
    cm_inbox_release(&again);
    assert_null(cm_inbox_ref(NULL));
    cm_inbox_release(&none);
}

static void
test_inbox_compile_without_memory_is_never_half(void **state)
{
    struct cm_inbox *inbox = NULL;
    enum cm_status status = CM_ENOMEM;
    long n = 1;
    (void)state;
    for (; status != CM_OK; n++) {
        struct cm_err err = {.msg = ""};
        failing_alloc_arm(n);
        status = cm_inbox_compile(&inbox, FULL, strlen(FULL), &err);
        bool failed = failing_alloc_disarm();
        assert_int_equal(status, failed ? CM_ENOMEM : CM_OK);
        if (failed) {
            assert_null(inbox);
            assert_string_equal(err.msg, "out of memory");
        }
        assert_true(n < 2000);
    }
    assert_true(n > 100);
    assert_int_equal(inbox->nrules, 5);
    cm_inbox_release(&inbox);
}

static void
test_inbox_normalize_without_memory_is_never_half(void **state)
{
    json_t *in = parse(FULL), *out = NULL;
    enum cm_status status = CM_ENOMEM;
    (void)state;
    for (long n = 1; status != CM_OK; n++) {
        struct cm_problems problems;
        cm_problems_init(&problems);
        failing_alloc_arm(n);
        status = cm_inbox_normalize(&out, in, "", &problems);
        bool failed = failing_alloc_disarm();
        assert_int_equal(status, failed ? CM_ENOMEM : CM_OK);
        assert_int_equal(problems.n, 0);
        if (failed)
            assert_null(out);
    }
    json_decref(out);
    json_decref(in);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inbox_normalize_good_gives_canonical_answer),
        cmocka_unit_test(test_inbox_normalize_bad_tells_every_fault_in_order),
        cmocka_unit_test(
            test_inbox_normalize_prefix_goes_before_path_and_sentence),
        cmocka_unit_test(test_inbox_normalize_description_counts_characters),
        cmocka_unit_test(test_inbox_normalize_many_faults_are_counted),
        cmocka_unit_test(test_inbox_compile_rules_come_in_order_of_priority),
        cmocka_unit_test(test_inbox_compile_latency_table),
        cmocka_unit_test(test_inbox_compile_what_it_was_told),
        cmocka_unit_test(test_inbox_compile_track_by_table),
        cmocka_unit_test(test_inbox_compile_empty_error_types_are_temporary),
        cmocka_unit_test(test_inbox_compile_code_gives_one_reply),
        cmocka_unit_test(test_inbox_active_only_when_something_can_hurt),
        cmocka_unit_test(test_inbox_compile_bad_document_says_why),
        cmocka_unit_test(test_inbox_compile_document_has_a_limit),
        cmocka_unit_test(test_inbox_ref_last_release_frees),
        cmocka_unit_test(test_inbox_compile_without_memory_is_never_half),
        cmocka_unit_test(test_inbox_normalize_without_memory_is_never_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
