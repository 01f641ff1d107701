/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of the dropper's processes: they die, sleep or are asked by many at
 * once, and a drop is done as asked or not at all; nothing of them is left.
 */
#include "milter/clock.h"
#include "milter/privs.h"
#include "t/lab/drop_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- a child that fails --- */

static void
test_dead_worker_is_unavailable_then_replaced(void **state)
{
    (void)state;
    struct tcp_pair pair;
    int listener = tcp_listen(TCP_V4, rig.port);
    tcp_connect(&pair, listener, TCP_V4, rig.port);
    for (int i = 0; i < 3; i++) {
        pid_t first = rig_worker(getpid());
        assert_int_equal(kill(first, SIGKILL), 0);
        assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_EIO);
        assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_RST));
        assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_FIN));
        WAIT_UNTIL(rig_is_up(), 5000);
        assert_int_not_equal(rig_worker(getpid()), first);
        assert_true(tcp_works(&pair));
    }
    rig_check_process(rig_worker(getpid()), RIG_BOTH_CAPS, "2");
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_OK);
    assert_int_equal(tcp_client_end(&pair), TCP_RESET);
    tcp_close(&pair);
    close(listener);
}

struct asker {
    const struct cm_tuple *tuple;
    enum cm_status status;
    int64_t took_ms;
};

static void *
ask_once(void *arg)
{
    struct asker *asker = arg;
    int64_t began_ms = cm_clock_mono_ms();
    asker->status =
        cm_dropper_drop(rig.dropper, CM_DROP_RST, asker->tuple, 0, NULL);
    asker->took_ms = cm_clock_mono_ms() - began_ms;
    return NULL;
}

/* The request lies unread when its worker dies; the next one must leave it. */
static void
test_request_in_flight_fails_and_is_never_executed(void **state)
{
    (void)state;
    struct tcp_pair pair;
    pthread_t thread;
    pid_t worker = rig_worker(getpid());
    struct cm_dropper_opts opts = rig_usual();
    int listener = tcp_listen(TCP_V4, rig.port);
    cm_dropper_stop(&rig.dropper);
    opts.deadline_ms = 20000; /* so that it is not the deadline that saves us */
    rig_start(&opts);
    worker = rig_worker(getpid());
    tcp_connect(&pair, listener, TCP_V4, rig.port);
    struct asker asker = {.tuple = &pair.tuple};
    assert_int_equal(kill(worker, SIGSTOP), 0);
    assert_int_equal(pthread_create(&thread, NULL, ask_once, &asker), 0);
    usleep(50000);
    assert_int_equal(kill(worker, SIGKILL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(asker.status, CM_EIO);
    assert_true(asker.took_ms < 5000);
    WAIT_UNTIL(rig_is_up(), 5000);
    usleep(50000);
    assert_true(tcp_works(&pair));
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_OK);
    tcp_close(&pair);
    close(listener);
}

static void
test_worker_that_sleeps_meets_the_deadline_and_does_nothing_late(void **state)
{
    (void)state;
    struct tcp_pair late, next;
    pthread_t thread;
    pid_t worker = rig_worker(getpid());
    int listener = tcp_listen(TCP_V4, rig.port);
    tcp_connect(&late, listener, TCP_V4, rig.port);
    tcp_connect(&next, listener, TCP_V4, rig.port);
    struct asker first = {.tuple = &late.tuple},
                 second = {.tuple = &next.tuple};
    assert_int_equal(kill(worker, SIGSTOP), 0);
    ask_once(&first);
    assert_int_equal(first.status, CM_ETIMEOUT);
    assert_in_range(first.took_ms, RIG_DEADLINE_MS, 3 * RIG_DEADLINE_MS);
    /* Woken up, it must refuse the first, and that answer is not the second's.
     */
    assert_int_equal(pthread_create(&thread, NULL, ask_once, &second), 0);
    usleep(100000);
    assert_int_equal(kill(worker, SIGCONT), 0);
    pthread_join(thread, NULL);
    assert_int_equal(second.status, CM_OK);
    assert_int_equal(tcp_client_end(&next), TCP_RESET);
    assert_true(tcp_works(&late));
    assert_int_equal(rig_worker(getpid()), worker);
    tcp_close(&late);
    tcp_close(&next);
    close(listener);
}

static void
test_dead_keeper_takes_the_worker_along(void **state)
{
    (void)state;
    struct cm_tuple tuple = {
        .client = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = 1},
        .mta = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = rig.port}};
    pid_t worker = rig_worker(getpid());
    assert_int_equal(kill(rig_keeper(getpid()), SIGKILL), 0);
    WAIT_UNTIL(proc_is_gone(worker), 5000);
    assert_int_equal(rig_drop(CM_DROP_RST, &tuple), CM_EIO);
    assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_RST));
    assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_FIN));
}

