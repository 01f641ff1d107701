/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/model/glob.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name, *pattern, *text;
    bool match;
} cases[] = {
    {"equal", "abc", "abc", true},
    {"shorter text", "abc", "ab", false},
    {"longer text", "abc", "abcd", false},
    {"both empty", "", "", true},
    {"empty pattern", "", "a", false},
    {"star alone, empty text", "*", "", true},
    {"star alone", "*", "anything", true},
    {"stars", "***", "x", true},
    {"star in front", "*@example.com", "a@example.com", true},
    {"star in front, empty run", "*@example.com", "@example.com", true},
    {"star in front, other end", "*@example.com", "a@example.org", false},
    {"star at the end", "spring*", "spring sale", true},
    {"star in the middle", "a*c", "abbbc", true},
    {"star must give back", "a*bc", "abbcbc", true},
    {"star gives all back and fails", "a*bc", "abbcb", false},
    {"two stars", "*a*b", "xxaxxb", true},
    {"last star takes the last chance", "*ab", "aab", true},
    {"question mark", "a?c", "abc", true},
    {"question mark is not nothing", "a?c", "ac", false},
    {"question mark is one byte, not one letter", "?", "\xc3\xbc", false},
    {"question marks", "??", "\xc3\xbc", true},
    {"star then question mark", "*?", "", false},
    {"no classes", "[ab]", "a", false},
    {"brackets are themselves", "[ab]", "[ab]", true},
    {"no escapes", "\\*", "*", false},
    {"backslash is itself", "\\*", "\\x", true},
    {"a star in the text is a byte", "a*", "a*b", true},
    {"percent and braces", "{%n}*", "{%n}x", true},
    {"case counts", "ABC", "abc", false},
};

static void
test_glob_match_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cm_glob_match(cases[i].pattern, cases[i].text) != cases[i].match)
            fail_msg("%s: \"%s\" on \"%s\"", cases[i].name, cases[i].pattern,
                     cases[i].text);
    }
}

static void
test_glob_match_nocase_folds_the_text_alone(void **state)
{
    (void)state;
    assert_true(cm_glob_match_nocase("mx*.example", "MX1.Example"));
    assert_true(cm_glob_match_nocase("i", "I"));
    assert_false(cm_glob_match_nocase("MX*", "mx1"));
    assert_false(cm_glob_match_nocase("\xc3\xa4", "\xc3\x84"));
}

/* Exponential matchers take longer than the universe has for this. */
static void
test_glob_match_hostile_pattern_is_quick(void **state)
{
    char pattern[401] = "", text[5001];
    (void)state;
    for (int i = 0; i < 200; i++)
        strcat(pattern, "*a");
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_true(cm_glob_match(pattern, text));
    text[sizeof text - 2] = 'b';
    clock_t before = clock();
    assert_false(cm_glob_match(pattern, text));
    assert_true(clock() - before < CLOCKS_PER_SEC);
}

static void
test_glob_is_pattern_knows_wildcards(void **state)
{
    (void)state;
    assert_true(cm_glob_is_pattern("*@x"));
    assert_true(cm_glob_is_pattern("a?@x"));
    assert_false(cm_glob_is_pattern("[a]@x"));
    assert_false(cm_glob_is_pattern(""));
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glob_match_table),
        cmocka_unit_test(test_glob_match_nocase_folds_the_text_alone),
        cmocka_unit_test(test_glob_match_hostile_pattern_is_quick),
        cmocka_unit_test(test_glob_is_pattern_knows_wildcards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
