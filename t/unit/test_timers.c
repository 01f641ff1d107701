/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/timers.h"
#include "milter/model/coin.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define N 500

static struct cm_timer timer[N];

/* Takes all that are left, and sees that they come in order. */
static size_t
drain(struct cm_timers *timers)
{
    int64_t last_us = INT64_MIN;
    size_t n = 0;
    for (struct cm_timer *first; (first = cm_timers_first(timers)); n++) {
        assert_true(first->due_us >= last_us);
        last_us = first->due_us;
        cm_timers_cancel(timers, first);
        assert_int_equal(first->slot, 0);
    }
    return n;
}

static void
test_timers_come_in_order_whatever_was_taken_back(void **state)
{
    struct cm_timers timers = {NULL, 0, 0};
    struct cm_coin coin;
    (void)state;
    cm_coin_init(&coin, 11, 1);
    assert_true(cm_timers_reserve(&timers, N));
    for (int round = 0; round < 20; round++) {
        size_t left = N;
        for (size_t i = 0; i < N; i++)
            cm_timers_set(&timers, &timer[i],
                          cm_coin_between(cm_coin_draw(&coin), 0, 100));
        for (size_t i = 0; i < N; i++) {
            if (cm_coin_draw(&coin) & 1) {
                cm_timers_cancel(&timers, &timer[i]);
                left--;
            }
        }
        assert_int_equal(drain(&timers), left);
    }
    cm_timers_fini(&timers);
}

static void
test_timers_one_alone_can_be_set_again(void **state)
{
    struct cm_timers timers = {NULL, 0, 0};
    (void)state;
    assert_null(cm_timers_first(&timers));
    assert_true(cm_timers_reserve(&timers, 1));
    cm_timers_cancel(&timers, &timer[0]); /* not set: nothing happens */
    cm_timers_set(&timers, &timer[0], 5);
    assert_ptr_equal(cm_timers_first(&timers), &timer[0]);
    cm_timers_cancel(&timers, &timer[0]);
    cm_timers_set(&timers, &timer[0], 3);
    assert_int_equal(drain(&timers), 1);
    cm_timers_fini(&timers);
}

static void
test_timers_reserve_without_memory_keeps_what_is_there(void **state)
{
    struct cm_timers timers = {NULL, 0, 0};
    (void)state;
    assert_true(cm_timers_reserve(&timers, 1));
    cm_timers_set(&timers, &timer[0], 7);
    failing_alloc_arm(1);
    assert_false(cm_timers_reserve(&timers, 1000));
    assert_true(failing_alloc_disarm());
    assert_int_equal(drain(&timers), 1);
    cm_timers_fini(&timers);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_come_in_order_whatever_was_taken_back),
        cmocka_unit_test(test_timers_one_alone_can_be_set_again),
        cmocka_unit_test(
            test_timers_reserve_without_memory_keeps_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
