/* SPDX-License-Identifier: BSD-2-Clause */
/* JSON text in and out, and the times within it. */
#include "milter/model/json.h"
#include "milter/model/rfc3339.h"
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

#define IN(s)  (s), sizeof(s) - 1
#define DEEP8  "[[[[[[[["
#define DEEP32 DEEP8 DEEP8 DEEP8 DEEP8
#define END8   "]]]]]]]]"
#define END32  END8 END8 END8 END8

static const struct {
    const char *name, *in;
    size_t len;
    const char *out; /* NULL: refused */
} texts[] = {
    {"object", IN("{\"b\":1,\"a\":[true,null,\"x\"]}"),
     "{\"b\":1,\"a\":[true,null,\"x\"]}"},
    {"white space", IN(" { } \n"), "{}"},
    {"any value at the top", IN("5"), "5"},
    {"real", IN("[0.1,2.5,1.0]"), "[0.1,2.5,1.0]"},
    {"the largest integer", IN("[9223372036854775807]"),
     "[9223372036854775807]"},
    {"32 levels", IN(DEEP32 END32), DEEP32 END32},
    {"brackets in strings are no levels", IN("[\"" DEEP32 "[\\\"[\"]"),
     "[\"" DEEP32 "[\\\"[\"]"},
    {"H5 33 levels", IN(DEEP32 "[" END32 "]"), NULL},
    {"H6 duplicate member", IN("{\"a\":1,\"a\":1}"), NULL},
    {"H6 duplicate by escape", IN("{\"a\":1,\"\\u0061\":1}"), NULL},
    {"H7 NaN", IN("[NaN]"), NULL},
    {"H7 Infinity", IN("[Infinity]"), NULL},
    {"H7 1e309", IN("[1e309]"), NULL},
    {"H7 2^63", IN("[9223372036854775808]"), NULL},
    {"H7 -0", IN("[-0]"), "[0]"},
    {"H7 leading zero", IN("[01]"), NULL},
    {"H8 overlong", IN("[\"\xc0\xaf\"]"), NULL},
    {"H8 surrogate as bytes", IN("[\"\xed\xa0\x80\"]"), NULL},
    {"H8 lone surrogate", IN("[\"\\ud800\"]"), NULL},
    {"H8 u0000", IN("[\"\\u0000\"]"), NULL},
    {"H8 u0000 in a name", IN("{\"a\\u0000\":1}"), NULL},
    {"H8 raw control", IN("[\"a\nb\"]"), NULL},
    {"H8 BOM", IN("\xef\xbb\xbf{}"), NULL},
    {"H8 trailing garbage", IN("{}x"), NULL},
    {"H8 second value", IN("{} {}"), NULL},
    {"H8 NUL", IN("{}\0"), NULL},
    {"R12 cut off", IN("{\"a\":"), NULL},
    {"R12 cut off in a string", IN("{\"a"), NULL},
    {"R12 cut off after a backslash", IN("[\"\\"), NULL},
    {"R12 trailing comma", IN("[1,]"), NULL},
    {"R12 single quotes", IN("{'a':1}"), NULL},
    {"R12 comment", IN("[1]//"), NULL},
    {"R12 empty", IN(""), NULL},
    {"R12 white space alone", IN("  "), NULL},
    {"R12 closing first", IN("]["), NULL},
};

static void
test_json_parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *json = NULL;
        struct cm_err err = {.msg = ""};
        enum cm_status status =
            cm_json_parse(&json, texts[i].in, texts[i].len, &err);
        if (!texts[i].out) {
            if (status != CM_EINVAL || json || strncmp(err.msg, "line ", 5))
                fail_msg("%s: %s", texts[i].name, err.msg);
            continue;
        }
        if (status != CM_OK)
            fail_msg("%s: %s", texts[i].name, err.msg);
        size_t len = 0;
        char *out = cm_json_dump(json, &len);
        assert_non_null(out);
        if (strcmp(out, texts[i].out) != 0 || strlen(out) != len)
            fail_msg("%s: %s", texts[i].name, out);
        free(out);
        json_decref(json);
    }
}

/* H5: as many levels as fit into a body, at once and without a crash. */
static void
test_json_parse_hundred_thousand_levels(void **state)
{
    enum { N = 100000 };
    char *text = malloc(2 * N);
    json_t *json = NULL;
    struct cm_err err;
    (void)state;
    assert_non_null(text);
    memset(text, '[', N);
    memset(text + N, ']', N);
    assert_int_equal(cm_json_parse(&json, text, 2 * N, &err), CM_EINVAL);
    assert_string_equal(err.msg,
                        "line 1 column 33: nested deeper than 32 levels");
    free(text);
}

