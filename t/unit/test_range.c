/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/range.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void
test_range_good_patterns(void **state)
{
    static const struct {
        const char *pattern, *first, *last;
        int64_t count;
    } cases[] = {
        {"load-{0001..1000}@example.com", "load-0001@example.com",
         "load-1000@example.com", 1000},
        {"u{1..12}@x", "u1@x", "u12@x", 12},
        {"u{7..7}@x", "u7@x", "u7@x", 1},
        {"u{00..3}@x", "u00@x", "u03@x", 4},
        {"u{08..1000}@x", "u08@x", "u1000@x", 993},
        {"{0..0}", "0", "0", 1},
        {"a@{1..2}.example", "a@1.example", "a@2.example", 2},
        {"%s{1..2}%n", "%s1%n", "%s2%n", 2},
        {"u{000000000..999999999}@x", "u000000000@x", "u999999999@x",
         1000000000},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_range_pattern range;
        char text[64];
        if (cm_range_parse(&range, cases[i].pattern, NULL) != CM_OK)
            fail_msg("%s", cases[i].pattern);
        assert_int_equal(range.last - range.first + 1, cases[i].count);
        assert_true(cm_range_print(&range, range.first, text, sizeof text));
        assert_string_equal(text, cases[i].first);
        assert_true(cm_range_print(&range, range.last, text, sizeof text));
        assert_string_equal(text, cases[i].last);
    }
}

static void
test_range_bad_patterns(void **state)
{
    static const char *const cases[] = {
        "",           "a@x",     "{}",      "{1}",          "{1..}",
        "{..2}",      "{1.2}",   "{1...2}", "{2..1}",       "{a..b}",
        "{-1..2}",    "{1..2",   "1..2}",   "{1..2}{3..4}", "{1..2}}",
        "{{1..2}}",   "{ 1..2}", "{1..2 }", "{0x1..2}",     "{1..1234567890}",
        "{1..2,3}@x", "}{1..2",
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_range_pattern range;
        struct cm_err err = {CM_OK, ""};
        if (cm_range_parse(&range, cases[i], &err) != CM_EINVAL)
            fail_msg("%s", cases[i]);
        assert_true(err.msg[0] != '\0');
    }
}

static void
test_range_print_too_long_says_so(void **state)
{
    struct cm_range_pattern range;
    char text[8];
    (void)state;
    assert_int_equal(cm_range_parse(&range, "abcdef{9..10}", NULL), CM_OK);
    assert_true(cm_range_print(&range, 9, text, sizeof text));
    assert_false(cm_range_print(&range, 10, text, sizeof text));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range_good_patterns),
        cmocka_unit_test(test_range_bad_patterns),
        cmocka_unit_test(test_range_print_too_long_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