static void
filter_that_is_killed(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = rig_usual();
    struct cm_err err;
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    CHECK(cm_privs_drop(RIG_USER, NULL, &err) == CM_OK);
    pause();
}

static void
test_filter_killed_takes_its_children_along(void **state)
{
    (void)state;
    int how;
    pid_t keeper, worker, filter = fork();
    if (filter == 0) {
        filter_that_is_killed();
        _exit(1);
    }
    WAIT_UNTIL((worker = rig_worker(filter)) != 0, 5000);
    keeper = rig_keeper(filter);
    /* A terminal's or a service manager's signal is not for them. */
    kill(keeper, SIGTERM);
    kill(worker, SIGTERM);
    kill(worker, SIGINT);
    usleep(20000);
    assert_int_equal(rig_worker(filter), worker);
    kill(filter, SIGKILL);
    assert_int_equal(waitpid(filter, &how, 0), filter);
    WAIT_UNTIL(proc_is_gone(worker), 5000);
    WAIT_UNTIL(proc_is_gone(keeper), 5000);
}

/* --- many --- */

#define THREADS 8
#define DROPS   50

static int shared_listener;
static pthread_mutex_t accepting = PTHREAD_MUTEX_INITIALIZER;
static atomic_int done, reset, ended, finished;

static void *
drop_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < DROPS; i++) {
        struct tcp_pair pair;
        enum cm_drop_how how = i % 2 ? CM_DROP_FIN : CM_DROP_RST;
        pthread_mutex_lock(&accepting);
        tcp_connect(&pair, shared_listener, TCP_V4, rig.port);
        pthread_mutex_unlock(&accepting);
        if (cm_dropper_drop(rig.dropper, how, &pair.tuple, getpid(), NULL) ==
            CM_OK)
            atomic_fetch_add(&done, 1);
        enum tcp_end end = tcp_client_end(&pair);
        if (end == TCP_RESET && how == CM_DROP_RST)
            atomic_fetch_add(&reset, 1);
        if (end == TCP_EOF && how == CM_DROP_FIN)
            atomic_fetch_add(&ended, 1);
        tcp_close(&pair);
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

static void
test_drop_from_many_threads_counts_exactly(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    pid_t worker = rig_worker(getpid());
    int ours = proc_descriptors(getpid()), theirs = proc_descriptors(worker);
    atomic_store(&done, 0);
    atomic_store(&reset, 0);
    atomic_store(&ended, 0);
    atomic_store(&finished, 0);
    shared_listener = tcp_listen(TCP_V4, rig.port);
    int64_t began_us = cm_clock_mono_us();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, drop_many, NULL), 0);
    /* The heartbeat asks too, and must take nobody's answer away. */
    while (atomic_load(&finished) < THREADS)
        assert_true(rig_is_up());
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    print_message("%d drops in %lld us\n", THREADS * DROPS,
                  (long long)(cm_clock_mono_us() - began_us));
    close(shared_listener);
    assert_int_equal(atomic_load(&done), THREADS * DROPS);
    assert_int_equal(atomic_load(&reset), THREADS * DROPS / 2);
    assert_int_equal(atomic_load(&ended), THREADS * DROPS / 2);
    assert_int_equal(proc_descriptors(getpid()), ours);
    assert_int_equal(rig_worker(getpid()), worker);
    assert_int_equal(proc_descriptors(worker), theirs);
}

