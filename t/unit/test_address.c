/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every spelling of an address and what becomes of it, as a table. The ids in
 * the names (M8, M10, ...) are those of the project's list of hostile inputs.
 */
#include "milter/model/address.h"
#include "t/unit/failing_alloc.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#define L16  "aaaaaaaaaaaaaaaa"
#define L64  L16 L16 L16 L16
#define D63  L16 L16 L16 "aaaaaaaaaaaaaaa"
#define D255 D63 "." D63 "." D63 "." D63

/* A capital I with a dot is two bytes, its lower case three. */
#define I2  "\xc4\xb0\xc4\xb0"
#define I4  I2 I2
#define I8  I4 I4
#define I16 I8 I8

/* With its length, for the sake of NUL. */
#define IN(s) (s), sizeof(s) - 1

static const struct {
    const char *name;
    const char *in;
    size_t len;
    const char *out; /* NULL: invalid */
    const char *domain;
} cases[] = {
    {"plain", IN("a@example.com"), "a@example.com", "example.com"},
    {"M8 null sender", IN("<>"), "", ""},
    {"M8 empty is the null sender", IN(""), "", ""},
    {"M8 brackets", IN("<a@b.c>"), "a@b.c", "b.c"},
    {"M8 no domain", IN("<user>"), "user", ""},
    {"M8 postmaster", IN("Postmaster"), "postmaster", ""},
    {"M8 no local part", IN("@x"), NULL, NULL},
    {"M8 no local part in brackets", IN("<@x>"), NULL, NULL},
    {"M8 empty domain", IN("a@"), NULL, NULL},
    {"M8 two at signs together", IN("a@@b"), NULL, NULL},
    {"M8 two at signs", IN("a@b@c"), NULL, NULL},
    {"M8 source route", IN("<@a,@b:c@d>"), "c@d", "d"},
    {"M8 source route of one", IN("<@relay.example:u@d>"), "u@d", "d"},
    {"M8 source route with a literal", IN("<@[IPv6:::1]:u@d>"), "u@d", "d"},
    {"M8 source route without brackets", IN("@a:c@d"), "c@d", "d"},
    {"M8 source route to nobody", IN("<@a:>"), NULL, NULL},
    {"M8 source route without colon", IN("<@a,@b>"), NULL, NULL},
    {"M8 source route with an empty hop", IN("<@,@b:c@d>"), NULL, NULL},
    {"M8 second hop without at sign", IN("<@a,b:c@d>"), NULL, NULL},
    {"M8 hops parted by something else", IN("<@a;@b:c@d>"), NULL, NULL},
    {"M8 hop with a literal not closed", IN("<@[1.2:c@d>"), NULL, NULL},
    {"M8 64 bytes of local part", IN(L64 "@x"), L64 "@x", "x"},
    {"M8 65 bytes of local part", IN(L64 "a@x"), NULL, NULL},
    {"M8 255 bytes of domain", IN("a@" D255), "a@" D255, D255},
    {"M8 the longest address", IN(L64 "@" D255), L64 "@" D255, D255},
    {"M8 256 bytes of domain", IN("a@b" D255), NULL, NULL},
    {"M8 label of 64 bytes", IN("a@" L64), NULL, NULL},
    {"M8 bracket not closed", IN("<a@b"), NULL, NULL},
    {"M8 bracket not opened", IN("a@b>"), NULL, NULL},
    {"M8 two pairs of brackets", IN("<<a@b>>"), NULL, NULL},
    {"M8 one bracket", IN("<"), NULL, NULL},
    {"M8 brackets around a space", IN("< >"), NULL, NULL},
    {"M8 space after", IN("a@b "), NULL, NULL},

    {"M9 literal", IN("a@[1.2.3.4]"), "a@[1.2.3.4]", "[1.2.3.4]"},
    {"M9 IPv6 literal", IN("a@[IPv6:::1]"), "a@[ipv6:::1]", "[ipv6:::1]"},
    {"M9 literal not closed", IN("a@[1.2.3.4"), NULL, NULL},
    {"M9 empty literal", IN("a@[]"), NULL, NULL},
    {"M9 literal of 256 bytes", IN("a@[" L64 L64 L64 D63 "]"), NULL, NULL},
    {"M9 literal and more", IN("a@[1.2.3.4].x"), NULL, NULL},
    {"M9 literal with a bracket", IN("a@[a[b]"), NULL, NULL},
    {"M9 comment", IN("a@b(.evil)"), NULL, NULL},
    {"M9 comment in the local part", IN("a(b)@c"), NULL, NULL},
    {"M9 trailing dot", IN("a@b."), "a@b", "b"},
    {"M9 two trailing dots", IN("a@b.."), NULL, NULL},
    {"M9 a dot alone", IN("a@."), NULL, NULL},
    {"M9 leading dot", IN("a@.b"), NULL, NULL},
    {"M9 case of the domain", IN("a@B.COM"), "a@b.com", "b.com"},
    {"M9 hyphens at the ends, as MTAs take them", IN("a@-x-"), "a@-x-", "-x-"},
    {"M9 underscore, as MTAs take it", IN("a@b_c.d"), "a@b_c.d", "b_c.d"},
    {"M9 empty label", IN("a@b..c"), NULL, NULL},
    {"M9 slash in the domain", IN("a@b/c"), NULL, NULL},

    {"M10 space in quotes", IN("\"a b\"@x"), "\"a b\"@x", "x"},
    {"M10 quote in quotes", IN("\"a\\\"b\"@x"), "\"a\\\"b\"@x", "x"},
    {"M10 at sign in quotes", IN("\"a@b\"@x"), "\"a@b\"@x", "x"},
    {"M10 needless quotes", IN("\"a\"@x"), "a@x", "x"},
    {"M10 needless backslash", IN("\"\\a\\ b\"@x"), "\"a b\"@x", "x"},
    {"M10 backslash in quotes", IN("\"a\\\\b\"@x"), "\"a\\\\b\"@x", "x"},
    {"M10 a space alone", IN("\" \"@x"), "\" \"@x", "x"},
    {"M10 nothing in quotes", IN("\"\"@x"), "\"\"@x", "x"},
    {"M10 dots need no quotes here", IN("\"a..b\"@x"), "a..b@x", "x"},
    {"M10 quoted, without a domain", IN("\"a\""), "a", ""},
    {"M10 CR in quotes", IN("\"a\rb\"@x"), NULL, NULL},
    {"M10 escaped CR in quotes", IN("\"a\\\rb\"@x"), NULL, NULL},
    {"M10 quote not closed", IN("\"a@x"), NULL, NULL},
    {"M10 closing quote escaped", IN("\"a\\\"@x"), NULL, NULL},
    {"M10 text after the quotes", IN("\"a\"b@x"), NULL, NULL},
    {"M10 text before the quotes", IN("a\"b\"@x"), NULL, NULL},
    {"M10 backslash without quotes", IN("a\\@b@x"), NULL, NULL},
    {"M10 quotes that outgrow the limit", IN("\"" L16 L16 L16 "a b" L16 "\"@x"),
     NULL, NULL},

    {"M11 case of the local part", IN("User@x"), "user@x", "x"},
    {"M11 case in quotes", IN("\"A B\"@X"), "\"a b\"@x", "x"},

    {"M5 NUL", IN("a\0b@x"), NULL, NULL},
    {"M5 NUL in the domain", IN("a@x\0.evil"), NULL, NULL},
    {"M5 NUL alone", IN("\0"), NULL, NULL},
    {"M5 tab", IN("a\tb@x"), NULL, NULL},
    {"M5 DEL", IN("a\x7f@x"), NULL, NULL},
    {"M6 overlong", IN("\xc0\xaf@x"), NULL, NULL},
    {"M6 surrogate", IN("\xed\xa0\x80@x"), NULL, NULL},
    {"M6 0xff", IN("\xff@x"), NULL, NULL},
    {"M6 Latin-1", IN("m\xfcller@x"), NULL, NULL},
    {"M6 Latin-1 in the domain", IN("a@m\xfcller"), NULL, NULL},
    {"M6 cut off", IN("a\xc3"), NULL, NULL},
    {"M6 C1 control", IN("a\xc2\x85@x"), NULL, NULL},

    {"M7 NFC", IN("m\xc3\xbcller@x"), "m\xc3\xbcller@x", "x"},
    {"M7 NFD becomes NFC", IN("mu\xcc\x88ller@x"), "m\xc3\xbcller@x", "x"},
    {"M7 case beyond ASCII", IN("M\xc3\x9cLLER@x"), "m\xc3\xbcller@x", "x"},
    {"M7 quoted beyond ASCII", IN("\"\xc3\x9c b\"@x"), "\"\xc3\xbc b\"@x", "x"},
    {"M7 U-label", IN("a@\xc3\xbc.example"), "a@xn--tda.example",
     "xn--tda.example"},
    {"M7 upper-case U-label", IN("a@\xc3\x9c.Example"), "a@xn--tda.example",
     "xn--tda.example"},
    {"M7 NFD U-label", IN("a@u\xcc\x88.example"), "a@xn--tda.example",
     "xn--tda.example"},
    {"M7 A-label stays", IN("a@XN--TDA.example"), "a@xn--tda.example",
     "xn--tda.example"},
    {"M7 sharp s is not ss", IN("a@fa\xc3\x9f.de"), "a@xn--fa-hia.de",
     "xn--fa-hia.de"},
    {"M7 ideographic full stop",
     IN("a@b\xe3\x80\x82"
        "c"),
     "a@b.c", "b.c"},
    {"M7 emoji, not in IDNA 2008", IN("a@\xf0\x9f\x92\xa9.la"), NULL, NULL},
    {"M7 unassigned code point", IN("a@\xf3\xb0\x80\x80.example"), NULL, NULL},
    {"M7 domain far too long", IN("a@\xc3\xbc." D255 "." L64), NULL, NULL},
    {"M7 lower case outgrows the limit", IN(I16 I8 I4 I2 "@x"), NULL, NULL},
    {"M7 quotes outgrow the limit", IN(L16 L16 L16 "aaaaaaaaaaaaaa\xcd\xbe@x"),
     NULL, NULL},
    {"M7 full-width at sign",
     IN("a\xef\xbc\xa0"
        "b"),
     "a\xef\xbc\xa0"
     "b",
     ""},
    {"M7 NFC makes an ASCII special",
     IN("a\xcd\xbe"
        "b@x"),
     "\"a;b\"@x", "x"},

    {"M20 pipe", IN("|/bin/sh@x"), "|/bin/sh@x", "x"},
    {"M20 backquotes", IN("`id`@x"), "`id`@x", "x"},
    {"M20 command substitution", IN("$(id)@x"), NULL, NULL},
    {"M20 path", IN("../../etc@x"), "../../etc@x", "x"},
    {"M20 format", IN("%n%s@x"), "%n%s@x", "x"},
    {"M20 pipe in quotes", IN("\"|/bin/sh -c x\"@x"), "\"|/bin/sh -c x\"@x",
     "x"},
    {"M21 star and question mark", IN("*?@x"), "*?@x", "x"},
    {"M21 braces", IN("{a}@x"), "{a}@x", "x"},
    {"M21 bracket", IN("[a]@x"), NULL, NULL},
    {"M21 colon", IN("a:b@x"), NULL, NULL},
    {"M21 colon in quotes", IN("\"a:b\"@x"), "\"a:b\"@x", "x"},
    {"M21 space", IN("a b@x"), NULL, NULL},
    {"M21 CRLF", IN("a\r\nb@x"), NULL, NULL},
    {"M21 star in the domain", IN("a@*.x"), NULL, NULL},
};

