/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reply hold, with this program in libmilter's place. Times are asserted
 * from below (a reply never comes early) and, where a thread must not have
 * slept, against the delay itself.
 */
#include "milter/filter/hold.h"
#include "milter/clock.h"
#include "t/unit/milter_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_HELD    200
#define PROGRESS_MS 100

struct ending {
    atomic_int looks;
    atomic_int leave_at; /* the look that says so; 0: none */
    atomic_int count;
    atomic_int end;
    atomic_llong measured_ms;
};

static void
note_end(void *arg, enum cm_hold_end end, int64_t measured_ms)
{
    struct ending *e = arg;
    atomic_store(&e->end, (int)end);
    atomic_store(&e->measured_ms, measured_ms);
    atomic_fetch_add(&e->count, 1);
}

static bool
is_wanted(void *arg, int64_t measured_ms)
{
    struct ending *e = arg;
    atomic_store(&e->measured_ms, measured_ms);
    return atomic_fetch_add(&e->looks, 1) + 1 != atomic_load(&e->leave_at);
}

static enum cm_hold_answer
hold_and_look(int fd, int64_t delay_ms, struct ending *e)
{
    struct cm_hold_wish wish = {
        .delay_ms = delay_ms, .look = is_wanted, .done = note_end, .arg = e};
    return cm_hold_until(fd, &wish);
}

static enum cm_hold_answer
hold(int fd, int64_t delay_ms, bool progress, struct ending *e)
{
    struct cm_hold_wish wish = {
        .delay_ms = delay_ms, .progress = progress, .done = note_end, .arg = e};
    return cm_hold_until(fd, &wish);
}

static int
start_holding(void **state)
{
    struct cm_hold_opts opts = {.max_held = MAX_HELD, .tick_ms = PROGRESS_MS};
    struct cm_err err;
    (void)state;
    return cm_hold_start(&opts, &err) == CM_OK ? 0 : -1;
}

static int
stop_holding(void **state)
{
    (void)state;
    cm_hold_stop();
    return 0;
}

static void
wait_for_end(struct ending *e)
{
    for (int i = 0; i < 2000 && atomic_load(&e->count) == 0; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&e->count), 1);
}

static void
test_hold_until_held_reply_comes_when_due(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int64_t t0 = cm_clock_mono_ms();
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 300, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "cont");
    /* The thread that "ran the callback" did not sleep. */
    assert_true(cm_clock_mono_ms() - t0 < 250);
    assert_int_equal(cm_hold_count(), 1);
    milter_pair_expect(&s, "cont", 5000);
    assert_true(cm_clock_mono_ms() - t0 >= 300);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_SENT);
    assert_true(atomic_load(&e.measured_ms) >= 300);
    assert_int_equal(cm_hold_count(), 0);
    assert_false(cm_hold_has_slept());
    milter_pair_close(&s);
}

static void
test_hold_until_next_reply_of_session_is_not_held(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 50, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "late");
    milter_pair_expect(&s, "late", 5000);
    fd = milter_pair_command(&s);
    milter_pair_reply(fd, "soon");
    milter_pair_expect(&s, "soon", 40);
    wait_for_end(&e);
    milter_pair_close(&s);
}

/* The MTA may answer a held reply before the timer has put the hold away. */
static void
test_hold_until_of_every_command_in_a_row_is_taken(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    for (int i = 1; i <= 3000; i++) {
        int fd = milter_pair_command(&s);
        if (hold(fd, 1, false, &e) != CM_HOLD_OK)
            fail_msg("command %d was not held", i);
        milter_pair_reply(fd, "row");
        milter_pair_expect(&s, "row", 5000);
    }
    for (int i = 0; i < 2000 && atomic_load(&e.count) < 3000; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&e.count), 3000);
    milter_pair_close(&s);
}

/* The same for the last free place of all. */
static void
test_hold_until_place_of_a_sent_reply_is_free(void **state)
{
    struct milter_pair s[MAX_HELD];
    struct ending e = {0};
    (void)state;
    for (int i = 0; i < MAX_HELD; i++)
        milter_pair_open(&s[i]);
    for (int i = 1; i < MAX_HELD; i++) {
        int fd = milter_pair_command(&s[i]);
        assert_int_equal(hold(fd, 60000, false, &e), CM_HOLD_OK);
        milter_pair_reply(fd, "long");
    }
    for (int i = 1; i <= 1000; i++) {
        int fd = milter_pair_command(&s[0]);
        if (hold(fd, 1, false, &e) != CM_HOLD_OK)
            fail_msg("command %d was not held", i);
        milter_pair_reply(fd, "row");
        milter_pair_expect(&s[0], "row", 5000);
    }
    for (int i = 0; i < MAX_HELD; i++)
        milter_pair_close(&s[i]);
}

