/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/buf.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void
test_buf_add_keeps_bytes_and_terminates(void **state)
{
    struct cm_buf buf;
    (void)state;
    cm_buf_init(&buf, 100);
    assert_null(buf.data);
    cm_buf_add(&buf, "a\0b", 3);
    cm_buf_puts(&buf, "cd");
    cm_buf_printf(&buf, "%d%s", 7, "x");
    assert_int_equal(cm_buf_status(&buf), CM_OK);
    assert_int_equal(buf.len, 7);
    assert_memory_equal(buf.data, "a\0bcd7x", 8);
    cm_buf_fini(&buf);
}

static void
test_buf_ceiling_is_exact_and_latches(void **state)
{
    struct cm_buf buf;
    (void)state;
    cm_buf_init(&buf, 4);
    cm_buf_puts(&buf, "abcd");
    assert_int_equal(cm_buf_status(&buf), CM_OK);
    cm_buf_puts(&buf, "e");
    assert_int_equal(cm_buf_status(&buf), CM_EINVAL);
    cm_buf_puts(&buf, "");
    assert_int_equal(cm_buf_status(&buf), CM_EINVAL);
    assert_string_equal(buf.data, "abcd");
    cm_buf_reset(&buf);
    cm_buf_printf(&buf, "%s", "12345");
    assert_int_equal(cm_buf_status(&buf), CM_EINVAL);
    assert_int_equal(buf.len, 0);
    cm_buf_fini(&buf);
}

static void
test_buf_take_gives_the_content_away(void **state)
{
    struct cm_buf buf;
    size_t len = 99;
    (void)state;
    cm_buf_init(&buf, 100);
    assert_null(cm_buf_take(&buf, &len));
    assert_int_equal(len, 0);
    cm_buf_puts(&buf, "hello");
    char *text = cm_buf_take(&buf, &len);
    assert_string_equal(text, "hello");
    assert_int_equal(len, 5);
    assert_null(buf.data);
    free(text);
    cm_buf_puts(&buf, "again");
    assert_string_equal(buf.data, "again");
    cm_buf_fini(&buf);
}

static void
test_buf_take_after_failure_gives_nothing(void **state)
{
    struct cm_buf buf;
    (void)state;
    cm_buf_init(&buf, 3);
    cm_buf_puts(&buf, "abc");
    cm_buf_puts(&buf, "d");
    assert_null(cm_buf_take(&buf, NULL));
    assert_int_equal(cm_buf_status(&buf), CM_OK);
    cm_buf_fini(&buf);
}

static void
test_buf_without_memory_latches_and_keeps_what_it_has(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        struct cm_buf buf;
        cm_buf_init(&buf, 100000);
        failing_alloc_arm(n);
        for (int i = 0; i < 1000; i++)
            cm_buf_printf(&buf, "%04d", i);
        bool failed = failing_alloc_disarm();
        enum cm_status status = cm_buf_status(&buf);
        assert_int_equal(status, failed ? CM_ENOMEM : CM_OK);
        assert_int_equal(buf.len % 4, 0);
        if (buf.len > 0)
            assert_int_equal(strlen(buf.data), buf.len);
        size_t len = buf.len;
        cm_buf_fini(&buf);
        if (!failed) {
            assert_int_equal(len, 4000);
            assert_true(n > 3);
            return;
        }
    }
}

static void
test_buf_grows_by_doubling_up_to_its_ceiling(void **state)
{
    struct cm_buf buf;
    size_t grown = 0, before = 0;
    (void)state;
    cm_buf_init(&buf, 1000000);
    for (int i = 0; i < 100000; i++) {
        cm_buf_add(&buf, "0123456789", 10);
        grown += buf.cap != before;
        before = buf.cap;
    }
    assert_int_equal(cm_buf_status(&buf), CM_OK);
    assert_int_equal(buf.len, 1000000);
    assert_true(buf.cap <= 1000001);
    if (grown > 20)
        fail_msg("it grew %zu times", grown);
    cm_buf_fini(&buf);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_add_keeps_bytes_and_terminates),
        cmocka_unit_test(test_buf_ceiling_is_exact_and_latches),
        cmocka_unit_test(test_buf_grows_by_doubling_up_to_its_ceiling),
        cmocka_unit_test(test_buf_take_gives_the_content_away),
        cmocka_unit_test(test_buf_take_after_failure_gives_nothing),
        cmocka_unit_test(test_buf_without_memory_latches_and_keeps_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