static void
test_json_parse_error_quotes_no_foreign_bytes(void **state)
{
    json_t *json = NULL;
    struct cm_err err;
    (void)state;
    assert_int_equal(cm_json_parse(&json, IN("[\x1b\xc3\xbc"), &err),
                     CM_EINVAL);
    for (const char *c = err.msg; *c; c++)
        assert_in_range(*c, 0x20, 0x7e);
}

/* The long string makes the lexer grow its token several times: a growth that
 * fails must not lose bytes unseen. */
static void
test_json_parse_without_memory_is_never_half(void **state)
{
    char text[4000];
    json_t *json = NULL;
    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text, "{\"a\":[1,2.5,\"y\"],\"", 18);
    memcpy(text + 2000, "\":\"", 3);
    memcpy(text + sizeof text - 2, "\"}", 2);
    enum cm_status status = CM_ENOMEM;
    long n = 1;
    for (; status != CM_OK; n++) {
        struct cm_err err;
        failing_alloc_arm(n);
        status = cm_json_parse(&json, text, sizeof text, &err);
        bool failed = failing_alloc_disarm();
        assert_int_equal(status, failed ? CM_ENOMEM : CM_OK);
        if (failed)
            assert_null(json);
    }
    assert_true(n > 10);
    size_t len = 0;
    char *out = cm_json_dump(json, &len);
    assert_memory_equal(out, text, sizeof text);
    free(out);
    json_decref(json);
}

static void
test_json_dump_without_memory_is_null(void **state)
{
    json_t *json = json_pack("{s:[i,s]}", "a", 1, "text");
    char *out = NULL;
    (void)state;
    assert_non_null(json);
    for (long n = 1; !out; n++) {
        size_t len = 1;
        failing_alloc_arm(n);
        out = cm_json_dump(json, &len);
        bool failed = failing_alloc_disarm();
        assert_int_equal(out == NULL, failed);
        assert_int_equal(len == 0, failed);
        assert_true(n < 100);
    }
    assert_string_equal(out, "{\"a\":[1,\"text\"]}");
    free(out);
    json_decref(json);
}

static const struct {
    const char *name, *in;
    int64_t ms; /* -1: refused */
} times[] = {
    {"epoch", "1970-01-01T00:00:00Z", 0},
    {"milliseconds", "2026-01-31T12:00:00.123Z", 1769860800123},
    {"nanoseconds are cut", "2026-01-31T12:00:00.123999999Z", 1769860800123},
    {"one digit of a second", "2026-01-31T12:00:00.5Z", 1769860800500},
    {"offset ahead", "2026-01-31T13:30:00+01:30", 1769860800000},
    {"offset behind", "2026-01-31T04:00:00-08:00", 1769860800000},
    {"lower case", "2026-01-31t12:00:00z", 1769860800000},
    {"space", "2026-01-31 12:00:00Z", 1769860800000},
    {"leap second", "2016-12-31T23:59:60Z", 1483228800000},
    {"leap day", "2024-02-29T00:00:00Z", 1709164800000},
    {"leap day of a century", "2000-02-29T00:00:00Z", 951782400000},
    {"end of February", "2026-03-01T00:00:00Z", 1772323200000},
    {"last moment", "9999-12-31T23:59:59.999Z", 253402300799999},
    {"beyond the last moment", "9999-12-31T23:59:59-00:01", -1},
    {"before the first", "1970-01-01T00:00:00+00:01", -1},
    {"1969", "1969-12-31T23:59:59Z", -1},
    {"no leap day", "2026-02-29T00:00:00Z", -1},
    {"no leap day of a century", "2100-02-29T00:00:00Z", -1},
    {"April 31", "2026-04-31T00:00:00Z", -1},
    {"month 13", "2026-13-01T00:00:00Z", -1},
    {"month 0", "2026-00-01T00:00:00Z", -1},
    {"hour 24", "2026-01-31T24:00:00Z", -1},
    {"minute 60", "2026-01-31T12:60:00Z", -1},
    {"second 61", "2026-01-31T12:00:61Z", -1},
    {"no zone", "2026-01-31T12:00:00", -1},
    {"date alone", "2026-01-31", -1},
    {"no colon in the offset", "2026-01-31T12:00:00+0100", -1},
    {"offset of hours", "2026-01-31T12:00:00+24:00", -1},
    {"fraction without digits", "2026-01-31T12:00:00.Z", -1},
    {"more after it", "2026-01-31T12:00:00Zx", -1},
    {"space before it", " 2026-01-31T12:00:00Z", -1},
    {"short year", "26-01-31T12:00:00Z", -1},
    {"words", "tomorrow", -1},
    {"empty", "", -1},
};

