/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reply hold, with this program in libmilter's place: a session is a socket
 * pair, a command is a byte, and a "callback" is what lies between read() and
 * writev() on one thread. Times are asserted from below (a reply never comes
 * early) and, where a thread must not have slept, against the delay itself.
 */
#include "milter/filter/hold.h"
#include "milter/clock.h"

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

struct session {
    int mta, milter; /* the two ends */
};

struct ending {
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

static int
start_holding(void **state)
{
    struct cm_hold_opts opts = {.max_held = MAX_HELD,
                                .progress_ms = PROGRESS_MS};
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
reply(int fd, const char *text)
{
    struct iovec iov[2] = {
        {.iov_base = (char *)text, .iov_len = 1},
        {.iov_base = (char *)text + 1, .iov_len = strlen(text + 1)}};
    assert_int_equal(writev(fd, iov, 2), (ssize_t)strlen(text));
}

/* A command arrives: what libmilter does before it calls back. */
static int
command(struct session *s)
{
    char c;
    assert_int_equal(send(s->mta, "x", 1, 0), 1);
    assert_int_equal(read(s->milter, &c, 1), 1);
    return cm_hold_enter();
}

static void
expect_text(struct session *s, const char *text, int timeout_ms)
{
    char got[64] = "";
    size_t want = strlen(text), n = 0;
    struct pollfd p = {.fd = s->mta, .events = POLLIN};
    while (n < want) {
        assert_int_equal(poll(&p, 1, timeout_ms), 1);
        ssize_t more = recv(s->mta, got + n, want - n, 0);
        assert_true(more > 0);
        n += (size_t)more;
    }
    assert_memory_equal(got, text, want);
}

static void
expect_silence(struct session *s, int ms)
{
    struct pollfd p = {.fd = s->mta, .events = POLLIN};
    assert_int_equal(poll(&p, 1, ms), 0);
}

static void
wait_for_end(struct ending *e)
{
    for (int i = 0; i < 2000 && atomic_load(&e->count) == 0; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&e->count), 1);
}

/* A session whose negotiation was answered through the hook. */
static void
open_session(struct session *s)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    s->mta = fds[0];
    s->milter = fds[1];
    int fd = command(s);
    assert_int_equal(fd, s->milter);
    cm_hold_watch(fd);
    reply(fd, "opts");
    expect_text(s, "opts", 1000);
}

static void
close_session(struct session *s)
{
    close(s->milter);
    close(s->mta);
}

static void
test_hold_until_held_reply_comes_when_due(void **state)
{
    struct session s;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    int64_t t0 = cm_clock_mono_ms();
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 300, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "cont");
    /* The thread that "ran the callback" did not sleep. */
    assert_true(cm_clock_mono_ms() - t0 < 250);
    assert_int_equal(cm_hold_count(), 1);
    expect_text(&s, "cont", 5000);
    assert_true(cm_clock_mono_ms() - t0 >= 300);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_SENT);
    assert_true(atomic_load(&e.measured_ms) >= 300);
    assert_int_equal(cm_hold_count(), 0);
    assert_false(cm_hold_has_slept());
    close_session(&s);
}

static void
test_hold_until_next_reply_of_session_is_not_held(void **state)
{
    struct session s;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 50, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "late");
    expect_text(&s, "late", 5000);
    fd = command(&s);
    reply(fd, "soon");
    expect_text(&s, "soon", 40);
    wait_for_end(&e);
    close_session(&s);
}

static void
test_hold_until_with_progress_sends_packets_before_the_reply(void **state)
{
    struct session s;
    struct ending e = {0};
    unsigned char got[64];
    size_t n = 0, packets = 0;
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 5 * PROGRESS_MS, true, note_end, &e),
                     CM_HOLD_OK);
    reply(fd, "last");
    wait_for_end(&e);
    ssize_t got_n = recv(s.mta, got, sizeof got, 0);
    assert_true(got_n > 4);
    while (n + 5 <= (size_t)got_n && memcmp(got + n, "\0\0\0\1p", 5) == 0) {
        n += 5;
        packets++;
    }
    /* Four are due; a busy machine may skip one, never send more. */
    assert_in_range(packets, 2, 4);
    assert_int_equal((size_t)got_n - n, 4);
    assert_memory_equal(got + n, "last", 4);
    close_session(&s);
}

static void
test_hold_until_many_sessions_each_keeps_its_own_time(void **state)
{
    enum { N = 100 };
    struct session s[N];
    struct ending e[N];
    struct pollfd p[N];
    int64_t t0[N], due[N];
    int left = N;
    (void)state;
    memset(e, 0, sizeof e);
    for (int i = 0; i < N; i++)
        open_session(&s[i]);
    for (int i = 0; i < N; i++) {
        int fd = command(&s[i]);
        due[i] = 50 + (i * 37) % 200;
        t0[i] = cm_clock_mono_ms();
        assert_int_equal(cm_hold_until(fd, due[i], false, note_end, &e[i]),
                         CM_HOLD_OK);
        reply(fd, "r");
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
        close_session(&s[i]);
    }
}

static void
test_hold_until_session_closed_drops_the_hold_at_once(void **state)
{
    struct session s, next;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 10000, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "gone");
    close_session(&s);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_GONE);
    assert_int_equal(cm_hold_count(), 0);
    /* The numbers are used again at once: the old reply must not come out. */
    open_session(&next);
    expect_silence(&next, 50);
    close_session(&next);
}