static void
test_address_parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_address addr = {.len = 999};
        struct cm_err err = {.msg = ""};
        enum cm_status status =
            cm_address_parse(&addr, cases[i].in, cases[i].len, 0, &err);
        if (!cases[i].out) {
            if (status != CM_EINVAL || !*err.msg || addr.len != 999)
                fail_msg("%s: taken as %s", cases[i].name, addr.text);
            continue;
        }
        if (status != CM_OK)
            fail_msg("%s: %s", cases[i].name, err.msg);
        if (strcmp(addr.text, cases[i].out) != 0 ||
            strlen(addr.text) != addr.len)
            fail_msg("%s: %s", cases[i].name, addr.text);
        if (strcmp(cm_address_domain(&addr), cases[i].domain) != 0)
            fail_msg("%s: domain %s", cases[i].name, cm_address_domain(&addr));
    }
}

static void
test_address_parse_canonical_form_is_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_address once, twice;
        if (cm_address_parse(&once, cases[i].in, cases[i].len, 0, NULL) !=
            CM_OK)
            continue;
        if (cm_address_parse(&twice, once.text, once.len, 0, NULL) != CM_OK ||
            strcmp(once.text, twice.text) != 0 ||
            once.domain_off != twice.domain_off)
            fail_msg("%s: %s", cases[i].name, once.text);
    }
}

