/* SPDX-License-Identifier: BSD-2-Clause */
/* What is kept of a message, and what is not: sizes, headers, bodies. */
#include "milter/filter/content.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
set_up(void **state)
{
    static struct cm_content content;
    cm_content_init(&content);
    *state = &content;
    return 0;
}

static int
tear_down(void **state)
{
    cm_content_fini(*state);
    return 0;
}

static bool
take_body(struct cm_content *content, const char *text, int64_t wanted)
{
    return cm_content_body(content, (const unsigned char *)text, strlen(text),
                           wanted);
}

static void
test_declare_finds_the_size(void **state)
{
    static const struct {
        const char *name;
        const char *parameters[4];
        int64_t bytes;
    } cases[] = {
        {"none", {NULL}, -1},
        {"alone", {"SIZE=1000", NULL}, 1000},
        {"among others", {"BODY=8BITMIME", "size=7", "SMTPUTF8", NULL}, 7},
        {"zero", {"SIZE=0", NULL}, 0},
        {"nothing", {"SIZE=", NULL}, -1},
        {"sign", {"SIZE=-1", NULL}, -1},
        {"plus", {"SIZE=+1", NULL}, -1},
        {"tail", {"SIZE=10k", NULL}, -1},
        {"twenty digits", {"SIZE=99999999999999999999", NULL}, -1},
        {"18 digits", {"SIZE=999999999999999999", NULL}, 999999999999999999},
        {"another name", {"SIZEX=10", "SIZ", "", NULL}, -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_content content;
        cm_content_init(&content);
        cm_content_declare(&content, cases[i].parameters);
        if (content.declared_bytes != cases[i].bytes)
            fail_msg("%s: %lld", cases[i].name,
                     (long long)content.declared_bytes);
        cm_content_fini(&content);
    }
}

static void
test_size_is_that_on_the_wire(void **state)
{
    struct cm_content *content = *state;
    static const char wire[] = "From: a@example.com\r\n"
                               "Subject: folded\r\n over\r\n\tlines\r\n"
                               "\r\n"
                               "Hello.\r\n";
    cm_content_header(content, "From", "a@example.com", false);
    cm_content_header(content, "Subject", "folded\n over\n\tlines", true);
    assert_true(take_body(content, "Hello.", INT64_MAX));
    assert_true(take_body(content, "\r\n", INT64_MAX));
    assert_int_equal(content->bytes, sizeof wire - 1);
    assert_int_equal(content->body_bytes, 8);
}

static void
test_headers_are_kept_as_wanted_and_unfolded(void **state)
{
    struct cm_content *content = *state;
    cm_content_header(content, "X-Campaign", " spring\r\n\tsale \t", true);
    cm_content_header(content, "Subject", "no", false);
    cm_content_header(content, "x-campaign", "", true);
    cm_content_header(content, "", "no name", true);
    cm_content_header(content, NULL, "NULL", true);
    cm_content_header(content, "X-Campaign", NULL, true);
    assert_int_equal(content->nheaders, 2);
    assert_string_equal(content->headers[0].name, "X-Campaign");
    assert_string_equal(content->headers[0].value, "spring\tsale");
    assert_string_equal(content->headers[1].value, "");
    assert_int_equal(cm_content_count(content, "X-CAMPAIGN"), 2);
    assert_int_equal(cm_content_count(content, "Subject"), 0);
    assert_null(content->headers_lost);
}

/* M2: beyond the ceiling none is known, and the memory is given back. */
static void
test_too_many_headers_are_not_known(void **state)
{
    struct cm_content *content = *state;
    for (int i = 0; i < CM_CONTENT_HEADERS_MAX; i++)
        cm_content_header(content, "X", "y", true);
    assert_int_equal(content->nheaders, CM_CONTENT_HEADERS_MAX);
    assert_null(content->headers_lost);
    for (int i = 0; i < 100000; i++)
        cm_content_header(content, "X", "y", true);
    assert_string_equal(content->headers_lost,
                        "the message has too many headers, or too long ones");
    assert_int_equal(content->nheaders, 0);
    assert_null(content->headers);
    assert_int_equal(content->bytes, 2 + (CM_CONTENT_HEADERS_MAX + 100000) * 6);
}

/* M1 */
static void
test_header_over_the_ceiling_is_not_known(void **state)
{
    struct cm_content *content = *state;
    char *long_value = calloc(1, CM_CONTENT_HEADER_BYTES_MAX + 1);
    assert_non_null(long_value);
    memset(long_value, 'y', CM_CONTENT_HEADER_BYTES_MAX);
    cm_content_header(content, "Y", long_value, false);
    assert_null(content->headers_lost);
    assert_true(content->bytes_lost);
    content->bytes_lost = false;
    long_value[CM_CONTENT_HEADER_BYTES_MAX - 5] = '\0';
    cm_content_header(content, "X", long_value, false);
    assert_false(content->bytes_lost);
    cm_content_header(content, "X", long_value, true);
    assert_int_equal(content->nheaders, 1);
    cm_content_header(content, "Z", "", true);
    assert_non_null(content->headers_lost);
    assert_int_equal(content->nheaders, 0);
    free(long_value);
}

static void
test_body_is_kept_as_far_as_wanted(void **state)
{
    static const struct {
        const char *name;
        int64_t wanted;
        const char *kept;
        bool more[3]; /* after each of the three parts */
    } cases[] = {
        {"nothing", 0, "", {false, false, false}},
        {"less than a part", 3, "Hel", {false, false, false}},
        {"one part", 5, "Hello", {true, false, false}},
        {"across parts", 7, "Hello, ", {true, true, false}},
        {"all", INT64_MAX, "Hello, world", {true, true, true}},
    };
    static const char *const parts[] = {"Hello", ", ", "world"};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_content content;
        cm_content_init(&content);
        for (int p = 0; p < 3; p++)
            if (take_body(&content, parts[p], cases[i].wanted) !=
                cases[i].more[p])
                fail_msg("%s: after part %d", cases[i].name, p);
        if (content.body_len != strlen(cases[i].kept) ||
            (content.body_len > 0 &&
             memcmp(content.body, cases[i].kept, content.body_len) != 0))
            fail_msg("%s: kept %zu", cases[i].name, content.body_len);
        assert_int_equal(content.body_bytes, 12);
        cm_content_fini(&content);
    }
}