static void
test_hold_until_peer_gone_ends_without_signal(void **state)
{
    struct session s;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 30, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "gone");
    close(s.mta);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_GONE);
    close(s.milter);
}

static void
test_writev_during_hold_comes_after_the_held_reply(void **state)
{
    struct session s;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 100, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "first");
    reply(fd, "second");
    expect_silence(&s, 30);
    expect_text(&s, "firstsecond", 5000);
    wait_for_end(&e);
    close_session(&s);
}

static void
test_hold_until_while_a_reply_is_held_is_full_and_keeps_order(void **state)
{
    struct session s, next;
    struct ending e = {0}, second = {0};
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 200, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "first");
    /* A peer that does not wait for its answer. */
    fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 50, false, note_end, &second),
                     CM_HOLD_FULL);
    reply(fd, "second");
    expect_silence(&s, 80);
    assert_int_equal(cm_hold_count(), 1);
    close_session(&s);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&second.count), 0);
    open_session(&next);
    expect_silence(&next, 250);
    close_session(&next);
}

static void
test_read_in_a_callback_does_not_disturb_the_hold(void **state)
{
    struct session s;
    struct ending e = {0};
    int other[2];
    char c;
    (void)state;
    open_session(&s);
    assert_int_equal(pipe(other), 0);
    int fd = command(&s);
    assert_int_equal(write(other[1], "x", 1), 1);
    assert_int_equal(read(other[0], &c, 1), 1);
    assert_int_equal(cm_hold_until(fd, 30, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "late");
    expect_text(&s, "late", 5000);
    wait_for_end(&e);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_SENT);
    close(other[0]);
    close(other[1]);
    close_session(&s);
}

static void
test_hold_until_unverified_session_is_unable(void **state)
{
    struct session s;
    struct ending e = {0};
    int fds[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    s.mta = fds[0];
    s.milter = fds[1];
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 10, false, note_end, &e),
                     CM_HOLD_UNABLE);
    reply(fd, "now");
    expect_text(&s, "now", 1000);
    /* A negotiation whose reply went past the hook proves nothing either. */
    fd = command(&s);
    cm_hold_watch(fd);
    assert_int_equal(send(s.milter, "opts", 4, 0), 4);
    expect_text(&s, "opts", 1000);
    fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 10, false, note_end, &e),
                     CM_HOLD_UNABLE);
    assert_int_equal(atomic_load(&e.count), 0);
    close_session(&s);
}

static void
test_hold_until_other_descriptor_is_unable(void **state)
{
    struct session a, b;
    struct ending e = {0};
    (void)state;
    open_session(&a);
    open_session(&b);
    (void)command(&a);
    assert_int_equal(cm_hold_until(b.milter, 10, false, note_end, &e),
                     CM_HOLD_UNABLE);
    close_session(&a);
    close_session(&b);
}

static void
test_hold_until_unused_promise_is_given_back(void **state)
{
    struct session s;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    /* More often than there are places: each must be returned. */
    for (int i = 0; i < MAX_HELD + 10; i++) {
        atomic_store(&e.count, 0);
        int fd = command(&s);
        assert_int_equal(cm_hold_until(fd, 10, false, note_end, &e),
                         CM_HOLD_OK);
        (void)cm_hold_enter();
        assert_int_equal(atomic_load(&e.count), 1);
    }
    reply(s.milter, "now");
    expect_text(&s, "now", 1000);
    close_session(&s);
}

static void
test_hold_until_beyond_the_cap_is_full(void **state)
{
    struct session s[MAX_HELD + 1];
    struct ending e = {0}, extra = {0};
    (void)state;
    for (int i = 0; i <= MAX_HELD; i++)
        open_session(&s[i]);
    for (int i = 0; i < MAX_HELD; i++) {
        int fd = command(&s[i]);
        assert_int_equal(cm_hold_until(fd, 60000, false, note_end, &e),
                         CM_HOLD_OK);
        reply(fd, "h");
    }
    assert_int_equal(cm_hold_count(), MAX_HELD);
    int fd = command(&s[MAX_HELD]);
    assert_int_equal(cm_hold_until(fd, 60000, false, note_end, &extra),
                     CM_HOLD_FULL);
    reply(fd, "now");
    expect_text(&s[MAX_HELD], "now", 1000);
    for (int i = 0; i <= MAX_HELD; i++)
        close_session(&s[i]);
    assert_int_equal(atomic_load(&e.count), MAX_HELD);
    assert_int_equal(atomic_load(&extra.count), 0);
}

/* The last one: it ends holding for the whole program. */
static void
test_hold_stop_sends_what_is_held_at_once(void **state)
{
    struct session s;
    struct ending e = {0};
    (void)state;
    open_session(&s);
    int fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 60000, false, note_end, &e), CM_HOLD_OK);
    reply(fd, "bye");
    cm_hold_stop();
    expect_text(&s, "bye", 1000);
    assert_int_equal(atomic_load(&e.end), CM_HOLD_CUT);
    assert_true(cm_hold_sleep(60000) < 30000);
    fd = command(&s);
    assert_int_equal(cm_hold_until(fd, 10, false, note_end, &e), CM_HOLD_FULL);
    close_session(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hold_until_held_reply_comes_when_due),
        cmocka_unit_test(test_hold_until_next_reply_of_session_is_not_held),
        cmocka_unit_test(
            test_hold_until_with_progress_sends_packets_before_the_reply),
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
        cmocka_unit_test(test_hold_stop_sends_what_is_held_at_once),
    };
    return cmocka_run_group_tests(tests, start_holding, stop_holding);
}