static void
test_hold_until_with_progress_sends_packets_before_the_reply(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 5 * PROGRESS_MS, true, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "last");
    /* Four are due; a busy machine may skip one, never send more. */
    assert_in_range(milter_pair_expect_late(&s, "last", 5000), 2, 4);
    wait_for_end(&e);
    milter_pair_close(&s);
}

static void
test_hold_until_look_is_asked_at_each_tick_and_when_due(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold_and_look(fd, 2 * PROGRESS_MS + PROGRESS_MS / 2, &e),
                     CM_HOLD_OK);
    milter_pair_reply(fd, "late");
    /* A look alone sends no packets. */
    assert_int_equal(milter_pair_expect_late(&s, "late", 5000), 0);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_SENT);
    assert_in_range(atomic_load(&e.looks), 2, 3);
    milter_pair_close(&s);
}

static void
test_hold_until_look_that_finds_nobody_sends_the_reply_now(void **state)
{
    struct milter_pair s;
    struct ending e = {.leave_at = 2};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold_and_look(fd, 60000, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "early");
    milter_pair_expect(&s, "early", 10000);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_LEFT);
    assert_in_range(atomic_load(&e.measured_ms), 2 * PROGRESS_MS, 30000);
    assert_int_equal(atomic_load(&e.looks), 2);
    milter_pair_close(&s);
}

static void
test_hold_until_look_that_finds_nobody_when_due_changes_nothing(void **state)
{
    struct milter_pair s;
    struct ending e = {.leave_at = 1};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold_and_look(fd, PROGRESS_MS / 2, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "due");
    milter_pair_expect(&s, "due", 5000);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_SENT);
    milter_pair_close(&s);
}

static void
test_hold_until_many_sessions_each_keeps_its_own_time(void **state)
{
    enum { N = 100 };
    struct milter_pair s[N];
    struct ending e[N];
    struct pollfd p[N];
    int64_t t0[N], due[N];
    int left = N;
    (void)state;
    memset(e, 0, sizeof e);
    for (int i = 0; i < N; i++)
        milter_pair_open(&s[i]);
    for (int i = 0; i < N; i++) {
        int fd = milter_pair_command(&s[i]);
        due[i] = 50 + (i * 37) % 200;
        t0[i] = cm_clock_mono_ms();
        assert_int_equal(hold(fd, due[i], false, &e[i]), CM_HOLD_OK);
        milter_pair_reply(fd, "r");
        p[i] = (struct pollfd){.fd = s[i].mta, .events = POLLIN};
    }
    while (left > 0) {
        assert_true(poll(p, N, 5000) > 0);
        for (int i = 0; i < N; i++) {
            char c;
            if (!(p[i].revents & POLLIN) || p[i].fd < 0)
                continue;
            assert_int_equal(recv(p[i].fd, &c, 1, 0), 1);
            assert_true(cm_clock_mono_ms() - t0[i] >= due[i]);
            p[i].fd = -1;
            left--;
        }
    }
    for (int i = 0; i < N; i++) {
        wait_for_end(&e[i]);
        milter_pair_close(&s[i]);
    }
}

static void
test_hold_until_session_closed_drops_the_hold_at_once(void **state)
{
    struct milter_pair s, next;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 10000, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "gone");
    milter_pair_close(&s);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_GONE);
    assert_int_equal(cm_hold_count(), 0);
    /* The numbers are used again at once: the old reply must not come out. */
    milter_pair_open(&next);
    milter_pair_expect_silence(&next, 50);
    milter_pair_close(&next);
}

static void
test_hold_until_peer_gone_ends_without_signal(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 30, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "gone");
    close(s.mta);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_GONE);
    close(s.milter);
}

static void
test_writev_during_hold_comes_after_the_held_reply(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 100, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "first");
    milter_pair_reply(fd, "second");
    milter_pair_expect_silence(&s, 30);
    milter_pair_expect(&s, "firstsecond", 5000);
    wait_for_end(&e);
    milter_pair_close(&s);
}

