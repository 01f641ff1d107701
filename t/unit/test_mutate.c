/* SPDX-License-Identifier: BSD-2-Clause */
/* What mutations make of bodies, byte by byte. */
#include "milter/filter/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define TEXT "Hello.\r\nSecond line.\r\n"

/* A whole body; data is the caller's. */
static struct cm_mutate_body
body_of(unsigned char *data, size_t len)
{
    struct cm_content content = {
        .body = data, .body_len = len, .body_bytes = (int64_t)len};
    struct cm_mutate_body body;
    cm_mutate_begin(&body, &content);
    return body;
}

static void
test_truncate_leaves_the_first_bytes(void **state)
{
    static const struct {
        const char *name;
        int64_t n;
        const char *left; /* NULL: cannot be done */
    } cases[] = {
        {"in a line", 3, "Hel"},
        {"after a line", 8, "Hello.\r\n"},
        {"between CR and LF", 7, "Hello."},
        {"after the first byte", 1, "H"},
        {"all of it gone", 0, ""},
        {"one byte short", 21, "Hello.\r\nSecond line."},
        {"exactly its length", 22, NULL},
        {"longer", 23, NULL},
        {"far longer", (int64_t)1 << 40, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char data[] = TEXT;
        struct cm_mutate_body body = body_of(data, strlen(TEXT));
        const char *why = cm_mutate_truncate(&body, cases[i].n);
        if (!why != (cases[i].left != NULL))
            fail_msg("%s: %s", cases[i].name, why ? why : "done");
        const char *left = cases[i].left ? cases[i].left : TEXT;
        if (body.len != strlen(left) || memcmp(body.data, left, body.len) != 0)
            fail_msg("%s: %zu bytes", cases[i].name, body.len);
    }
}

static void
test_truncate_of_an_empty_body_has_nothing_to_do(void **state)
{
    struct cm_mutate_body body = body_of(NULL, 0);
    (void)state;
    assert_string_equal(cm_mutate_truncate(&body, 0),
                        "the body is not longer than that");
}

/* Only the beginning was kept, since no rule wanted more. */
static void
test_truncate_needs_no_more_than_what_it_leaves(void **state)
{
    unsigned char data[] = TEXT;
    struct cm_content content = {
        .body = data, .body_len = 8, .body_bytes = 1000, .body_skipped = true};
    struct cm_mutate_body body;
    (void)state;
    cm_mutate_begin(&body, &content);
    assert_string_equal(cm_mutate_truncate(&body, 9),
                        "the body is too long to be kept");
    assert_non_null(cm_mutate_flip(&body, 1, 7));
    assert_null(cm_mutate_truncate(&body, 8));
    assert_int_equal(body.len, 8);
    /* What is left now is the whole body. */
    assert_null(cm_mutate_flip(&body, 1, 7));
    assert_string_equal(cm_mutate_truncate(&body, 8),
                        "the body is not longer than that");
}

static void
test_mutations_of_a_body_without_memory_say_so(void **state)
{
    struct cm_content content = {.body_bytes = 5, .no_memory = true};
    struct cm_mutate_body body;
    (void)state;
    cm_mutate_begin(&body, &content);
    assert_string_equal(cm_mutate_flip(&body, 1, 7), "no memory for its body");
    assert_string_equal(cm_mutate_truncate(&body, 3), "no memory for its body");
    assert_null(cm_mutate_truncate(&body, 0));
}

static int
bits(unsigned byte)
{
    int n = 0;
    for (; byte; byte >>= 1)
        n += byte & 1;
    return n;
}

/* How many bits differ; fails where SMTP would be hurt. */
static int
check_damage(const unsigned char *before, const unsigned char *after,
             size_t len)
{
    int n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned change = before[i] ^ after[i];
        if (!change)
            continue;
        assert_int_equal(bits(change), 1);
        assert_int_equal(change & 0x80, 0);
        assert_null(memchr("\r\n", before[i], 3));
        assert_null(memchr("\r\n", after[i], 3));
        n++;
    }
    return n;
}

static void
test_flip_damages_n_bytes_and_no_line(void **state)
{
    enum { LEN = 256 * 4 };
    static unsigned char before[LEN], after[LEN];
    (void)state;
    for (size_t i = 0; i < LEN; i++)
        before[i] = (unsigned char)i; /* each byte four times */
    /* All but CR, LF and NUL can be flipped. */
    static const int counts[] = {1, 2, 17, 500, 253 * 4};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (uint64_t seed = 0; seed < 50; seed++) {
            memcpy(after, before, LEN);
            struct cm_mutate_body body = body_of(after, LEN);
            assert_null(cm_mutate_flip(&body, counts[c], seed));
            assert_int_equal(body.len, LEN);
            assert_int_equal(check_damage(before, after, LEN), counts[c]);
        }
    }
    memcpy(after, before, LEN);
    struct cm_mutate_body body = body_of(after, LEN);
    assert_string_equal(cm_mutate_flip(&body, 253 * 4 + 1, 7),
                        "the body has fewer bytes that can be flipped");
    assert_memory_equal(after, before, LEN);
}

static void
test_flip_of_the_same_draw_is_the_same(void **state)
{
    unsigned char one[] = TEXT, same[] = TEXT, other[] = TEXT;
    struct cm_mutate_body body = body_of(one, strlen(TEXT));
    (void)state;
    assert_null(cm_mutate_flip(&body, 4, 42));
    body = body_of(same, strlen(TEXT));
    assert_null(cm_mutate_flip(&body, 4, 42));
    body = body_of(other, strlen(TEXT));
    assert_null(cm_mutate_flip(&body, 4, 43));
    assert_memory_equal(one, same, sizeof one);
    assert_memory_not_equal(one, other, sizeof one);
}

/* Each of 10 places is as likely as the others: 10,000 times one flip. */
static void
test_flip_favours_no_place(void **state)
{
    int hits[10] = {0};
    double chi2 = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 10000; seed++) {
        unsigned char data[] = "aaaaaaaaaa";
        struct cm_mutate_body body = body_of(data, 10);
        assert_null(cm_mutate_flip(&body, 1, seed * 0x9e3779b97f4a7c15u));
        for (int i = 0; i < 10; i++)
            hits[i] += data[i] != 'a';
    }
    for (int i = 0; i < 10; i++)
        chi2 += (hits[i] - 1000.0) * (hits[i] - 1000.0) / 1000.0;
    assert_true(chi2 < 27.9); /* 9 degrees of freedom, p = 0.001 */
}

static void
test_flip_of_ten_megabytes(void **state)
{
    size_t len = CM_CONTENT_BODY_BYTES_MAX;
    unsigned char *data = malloc(len);
    (void)state;
    assert_non_null(data);
    memset(data, 'x', len);
    struct cm_mutate_body body = body_of(data, len);
    assert_null(cm_mutate_flip(&body, 1000000, 1));
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += data[i] != 'x';
    assert_int_equal(n, 1000000);
    free(data);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncate_leaves_the_first_bytes),
        cmocka_unit_test(test_truncate_of_an_empty_body_has_nothing_to_do),
        cmocka_unit_test(test_truncate_needs_no_more_than_what_it_leaves),
        cmocka_unit_test(test_mutations_of_a_body_without_memory_say_so),
        cmocka_unit_test(test_flip_damages_n_bytes_and_no_line),
        cmocka_unit_test(test_flip_of_the_same_draw_is_the_same),
        cmocka_unit_test(test_flip_favours_no_place),
        cmocka_unit_test(test_flip_of_ten_megabytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