static void
test_rate_limit_refuses_and_recovers(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = rig_usual();
    struct tcp_pair pair;
    struct cm_err err;
    int listener = tcp_listen(TCP_V4, rig.port);
    cm_dropper_stop(&rig.dropper);
    opts.per_second = 5;
    rig_start(&opts);
    int64_t began_ms = cm_clock_mono_ms();
    for (int i = 0; i < 5; i++) {
        tcp_connect(&pair, listener, TCP_V4, rig.port);
        assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_OK);
        tcp_close(&pair);
    }
    tcp_connect(&pair, listener, TCP_V4, rig.port);
    enum cm_status status =
        cm_dropper_drop(rig.dropper, CM_DROP_RST, &pair.tuple, 0, &err);
    if (cm_clock_mono_ms() - began_ms >= 200)
        skip(); /* so slow a machine has earned its sixth */
    assert_int_equal(status, CM_EIO);
    assert_non_null(strstr(err.msg, "5 drops"));
    assert_true(tcp_works(&pair));
    usleep(250000);
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_OK);
    tcp_close(&pair);
    close(listener);
}

static void
test_start_and_stop_leave_nothing(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = rig_usual();
    cm_dropper_stop(&rig.dropper);
    assert_null(rig.dropper);
    cm_dropper_stop(&rig.dropper);
    int before = proc_descriptors(getpid());
    for (int i = 0; i < 10; i++) {
        rig_start(&opts);
        assert_true(rig_is_up());
        cm_dropper_stop(&rig.dropper);
    }
    assert_int_equal(proc_descriptors(getpid()), before);
    assert_int_equal(rig_keeper(getpid()), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void
test_start_refuses_bad_options(void **state)
{
    (void)state;
    struct cm_dropper *none = NULL;
    struct cm_dropper_opts good = rig_usual(), bad[6];
    for (int i = 0; i < 6; i++)
        bad[i] = good;
    bad[0].nports = CM_DROPPER_PORTS_MAX + 1;
    bad[1].ports[1] = 0;
    bad[2].deadline_ms = 0;
    bad[3].per_second = 0;
    bad[4].user = "no such user";
    bad[5].user = "";
    for (int i = 0; i < 6; i++) {
        struct cm_err err = {CM_OK, ""};
        assert_int_equal(cm_dropper_start(&none, &bad[i], &err), CM_EINVAL);
        assert_true(err.msg[0]);
        assert_null(none);
    }
}

static void
test_no_ports_means_no_process(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = rig_usual();
    cm_dropper_stop(&rig.dropper);
    opts.nports = 0;
    rig_start(&opts);
    assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_RST));
    assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_FIN));
    assert_int_equal(rig_keeper(getpid()), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_dead_worker_is_unavailable_then_replaced),
        RIG_TEST(test_request_in_flight_fails_and_is_never_executed),
        RIG_TEST(
            test_worker_that_sleeps_meets_the_deadline_and_does_nothing_late),
        RIG_TEST(test_dead_keeper_takes_the_worker_along),
        RIG_TEST(test_filter_killed_takes_its_children_along),
        RIG_TEST(test_drop_from_many_threads_counts_exactly),
        RIG_TEST(test_rate_limit_refuses_and_recovers),
        RIG_TEST(test_start_and_stop_leave_nothing),
        RIG_TEST(test_start_refuses_bad_options),
        RIG_TEST(test_no_ports_means_no_process),
    };
    return rig_is_ready() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