static void
test_hold_until_while_a_reply_is_held_is_full_and_keeps_order(void **state)
{
    struct milter_pair s, next;
    struct ending e = {0}, second = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 200, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "first");
    /* A peer that does not wait for its answer. */
    fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 50, false, &second), CM_HOLD_FULL);
    milter_pair_reply(fd, "second");
    milter_pair_expect_silence(&s, 80);
    assert_int_equal(cm_hold_count(), 1);
    milter_pair_close(&s);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&second.count), 0);
    milter_pair_open(&next);
    milter_pair_expect_silence(&next, 250);
    milter_pair_close(&next);
}

static void
test_read_in_a_callback_does_not_disturb_the_hold(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    int other[2];
    char c;
    (void)state;
    milter_pair_open(&s);
    assert_int_equal(pipe(other), 0);
    int fd = milter_pair_command(&s);
    assert_int_equal(write(other[1], "x", 1), 1);
    assert_int_equal(read(other[0], &c, 1), 1);
    assert_int_equal(hold(fd, 30, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "late");
    milter_pair_expect(&s, "late", 5000);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_SENT);
    close(other[0]);
    close(other[1]);
    milter_pair_close(&s);
}

static void
test_hold_until_unverified_session_is_unable(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open_unproved(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 10, false, &e), CM_HOLD_UNABLE);
    milter_pair_reply(fd, "now");
    milter_pair_expect(&s, "now", 1000);
    /* A negotiation whose reply went past the hook proves nothing either. */
    fd = milter_pair_command(&s);
    cm_hold_watch(fd);
    assert_int_equal(send(s.milter, "opts", 4, 0), 4);
    milter_pair_expect(&s, "opts", 1000);
    fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 10, false, &e), CM_HOLD_UNABLE);
    assert_int_equal(atomic_load(&e.count), 0);
    milter_pair_close(&s);
}

static void
test_hold_until_other_descriptor_is_unable(void **state)
{
    struct milter_pair a, b;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&a);
    milter_pair_open(&b);
    (void)milter_pair_command(&a);
    assert_int_equal(hold(b.milter, 10, false, &e), CM_HOLD_UNABLE);
    milter_pair_close(&a);
    milter_pair_close(&b);
}

static void
test_hold_until_unused_promise_is_given_back(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    /* More often than there are places: each must be returned. */
    for (int i = 0; i < MAX_HELD + 10; i++) {
        atomic_store(&e.count, 0);
        int fd = milter_pair_command(&s);
        assert_int_equal(hold(fd, 10, false, &e), CM_HOLD_OK);
        (void)cm_hold_enter();
        assert_int_equal(atomic_load(&e.count), 1);
    }
    milter_pair_reply(s.milter, "now");
    milter_pair_expect(&s, "now", 1000);
    milter_pair_close(&s);
}

static void
test_hold_until_beyond_the_cap_is_full(void **state)
{
    struct milter_pair s[MAX_HELD + 1];
    struct ending e = {0}, extra = {0};
    (void)state;
    for (int i = 0; i <= MAX_HELD; i++)
        milter_pair_open(&s[i]);
    for (int i = 0; i < MAX_HELD; i++) {
        int fd = milter_pair_command(&s[i]);
        assert_int_equal(hold(fd, 60000, false, &e), CM_HOLD_OK);
        milter_pair_reply(fd, "h");
    }
    assert_int_equal(cm_hold_count(), MAX_HELD);
    int fd = milter_pair_command(&s[MAX_HELD]);
    assert_int_equal(hold(fd, 60000, false, &extra), CM_HOLD_FULL);
    milter_pair_reply(fd, "now");
    milter_pair_expect(&s[MAX_HELD], "now", 1000);
    for (int i = 0; i <= MAX_HELD; i++)
        milter_pair_close(&s[i]);
    assert_int_equal(atomic_load(&e.count), MAX_HELD);
    assert_int_equal(atomic_load(&extra.count), 0);
}