/* M3: a gigabyte takes no more than the ceiling. */
static void
test_body_stops_at_the_ceiling(void **state)
{
    struct cm_content *content = *state;
    static unsigned char chunk[65535];
    int64_t sent = 0;
    bool more = true;
    for (; sent < (int64_t)1 << 30; sent += (int64_t)sizeof chunk) {
        more = cm_content_body(content, chunk, sizeof chunk, INT64_MAX);
        assert_true(content->body_cap <= CM_CONTENT_BODY_BYTES_MAX);
    }
    assert_false(more);
    assert_int_equal(content->body_len, CM_CONTENT_BODY_BYTES_MAX);
    assert_int_equal(content->body_bytes, sent);
}

static void
fill(struct cm_content *content)
{
    char name[16];
    cm_content_init(content);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "X-%d", i);
        cm_content_header(content, name, "value", true);
    }
    for (int i = 0; i < 10; i++)
        take_body(content, "Hello, world", INT64_MAX);
}

static void
test_memory_that_fails_is_told_and_lost_is_not_known(void **state)
{
    bool failed = true;
    (void)state;
    for (long n = 1; failed; n++) {
        struct cm_content content;
        failing_alloc_arm(n);
        fill(&content);
        failed = failing_alloc_disarm();
        assert_int_equal(content.no_memory, failed);
        if (content.headers_lost)
            assert_string_equal(content.headers_lost,
                                "no memory for its headers");
        bool whole = content.nheaders == 20 && content.body_len == 120;
        assert_int_equal(whole, !failed);
        assert_int_equal(content.body_bytes, 120);
        cm_content_fini(&content);
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_declare_finds_the_size),
        CASE(test_size_is_that_on_the_wire),
        CASE(test_headers_are_kept_as_wanted_and_unfolded),
        CASE(test_too_many_headers_are_not_known),
        CASE(test_header_over_the_ceiling_is_not_known),
        CASE(test_body_is_kept_as_far_as_wanted),
        CASE(test_body_stops_at_the_ceiling),
        CASE(test_memory_that_fails_is_told_and_lost_is_not_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
