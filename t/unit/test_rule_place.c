/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/rule_place.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 20000

/* A list of rules known by number, in order, with their places. */
static struct {
    int id[LIST_MAX];
    int64_t place[LIST_MAX];
    size_t n;
    size_t changes; /* places that were given to others */
    size_t most;    /* of them, for one insertion */
} list;

static void
insert(size_t at, int id)
{
    struct cm_room room;
    assert_int_equal(cm_room_make(&room, list.place, list.n, at), CM_OK);
    for (size_t i = 0; i < room.n; i++)
        list.place[room.first + i] = room.moved[i];
    list.changes += room.n;
    list.most = room.n > list.most ? room.n : list.most;
    memmove(&list.id[at + 1], &list.id[at], (list.n - at) * sizeof *list.id);
    memmove(&list.place[at + 1], &list.place[at],
            (list.n - at) * sizeof *list.place);
    list.id[at] = id;
    list.place[at] = room.place;
    list.n++;
    cm_room_fini(&room);
}

static void
check(void)
{
    for (size_t i = 0; i < list.n; i++) {
        assert_true(list.place[i] > (i > 0 ? list.place[i - 1] : 0));
        assert_true(list.place[i] < INT64_C(1000000000000000));
    }
}

static int
empty(void **state)
{
    (void)state;
    memset(&list, 0, sizeof list);
    return 0;
}

static void
test_room_at_the_end_and_between(void **state)
{
    (void)state;
    insert(0, 1);
    insert(1, 2);
    insert(1, 3);
    assert_int_equal(list.place[0], CM_PLACE_GAP);
    assert_int_equal(list.place[2], 2 * CM_PLACE_GAP);
    assert_int_equal(list.place[1], CM_PLACE_GAP * 3 / 2);
    assert_int_equal(list.changes, 0);
    check();
}

/* Places as redis-cli gives them: 1, 2, 3; and some that are equal. */
static void
test_room_where_there_is_none_spreads_neighbours(void **state)
{
    static const int64_t dense[] = {1, 2, 3, 3, 3, 4, 900000};
    (void)state;
    for (size_t at = 0; at <= 7; at++) {
        empty(NULL);
        memcpy(list.place, dense, sizeof dense);
        list.n = 7;
        insert(at, 99);
        assert_int_equal(list.id[at], 99);
        /* What was equal and not touched stays so. */
        for (size_t i = 1; i < list.n; i++)
            assert_true(list.place[i] >= list.place[i - 1]);
        assert_true(at == 0 || list.place[at] > list.place[at - 1]);
        assert_true(at == 7 || list.place[at] < list.place[at + 1]);
    }
}

static void
test_room_ten_thousand_times_at_one_spot_costs_little(void **state)
{
    static const char *const names[] = {"front", "middle", "before the last"};
    (void)state;
    for (size_t spot = 0; spot < 3; spot++) {
        empty(NULL);
        for (int i = 0; i < 10; i++)
            insert(list.n, i);
        for (int i = 0; i < 10000; i++)
            insert(spot == 0 ? 0 : spot == 1 ? 5 : list.n - 1, i);
        check();
        print_message("  %s: %.1f places changed an insertion, %zu at most\n",
                      names[spot], (double)list.changes / 10000, list.most);
        assert_true(list.changes < 10000 * 60);
    }
}

static void
test_room_anywhere_keeps_the_order(void **state)
{
    unsigned seed = 7;
    (void)state;
    for (int i = 0; i < 5000; i++) {
        seed = seed * 1103515245u + 12345u;
        insert(seed / 65536 % (list.n + 1), i);
    }
    check();
}

static void
test_room_without_memory_says_so(void **state)
{
    static const int64_t dense[] = {1, 2, 3};
    struct cm_room room;
    (void)state;
    failing_alloc_arm(1);
    assert_int_equal(cm_room_make(&room, dense, 3, 1), CM_ENOMEM);
    assert_true(failing_alloc_disarm());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_room_at_the_end_and_between, empty),
        cmocka_unit_test_setup(test_room_where_there_is_none_spreads_neighbours,
                               empty),
        cmocka_unit_test_setup(
            test_room_ten_thousand_times_at_one_spot_costs_little, empty),
        cmocka_unit_test_setup(test_room_anywhere_keeps_the_order, empty),
        cmocka_unit_test_setup(test_room_without_memory_says_so, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