static void
test_hold_release_sends_what_is_held_and_holds_nothing_meanwhile(void **state)
{
    enum { N = 20 };
    struct milter_pair s[N];
    struct ending e[N];
    (void)state;
    memset(e, 0, sizeof e);
    for (int i = 0; i < N; i++) {
        milter_pair_open(&s[i]);
        int fd = milter_pair_command(&s[i]);
        assert_int_equal(hold(fd, 60000 - i * 997, i % 2, &e[i]), CM_HOLD_OK);
        milter_pair_reply(fd, "soon");
    }
    int64_t t0 = cm_clock_mono_ms();
    cm_hold_release(true);
    for (int i = 0; i < N; i++) {
        milter_pair_expect(&s[i], "soon", 1000);
        wait_for_end(&e[i]);
        assert_int_equal(atomic_load(&e[i].end), CM_HOLD_RELEASED);
        assert_true(atomic_load(&e[i].measured_ms) < 30000);
    }
    assert_true(cm_clock_mono_ms() - t0 < 1000);
    assert_int_equal(cm_hold_count(), 0);
    assert_true(cm_hold_sleep(60000) < 30000);

    memset(e, 0, sizeof e);
    int fd = milter_pair_command(&s[0]);
    assert_int_equal(hold(fd, 60000, false, &e[0]), CM_HOLD_OK);
    milter_pair_reply(fd, "now");
    milter_pair_expect(&s[0], "now", 1000);
    wait_for_end(&e[0]);
    assert_int_equal(atomic_load(&e[0].end), CM_HOLD_RELEASED);

    cm_hold_release(false);
    fd = milter_pair_command(&s[1]);
    t0 = cm_clock_mono_ms();
    assert_int_equal(hold(fd, 200, false, &e[1]), CM_HOLD_OK);
    milter_pair_reply(fd, "late");
    milter_pair_expect(&s[1], "late", 5000);
    assert_true(cm_clock_mono_ms() - t0 >= 200);
    wait_for_end(&e[1]);
    for (int i = 0; i < N; i++)
        milter_pair_close(&s[i]);
}

/* The last one: it ends holding for the whole program. */
static void
test_hold_stop_sends_what_is_held_at_once(void **state)
{
    struct milter_pair s;
    struct ending e = {0};
    (void)state;
    milter_pair_open(&s);
    int fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 60000, false, &e), CM_HOLD_OK);
    milter_pair_reply(fd, "bye");
    cm_hold_stop();
    milter_pair_expect(&s, "bye", 1000);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_CUT);
    assert_true(cm_hold_sleep(60000) < 30000);
    fd = milter_pair_command(&s);
    assert_int_equal(hold(fd, 10, false, &e), CM_HOLD_FULL);
    milter_pair_close(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hold_until_held_reply_comes_when_due),
        cmocka_unit_test(test_hold_until_next_reply_of_session_is_not_held),
        cmocka_unit_test(test_hold_until_of_every_command_in_a_row_is_taken),
        cmocka_unit_test(test_hold_until_place_of_a_sent_reply_is_free),
        cmocka_unit_test(
            test_hold_until_with_progress_sends_packets_before_the_reply),
        cmocka_unit_test(
            test_hold_until_look_is_asked_at_each_tick_and_when_due),
        cmocka_unit_test(
            test_hold_until_look_that_finds_nobody_sends_the_reply_now),
        cmocka_unit_test(
            test_hold_until_look_that_finds_nobody_when_due_changes_nothing),
        cmocka_unit_test(test_hold_until_many_sessions_each_keeps_its_own_time),
        cmocka_unit_test(test_hold_until_session_closed_drops_the_hold_at_once),
        cmocka_unit_test(test_hold_until_peer_gone_ends_without_signal),
        cmocka_unit_test(test_writev_during_hold_comes_after_the_held_reply),
        cmocka_unit_test(
            test_hold_until_while_a_reply_is_held_is_full_and_keeps_order),
        cmocka_unit_test(test_read_in_a_callback_does_not_disturb_the_hold),
        cmocka_unit_test(test_hold_until_unverified_session_is_unable),
        cmocka_unit_test(test_hold_until_other_descriptor_is_unable),
        cmocka_unit_test(test_hold_until_unused_promise_is_given_back),
        cmocka_unit_test(test_hold_until_beyond_the_cap_is_full),
        cmocka_unit_test(
            test_hold_release_sends_what_is_held_and_holds_nothing_meanwhile),
        cmocka_unit_test(test_hold_stop_sends_what_is_held_at_once),
    };
    return cmocka_run_group_tests(tests, start_holding, stop_holding);
}
