/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The request target, as data: what was sent and what its segments and
 * parameters must be; and the round trip that matters, from any valid address
 * through a URL to the same key.
 */
#include "admin/target.h"
#include "milter/model/address.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENTS 4

static void
test_parse_good_target_gives_segments(void **state)
{
    static const struct {
        const char *raw;
        const char *segment[SEGMENTS];
        size_t n;
    } cases[] = {
        {"/", {""}, 1},
        {"/livez", {"livez"}, 1},
        {"/a/b/c", {"a", "b", "c"}, 3},
        {"/a/", {"a", ""}, 2},
        {"//a", {"", "a"}, 2},
        {"/a//b", {"a", "", "b"}, 3},
        {"/a%2Fb", {"a/b"}, 1},
        {"/a%2fb%40x/c", {"a/b@x", "c"}, 2},
        {"/a@b", {"a@b"}, 1},
        {"/a+b%2Bc", {"a+b+c"}, 1},
        {"/%252e", {"%2e"}, 1},
        {"/%2e%2e/..", {"..", ".."}, 2},
        {"/%25", {"%"}, 1},
        {"/%C3%BC", {"\xc3\xbc"}, 1},
        {"/%0d%0a", {"\r\n"}, 1},
        {"/a?b/c", {"a"}, 1},
        {"/a%3Fb?c", {"a?b"}, 1},
        {"/a;b=c&d", {"a;b=c&d"}, 1},
        {"/\"<>[]{}|\\^`", {"\"<>[]{}|\\^`"}, 1},
        {"/1/2/3/4", {"1", "2", "3", "4"}, 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_target t;
        struct cm_err err;
        if (cm_target_parse(&t, cases[i].raw, &err) != CM_OK)
            fail_msg("%s: %s", cases[i].raw, err.msg);
        if (t.nsegment != cases[i].n)
            fail_msg("%s: %zu segments", cases[i].raw, t.nsegment);
        for (size_t k = 0; k < t.nsegment; k++)
            assert_string_equal(t.segment[k], cases[i].segment[k]);
        cm_target_fini(&t);
    }
}

static void
test_parse_bad_target_is_refused(void **state)
{
    static const struct {
        const char *raw, *why;
    } cases[] = {
        {"", "slash"},
        {"*", "slash"},
        {"livez", "slash"},
        {"http://localhost/livez", "slash"},
        {"/%", "hex"},
        {"/%4", "hex"},
        {"/%zz", "hex"},
        {"/%4g", "hex"},
        {"/a%/b", "hex"},
        {"/%%30", "hex"},
        {"/%00", "NUL"},
        {"/a%00b", "NUL"},
        {"/?a=%00", "NUL"},
        {"/?%zz=a", "hex"},
        {"/a b", "0x20"},
        {"/a\tb", "0x09"},
        {"/a\x7f", "0x7F"},
        {"/\xc3\xbc", "0xC3"},
        {"/a#b", "0x23"},
        {"/1/2/3/4/5/6/7/8/9", "segments"},
        {"/?a=1&a=2", "twice"},
        {"/?a=1&%61=2", "twice"},
        {"/?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17", "parameters"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_target t;
        struct cm_err err = {CM_OK, ""};
        enum cm_status status = cm_target_parse(&t, cases[i].raw, &err);
        if (status != CM_EINVAL || !strstr(err.msg, cases[i].why))
            fail_msg("%s: status %d, \"%s\"", cases[i].raw, status, err.msg);
        cm_target_fini(&t);
    }
}

static void
test_param_finds_decoded_values(void **state)
{
    struct cm_target t;
    (void)state;
    assert_int_equal(
        cm_target_parse(&t, "/a?limit=5&after=a%2Bb+c%40x&empty=&bare&&%6b=v=w",
                        NULL),
        CM_OK);
    assert_string_equal(cm_target_param(&t, "limit"), "5");
    assert_string_equal(cm_target_param(&t, "after"), "a+b c@x");
    assert_string_equal(cm_target_param(&t, "empty"), "");
    assert_string_equal(cm_target_param(&t, "bare"), "");
    assert_string_equal(cm_target_param(&t, "k"), "v=w");
    assert_null(cm_target_param(&t, "absent"));
    assert_string_equal(t.raw, "/a");
    cm_target_fini(&t);
}

/* Percent-encodes what RFC 3986 does not call unreserved; all: everything. */
static void
encode(char *out, const char *text, int all)
{
    static const char unreserved[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    for (; *text; text++) {
        if (!all && strchr(unreserved, *text))
            *out++ = *text;
        else
            out += sprintf(out, "%%%02X", (unsigned char)*text);
    }
    *out = '\0';
}

/* False when the address is none. */
static bool
check_round_trip(const char *address, int all)
{
    char url[3 * CM_ADDRESS_MAX_BYTES + 64];
    struct cm_address direct, through;
    struct cm_target t;
    if (cm_address_parse(&direct, address, strlen(address), 0, NULL) != CM_OK)
        return false;
    strcpy(url, "/api/inboxes/");
    encode(url + strlen(url), address, all);
    strcat(url, "/chaos");
    assert_int_equal(cm_target_parse(&t, url, NULL), CM_OK);
    assert_int_equal(t.nsegment, 4);
    assert_string_equal(t.segment[2], address);
    assert_int_equal(
        cm_address_parse(&through, t.segment[2], strlen(t.segment[2]), 0, NULL),
        CM_OK);
    assert_string_equal(through.text, direct.text);
    cm_target_fini(&t);
    return true;
}

static void
test_parse_valid_address_comes_back_as_itself(void **state)
{
    static const char *const addresses[] = {
        "a@example.com",
        "User+tag@Example.COM",
        "a/b@x.org",
        "100%@x.org",
        "%2f@x.org",
        "%00@x.org",
        "a?b#c&d=e@x.org",
        "\"a b\"@x.org",
        "\"a@b\"@x.org",
        "\"a\\\"b\"@x.org",
        "!#$%&'*+-/=?^_`{|}~@x.org",
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "\xc3\xbc@x.org",
        "u\xcc\x88@x.org",
        "a@\xc3\xbc.example",
        "a@xn--tda.example",
        "..@x.org",
    };
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        if (!check_round_trip(addresses[i], 0) ||
            !check_round_trip(addresses[i], 1))
            fail_msg("%s is no address", addresses[i]);
    }
}

/* Every byte that an address may hold, alone in a local part, both ways. */
static void
test_parse_every_valid_local_byte_comes_back(void **state)
{
    int plain_valid = 0, quoted_valid = 0;
    (void)state;
    for (int c = 1; c < 256; c++) {
        char plain[] = "xcy@x.org", quoted[] = "\"xcy\"@x.org";
        plain[1] = (char)c;
        quoted[2] = (char)c;
        plain_valid += check_round_trip(plain, 0);
        quoted_valid += check_round_trip(quoted, 0);
    }
    /* RFC 5321 4.1.2: atext and the dot; qtext and the blank. */
    assert_true(plain_valid >= 62 + 19 + 1);
    assert_true(quoted_valid >= plain_valid);
}

static void
test_parse_without_memory_frees_all(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        struct cm_target t;
        failing_alloc_arm(n);
        enum cm_status status = cm_target_parse(&t, "/a/b?c=d", NULL);
        bool failed = failing_alloc_disarm();
        cm_target_fini(&t);
        if (!failed) {
            assert_int_equal(status, CM_OK);
            assert_true(n > 1);
            return;
        }
        assert_int_equal(status, CM_ENOMEM);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_good_target_gives_segments),
        cmocka_unit_test(test_parse_bad_target_is_refused),
        cmocka_unit_test(test_param_finds_decoded_values),
        cmocka_unit_test(test_parse_valid_address_comes_back_as_itself),
        cmocka_unit_test(test_parse_every_valid_local_byte_comes_back),
        cmocka_unit_test(test_parse_without_memory_frees_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