static const struct {
    const char *a, *b;
    bool equal;
} pairs[] = {
    {"{\"a\":1,\"b\":[true,null]}", " { \"b\" : [true, null], \"a\" : 1 }",
     true},
    {"{\"a\":{\"x\":1,\"y\":2}}", "{\"a\":{\"y\":2,\"x\":1}}", true},
    {"1", "1.0", true},
    {"100", "1e2", true},
    {"0", "-0.0", true},
    {"9007199254740993", "9007199254740992.0", false},
    {"100000000000000000", "1e17", true},
    {"0.1", "0.10", true},
    {"0.1", "0.2", false},
    {"790071992547400.1", "790071992547400", true}, /* 15 digits */
    {"1e300", "1e299", false},
    {"\"\\u00fc\"", "\"\xc3\xbc\"", true},
    {"\"1\"", "1", false},
    {"\"a\"", "\"A\"", false},
    {"[1,2]", "[2,1]", false},
    {"[]", "{}", false},
    {"null", "false", false},
    {"{\"a\":null}", "{}", false},
};

static void
test_json_canonical_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        json_t *a = NULL, *b = NULL;
        assert_int_equal(
            cm_json_parse(&a, pairs[i].a, strlen(pairs[i].a), NULL), CM_OK);
        assert_int_equal(
            cm_json_parse(&b, pairs[i].b, strlen(pairs[i].b), NULL), CM_OK);
        char *one = cm_json_canonical(a), *two = cm_json_canonical(b);
        if ((strcmp(one, two) == 0) != pairs[i].equal)
            fail_msg("%s and %s: %s %s", pairs[i].a, pairs[i].b, one, two);
        free(one);
        free(two);
        json_decref(a);
        json_decref(b);
    }
}

static void
test_json_canonical_without_memory_is_null(void **state)
{
    const char *text = "{\"b\":[1.0,{\"a\":0.5}],\"a\":\"x\"}";
    json_t *json = NULL;
    (void)state;
    assert_int_equal(cm_json_parse(&json, text, strlen(text), NULL), CM_OK);
    for (long n = 1;; n++) {
        failing_alloc_arm(n);
        char *out = cm_json_canonical(json);
        bool failed = failing_alloc_disarm();
        if (!failed) {
            assert_string_equal(out, "{\"a\":\"x\",\"b\":[1,{\"a\":0.5}]}");
            free(out);
            break;
        }
        assert_null(out);
    }
    json_decref(json);
}

static void
test_time_parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t ms = -1;
        enum cm_status status = cm_time_parse(times[i].in, &ms);
        if (ms != times[i].ms || (status == CM_OK) != (ms >= 0))
            fail_msg("%s: %lld", times[i].name, (long long)ms);
    }
}

static void
test_time_print_reads_back(void **state)
{
    char text[25];
    (void)state;
    cm_time_print(1769860800123, text, sizeof text);
    assert_string_equal(text, "2026-01-31T12:00:00.123Z");
    cm_time_print(-5, text, sizeof text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    cm_time_print(INT64_MAX, text, sizeof text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
    /* Every day of the range, at an odd time. */
    for (int64_t ms = 12345678; ms < 253402300800000; ms += 86400000) {
        int64_t back = 0;
        cm_time_print(ms, text, sizeof text);
        if (cm_time_parse(text, &back) != CM_OK || back != ms)
            fail_msg("%lld is %s", (long long)ms, text);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_parse_table),
        cmocka_unit_test(test_json_parse_hundred_thousand_levels),
        cmocka_unit_test(test_json_parse_error_quotes_no_foreign_bytes),
        cmocka_unit_test(test_json_parse_without_memory_is_never_half),
        cmocka_unit_test(test_json_dump_without_memory_is_null),
        cmocka_unit_test(test_json_canonical_table),
        cmocka_unit_test(test_json_canonical_without_memory_is_null),
        cmocka_unit_test(test_time_parse_table),
        cmocka_unit_test(test_time_print_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