/* M11 with local_part_case = "sensitive". */
static void
test_address_parse_keep_case_folds_the_domain_alone(void **state)
{
    struct cm_address addr;
    (void)state;
    assert_int_equal(
        cm_address_parse(&addr, IN("User@X.Y"), CM_ADDRESS_KEEP_CASE, NULL),
        CM_OK);
    assert_string_equal(addr.text, "User@x.y");
    assert_int_equal(
        cm_address_parse(&addr, IN("MU\xcc\x88@X"), CM_ADDRESS_KEEP_CASE, NULL),
        CM_OK);
    assert_string_equal(addr.text, "M\xc3\x9c@x");
}

/* P17: in a Turkish locale the C library's tolower('I') is not 'i'. */
static void
test_address_parse_ignores_the_locale(void **state)
{
    struct cm_address addr;
    (void)state;
    bool turkish = setlocale(LC_ALL, "tr_TR.UTF-8") != NULL;
    if (!turkish)
        print_message("tr_TR.UTF-8 is not installed: tested in C only\n");
    assert_int_equal(cm_address_parse(&addr, IN("INFO@INFO.I"), 0, NULL),
                     CM_OK);
    assert_string_equal(addr.text, "info@info.i");
    assert_int_equal(cm_address_parse(&addr, IN("I\xc3\x9c@x"), 0, NULL),
                     CM_OK);
    assert_string_equal(addr.text, "i\xc3\xbc@x");
    setlocale(LC_ALL, "C");
}

static const struct {
    const char *name, *in, *delimiters, *out; /* NULL: nothing to strip */
} tags[] = {
    {"M12 plus", "user+tag@x", "+", "user@x"},
    {"M12 minus is no delimiter", "user-tag@x", "+", NULL},
    {"M12 minus is one", "user-tag@x", "+-", "user@x"},
    {"M12 the first of either", "u-s+t@x", "+-", "u@x"},
    {"M12 plus alone", "+@x", "+", NULL},
    {"M12 empty tag", "user+@x", "+", "user@x"},
    {"M12 two plusses", "user++a@x", "+", "user@x"},
    {"M12 leading plus, then a tag", "+a+b@x", "+", "+a@x"},
    {"M12 delimiter in the domain alone", "user@x-y", "+-", NULL},
    {"M12 quoted", "\"a b+c\"@x", "+", NULL},
    {"M12 without a domain", "user+tag", "+", "user"},
    {"M12 null sender", "", "+", NULL},
    {"M12 no delimiters", "user+tag@x", "", NULL},
};

static void
test_address_strip_tag_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        struct cm_address addr, want, out;
        memset(&out, 0, sizeof out);
        assert_int_equal(
            cm_address_parse(&addr, tags[i].in, strlen(tags[i].in), 0, NULL),
            CM_OK);
        bool stripped = cm_address_strip_tag(&addr, tags[i].delimiters, &out);
        if (!tags[i].out) {
            if (stripped || out.len != 0)
                fail_msg("%s: %s", tags[i].name, out.text);
            continue;
        }
        assert_int_equal(
            cm_address_parse(&want, tags[i].out, strlen(tags[i].out), 0, NULL),
            CM_OK);
        if (!stripped || strcmp(out.text, want.text) != 0 ||
            out.len != want.len || out.domain_off != want.domain_off)
            fail_msg("%s: %s", tags[i].name, out.text);
    }
}

static void
test_address_parse_domain_is_the_same_as_in_an_address(void **state)
{
    char domain[CM_ADDRESS_DOMAIN_MAX + 1] = "untouched";
    (void)state;
    assert_int_equal(cm_address_parse_domain(domain, IN("b..c"), NULL),
                     CM_EINVAL);
    assert_int_equal(cm_address_parse_domain(domain, IN(""), NULL), CM_EINVAL);
    assert_int_equal(cm_address_parse_domain(domain, IN("a\0b"), NULL),
                     CM_EINVAL);
    assert_string_equal(domain, "untouched");
    assert_int_equal(cm_address_parse_domain(domain, IN("\xc3\xbc.X."), NULL),
                     CM_OK);
    assert_string_equal(domain, "xn--tda.x");
}

static void
test_address_fold_local_checks_and_folds(void **state)
{
    char local[CM_ADDRESS_LOCAL_MAX + 1] = "untouched";
    (void)state;
    assert_int_equal(cm_address_fold_local(local, IN(L64 "a"), 0, NULL),
                     CM_EINVAL);
    assert_int_equal(cm_address_fold_local(local, IN("\xff"), 0, NULL),
                     CM_EINVAL);
    assert_string_equal(local, "untouched");
    assert_int_equal(cm_address_fold_local(local, IN("A*U\xcc\x88"), 0, NULL),
                     CM_OK);
    assert_string_equal(local, "a*\xc3\xbc");
}

/* ASCII allocates nothing at all; beyond it the memory is the libraries'. */
static void
test_address_parse_ascii_needs_no_memory(void **state)
{
    struct cm_address addr;
    (void)state;
    failing_alloc_arm_from(1);
    enum cm_status status =
        cm_address_parse(&addr, IN("<\"User\"@Example.COM.>"), 0, NULL);
    bool failed = failing_alloc_disarm();
    assert_int_equal(status, CM_OK);
    assert_false(failed);
    assert_string_equal(addr.text, "user@example.com");
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_parse_table),
        cmocka_unit_test(test_address_parse_canonical_form_is_itself),
        cmocka_unit_test(test_address_parse_keep_case_folds_the_domain_alone),
        cmocka_unit_test(test_address_parse_ignores_the_locale),
        cmocka_unit_test(test_address_strip_tag_table),
        cmocka_unit_test(
            test_address_parse_domain_is_the_same_as_in_an_address),
        cmocka_unit_test(test_address_fold_local_checks_and_folds),
        cmocka_unit_test(test_address_parse_ascii_needs_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
