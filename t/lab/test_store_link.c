/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Links and the pool against a Redis that hangs, crawls, lies or refuses.
 * Covers R1, R3, R4, R7 to R9, R20, R23 and R24 of the list of cases.
 */
#include "milter/clock.h"
#include "milter/store/pool.h"
#include "milter/store/redis.h"
#include "t/lab/fake_redis.h"
#include "t/lab/redis_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

static struct redis_server server;

static int
start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&server);
    return 0;
}

static int
end_server(void **state)
{
    (void)state;
    redis_server_end(&server);
    return 0;
}

static struct cm_link *
open_link(void)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_link *link = NULL;
    struct cm_err err = {CM_OK, ""};
    if (cm_link_open(&link, &opts, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return link;
}

static enum cm_status
command(struct cm_link *link, const char *a, const char *b, int timeout_ms,
        enum cm_redis_class *class_r, struct cm_err *err)
{
    const char *argv[] = {a, b};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_link_command(link, &reply, b ? 2 : 1, argv, NULL,
                                        timeout_ms, class_r, err);
    cm_link_reply_free(&reply);
    return st;
}

/* --- what a lying server may send --- */

static void
test_collect_malformed_reply_kills_link(void **state)
{
    static const struct {
        const char *name, *say;
        bool hang_up;
    } cases[] = {
        {"bad type byte", "?what\r\n", false},
        {"array of -2", "*-2\r\n", false},
        {"array of 2^31-1", "*2147483647\r\n", false},
        {"array of 2^31", "*2147483648\r\n", false},
        {"array of no number", "*x\r\n", false},
        {"too many in parts", "*3\r\n*2\r\n+a\r\n+b\r\n*999998\r\n+c\r\n",
         false},
        {"bulk of -2", "$-2\r\n", false},
        {"bulk of no number", "$x\r\n", false},
        {"nested too deep",
         "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+a\r\n",
         false},
        {"integer beyond 64 bits", ":99999999999999999999\r\n", false},
        {"half a reply, then the end", "$100\r\nabc", true},
        {"nothing, then the end", "", true},
        {"binary", "\x00\xff\xfe\r\n", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake_redis fake = {.say = cases[i].say,
                                  .say_len = strlen(cases[i].say),
                                  .hang_up = cases[i].hang_up};
        if (strcmp(cases[i].name, "binary") == 0)
            fake.say_len = 5;
        fake_redis_start(&fake);
        struct cm_link_opts opts = {.address = fake.address,
                                    .connect_timeout_ms = 500,
                                    .command_timeout_ms = 300};
        struct cm_link *link = NULL;
        struct cm_err err = {CM_OK, ""};
        enum cm_redis_class class = CM_REDIS_OK;
        assert_int_equal(cm_link_open(&link, &opts, &err), CM_OK);
        int64_t start = cm_clock_mono_ms();
        enum cm_status st = command(link, "GET", "x", 0, &class, &err);
        print_message("  %-28s %s\n", cases[i].name, err.msg);
        assert_true(st == CM_EIO || st == CM_ETIMEOUT);
        assert_int_equal(class, CM_REDIS_GONE);
        assert_true(cm_clock_mono_ms() - start < 450);
        assert_false(cm_link_alive(link));
        assert_int_equal(command(link, "GET", "x", 0, NULL, NULL), CM_EIO);
        cm_link_close(&link);
        fake_redis_end(&fake);
    }
}

static void
test_collect_endless_reply_is_capped(void **state)
{
    static char chunk[65536];
    char head[] = "$9999999999\r\n";
    (void)state;
    memset(chunk, 'x', sizeof chunk);
    memcpy(chunk, head, sizeof head - 1);
    struct fake_redis fake = {
        .say = chunk, .say_len = sizeof chunk, .endless = true};
    fake_redis_start(&fake);
    struct cm_link_opts opts = {.address = fake.address,
                                .connect_timeout_ms = 500,
                                .command_timeout_ms = 20000};
    struct cm_link *link = NULL;
    struct cm_err err = {CM_OK, ""};
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_OK);
    assert_int_equal(command(link, "GET", "x", 0, NULL, &err), CM_EIO);
    assert_non_null(strstr(err.msg, "too large"));
    assert_true(fake.sent < (size_t)80 * 1024 * 1024);
    assert_false(cm_link_alive(link));
    cm_link_close(&link);
    fake_redis_end(&fake);
}

static void
test_command_crawling_server_meets_deadline(void **state)
{
    const char *say = "$5\r\nhello\r\n";
    struct fake_redis fake = {
        .say = say, .say_len = strlen(say), .pause_ms = 100};
    (void)state;
    fake_redis_start(&fake);
    struct cm_link_opts opts = {.address = fake.address,
                                .connect_timeout_ms = 500,
                                .command_timeout_ms = 300};
    struct cm_link *link = NULL;
    assert_int_equal(cm_link_open(&link, &opts, NULL), CM_OK);
    int64_t start = cm_clock_mono_ms();
    assert_int_equal(command(link, "GET", "x", 300, NULL, NULL), CM_ETIMEOUT);
    int64_t took = cm_clock_mono_ms() - start;
    assert_true(took >= 295 && took < 400);
    cm_link_close(&link);
    fake_redis_end(&fake);
}

static void
test_collect_surplus_reply_is_not_quiet(void **state)
{
    const char *say = "+one\r\n+two\r\n";
    struct fake_redis fake = {.say = say, .say_len = strlen(say)};
    (void)state;
    fake_redis_start(&fake);
    struct cm_link_opts opts = {.address = fake.address,
                                .connect_timeout_ms = 500,
                                .command_timeout_ms = 300};
    struct cm_link *link = NULL;
    assert_int_equal(cm_link_open(&link, &opts, NULL), CM_OK);
    assert_true(cm_link_quiet(link));
    assert_int_equal(command(link, "GET", "x", 0, NULL, NULL), CM_OK);
    assert_false(cm_link_quiet(link));
    cm_link_close(&link);
    fake_redis_end(&fake);
}

/* --- classes --- */

static void
test_reply_class_sorts_every_error(void **state)
{
    static const struct {
        const char *text;
        enum cm_redis_class class;
    } cases[] = {
        {"LOADING Redis is loading the dataset in memory", CM_REDIS_LATER},
        {"BUSY Redis is busy running a script", CM_REDIS_LATER},
        {"MASTERDOWN Link with MASTER is down", CM_REDIS_LATER},
        {"TRYAGAIN Multiple keys request", CM_REDIS_LATER},
        {"CLUSTERDOWN Hash slot not served", CM_REDIS_LATER},
        {"NOREPLICAS Not enough good replicas", CM_REDIS_LATER},
        {"MISCONF Redis is configured to save", CM_REDIS_LATER},
        {"OOM command not allowed", CM_REDIS_LATER},
        {"READONLY You can't write against a read only replica.",
         CM_REDIS_READONLY},
        {"NOAUTH Authentication required.", CM_REDIS_DENIED},
        {"WRONGPASS invalid username-password pair", CM_REDIS_DENIED},
        {"NOPERM this user has no permissions", CM_REDIS_DENIED},
        {"NOSCRIPT No matching script", CM_REDIS_NOSCRIPT},
        {"MOVED 3999 127.0.0.1:6381", CM_REDIS_MOVED},
        {"ASK 3999 127.0.0.1:6381", CM_REDIS_MOVED},
        {"WRONGTYPE Operation against a key", CM_REDIS_WRONGTYPE},
        {"CMCONFLICT x", CM_REDIS_CONFLICT},
        {"CMINVALID x", CM_REDIS_INVALID},
        {"ERR unknown command", CM_REDIS_REFUSED},
        {"LOADINGX", CM_REDIS_REFUSED},
        {"OOM", CM_REDIS_LATER},
        {"", CM_REDIS_REFUSED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        redisReply reply = {.type = REDIS_REPLY_ERROR,
                            .str = (char *)cases[i].text,
                            .len = strlen(cases[i].text)};
        if (cm_link_reply_class(&reply) != cases[i].class)
            fail_msg("%s", cases[i].text);
    }
    assert_int_equal(cm_link_reply_class(NULL), CM_REDIS_GONE);
}

static void
test_open_password_is_never_shown(void **state)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_link *link = NULL;
    struct cm_err err = {CM_OK, ""};
    (void)state;
    opts.password = "s3cr3t-word";
    opts.username = "nobody";
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_EPROTO);
    assert_null(link);
    assert_non_null(strstr(err.msg, "WRONGPASS"));
    assert_null(strstr(err.msg, "s3cr3t"));

    /* A server that repeats what it was sent. */
    const char *say = "-ERR unknown command AUTH with s3cr3t-word\r\n";
    struct fake_redis fake = {.say = say, .say_len = strlen(say)};
    fake_redis_start(&fake);
    opts.address = fake.address;
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_EPROTO);
    assert_null(strstr(err.msg, "s3cr3t"));
    fake_redis_end(&fake);
}

static void
test_open_with_password_works(void **state)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_link *link = NULL;
    struct cm_err err = {CM_OK, ""};
    enum cm_redis_class class;
    (void)state;
    redis_say(&server, "ACL", "SETUSER", "bob", "on", ">hush", "~a*", "+get",
              "+ping", "+select", NULL);
    opts.username = "bob";
    opts.password = "hush";
    opts.database = 1;
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_OK);
    assert_int_equal(command(link, "GET", "a1", 0, &class, &err), CM_OK);
    assert_int_equal(command(link, "GET", "b1", 0, &class, &err), CM_EPROTO);
    assert_int_equal(class, CM_REDIS_DENIED);
    assert_true(cm_link_alive(link));
    /* The right is taken away at run time. */
    redis_say(&server, "ACL", "SETUSER", "bob", "-get", NULL);
    assert_int_equal(command(link, "GET", "a1", 0, &class, &err), CM_EPROTO);
    assert_int_equal(class, CM_REDIS_DENIED);
    cm_link_close(&link);
    redis_say(&server, "ACL", "DELUSER", "bob", NULL);
}

static void
test_command_without_auth_is_denied(void **state)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_link *link = NULL;
    struct cm_err err = {CM_OK, ""};
    (void)state;
    redis_say(&server, "CONFIG", "SET", "requirepass", "hush", NULL);
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_EPROTO);
    assert_non_null(strstr(err.msg, "NOAUTH"));
    opts.password = "wrong";
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_EPROTO);
    assert_non_null(strstr(err.msg, "WRONGPASS"));
    opts.password = "hush";
    assert_int_equal(cm_link_open(&link, &opts, &err), CM_OK);
    const char *argv[] = {"CONFIG", "SET", "requirepass", ""};
    struct redisReply *reply = NULL;
    assert_int_equal(
        cm_link_command(link, &reply, 4, argv, NULL, 0, NULL, NULL), CM_OK);
    cm_link_reply_free(&reply);
    cm_link_close(&link);
}

/* --- addresses --- */

static void
test_check_address_table(void **state)
{
    static const struct {
        const char *text;
        enum cm_status st;
    } cases[] = {
        {"unix:/run/redis.sock", CM_OK},
        {"tcp:localhost:6379", CM_OK},
        {"tcp:[::1]:6379", CM_OK},
        {"tcp:127.0.0.1:1", CM_OK},
        {"", CM_EINVAL},
        {"unix:relative", CM_EINVAL},
        {"tcp:host", CM_EINVAL},
        {"tcp::6379", CM_EINVAL},
        {"tcp:host:0", CM_EINVAL},
        {"tcp:host:65536", CM_EINVAL},
        {"tcp:host:6379x", CM_EINVAL},
        {"tcp:::1:6379", CM_EINVAL},
        {"tcp:[::1]", CM_EINVAL},
        {"tcp:[::1:6379", CM_EINVAL},
        {"redis://host", CM_EINVAL},
        {"tcp:host:-1", CM_EINVAL},
    };
    char path[200] = "unix:/";
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (cm_link_check_address(cases[i].text, NULL) != cases[i].st)
            fail_msg("%s", cases[i].text);
    memset(path + 6, 'x', 150);
    assert_int_equal(cm_link_check_address(path, NULL), CM_EINVAL);
}

static void
test_open_unreachable_fails_in_time(void **state)
{
    static const struct {
        const char *address;
        enum cm_status st;
    } cases[] = {
        {"unix:/nonexistent/redis.sock", CM_EIO},
        {"tcp:127.0.0.1:9", CM_EIO},
        {"tcp:[::1]:9", CM_EIO},
        {"tcp:no-such-host.invalid:6379", CM_EIO},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_link_opts opts = {.address = cases[i].address,
                                    .connect_timeout_ms = 400,
                                    .command_timeout_ms = 100};
        struct cm_link *link = NULL;
        struct cm_err err = {CM_OK, ""};
        int64_t start = cm_clock_mono_ms();
        enum cm_status st = cm_link_open(&link, &opts, &err);
        int64_t took = cm_clock_mono_ms() - start;
        print_message("  %-32s %s (%d ms)\n", cases[i].address, err.msg,
                      (int)took);
        assert_true(st == cases[i].st || st == CM_ETIMEOUT);
        assert_true(took < 700);
    }
}

/* --- a stopped server --- */

static void
test_command_frozen_server_meets_deadline(void **state)
{
    struct cm_link *link = open_link();
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_link *other = NULL;
    (void)state;
    redis_server_freeze(&server);
    int64_t start = cm_clock_mono_ms();
    assert_int_equal(command(link, "INCR", "frozen", 200, NULL, NULL),
                     CM_ETIMEOUT);
    int64_t took = cm_clock_mono_ms() - start;
    assert_true(took >= 195 && took < 300);
    assert_false(cm_link_alive(link));
    /* It accepts connections all the same, and says nothing. */
    opts.connect_timeout_ms = 300;
    opts.command_timeout_ms = 100;
    start = cm_clock_mono_ms();
    assert_int_equal(cm_link_open(&other, &opts, NULL), CM_ETIMEOUT);
    assert_true(cm_clock_mono_ms() - start < 550);
    redis_server_thaw(&server);
    /* The dead link never comes back with the late answer. */
    assert_int_equal(command(link, "GET", "frozen", 200, NULL, NULL), CM_EIO);
    cm_link_close(&link);
    link = open_link();
    assert_int_equal(command(link, "PING", NULL, 0, NULL, NULL), CM_OK);
    cm_link_close(&link);
}

static void
test_command_interrupt_ends_wait(void **state)
{
    struct cm_link *link = open_link();
    struct redisReply *reply = NULL;
    const char *argv[] = {"BLPOP", "never", "10"};
    int fd = eventfd(1, EFD_CLOEXEC);
    (void)state;
    cm_link_interrupt_fd(link, fd);
    int64_t start = cm_clock_mono_ms();
    assert_int_equal(
        cm_link_command(link, &reply, 3, argv, NULL, 10000, NULL, NULL),
        CM_EIO);
    assert_true(cm_clock_mono_ms() - start < 100);
    assert_false(cm_link_alive(link));
    cm_link_close(&link);
    close(fd);
}

static void
test_command_killed_client_is_no_signal(void **state)
{
    struct cm_link *link = open_link();
    (void)state;
    redis_say(&server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
              NULL);
    assert_false(cm_link_quiet(link));
    assert_int_equal(command(link, "PING", NULL, 0, NULL, NULL), CM_EIO);
    assert_int_equal(command(link, "PING", NULL, 0, NULL, NULL), CM_EIO);
    cm_link_close(&link);
}

static void
test_open_socket_is_close_on_exec(void **state)
{
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)state;
    close(before); /* the next descriptor is this number */
    struct cm_link *link = open_link();
    assert_true(fcntl(before, F_GETFD) & FD_CLOEXEC);
    cm_link_close(&link);
}

static void
test_collect_pipeline_keeps_order(void **state)
{
    struct cm_link *link = open_link();
    (void)state;
    for (int i = 0; i < 10000; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *argv[] = {"ECHO", number};
        assert_int_equal(cm_link_append(link, 2, argv, NULL, NULL), CM_OK);
    }
    for (int i = 0; i < 10000; i++) {
        struct redisReply *reply = NULL;
        assert_int_equal(cm_link_collect(link, &reply, 2000, NULL), CM_OK);
        assert_int_equal(atoi(reply->str), i);
        cm_link_reply_free(&reply);
    }
    cm_link_close(&link);
}

/* --- the pool --- */

static void
test_pool_frozen_server_costs_one_deadline(void **state)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_pool *pool = NULL;
    struct cm_link *link = NULL;
    struct cm_err err;
    (void)state;
    opts.connect_timeout_ms = 200;
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_pool_get(pool, &link, 500, NULL), CM_OK);
    cm_pool_put(pool, &link);
    assert_int_equal(cm_pool_retry_ms(pool), 0);

    redis_server_freeze(&server);
    assert_int_equal(cm_pool_get(pool, &link, 500, NULL), CM_OK);
    int64_t start = cm_clock_mono_ms();
    assert_int_equal(command(link, "PING", NULL, 150, NULL, NULL), CM_ETIMEOUT);
    cm_pool_put(pool, &link);
    assert_null(link);
    assert_true(cm_clock_mono_ms() - start < 250);
    start = cm_clock_mono_ms();
    for (int i = 0; i < 1000; i++)
        assert_int_equal(cm_pool_get(pool, &link, 500, &err), CM_EIO);
    assert_true(cm_clock_mono_ms() - start < 50);
    assert_true(cm_pool_retry_ms(pool) > 0);

    redis_server_thaw(&server);
    WAIT_UNTIL(cm_pool_get(pool, &link, 500, NULL) == CM_OK, 3000);
    assert_int_equal(command(link, "PING", NULL, 500, NULL, NULL), CM_OK);
    cm_pool_put(pool, &link);
    assert_int_equal(cm_pool_retry_ms(pool), 0);
    cm_pool_free(&pool);
}

static void
test_pool_backoff_grows_and_ends(void **state)
{
    struct cm_link_opts opts = {.address = "unix:/nonexistent/redis.sock",
                                .connect_timeout_ms = 100,
                                .command_timeout_ms = 100};
    struct cm_pool *pool = NULL;
    struct cm_link *link = NULL;
    int waits[5];
    (void)state;
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    for (int i = 0; i < 5; i++) {
        WAIT_UNTIL(cm_pool_retry_ms(pool) <= 1, 6000);
        usleep(2000);
        assert_int_equal(cm_pool_get(pool, &link, 100, NULL), CM_EIO);
        waits[i] = cm_pool_retry_ms(pool);
    }
    for (int i = 0; i < 5; i++)
        assert_in_range(waits[i], (50 << i) - 3, 100 << i);
    cm_pool_free(&pool);
}

static void
test_pool_restarted_server_is_no_failure(void **state)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_pool *pool = NULL;
    struct cm_link *link = NULL;
    (void)state;
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_pool_get(pool, &link, 500, NULL), CM_OK);
    cm_pool_put(pool, &link);
    redis_server_kill(&server);
    redis_server_again(&server);
    assert_int_equal(cm_pool_get(pool, &link, 500, NULL), CM_OK);
    assert_int_equal(command(link, "PING", NULL, 500, NULL, NULL), CM_OK);
    cm_pool_put(pool, &link);
    cm_pool_free(&pool);
}

static void
test_pool_full_waits_then_times_out(void **state)
{
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_pool *pool = NULL;
    struct cm_link *one = NULL, *two = NULL;
    (void)state;
    assert_int_equal(cm_pool_new(&pool, &opts, 1, NULL), CM_OK);
    assert_int_equal(cm_pool_get(pool, &one, 500, NULL), CM_OK);
    int64_t start = cm_clock_mono_ms();
    assert_int_equal(cm_pool_get(pool, &two, 100, NULL), CM_ETIMEOUT);
    int64_t took = cm_clock_mono_ms() - start;
    assert_true(took >= 95 && took < 200);
    cm_pool_put(pool, &one);
    assert_int_equal(cm_pool_get(pool, &two, 100, NULL), CM_OK);
    cm_pool_retire(pool, &two);
    assert_int_equal(cm_pool_retry_ms(pool), 0);
    assert_int_equal(cm_pool_get(pool, &two, 500, NULL), CM_OK);
    cm_pool_put(pool, &two);
    cm_pool_free(&pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_address_table),
        cmocka_unit_test(test_reply_class_sorts_every_error),
        cmocka_unit_test(test_collect_malformed_reply_kills_link),
        cmocka_unit_test(test_collect_endless_reply_is_capped),
        cmocka_unit_test(test_command_crawling_server_meets_deadline),
        cmocka_unit_test(test_collect_surplus_reply_is_not_quiet),
        cmocka_unit_test(test_open_unreachable_fails_in_time),
        cmocka_unit_test(test_open_password_is_never_shown),
        cmocka_unit_test(test_open_with_password_works),
        cmocka_unit_test(test_command_without_auth_is_denied),
        cmocka_unit_test(test_command_frozen_server_meets_deadline),
        cmocka_unit_test(test_command_interrupt_ends_wait),
        cmocka_unit_test(test_command_killed_client_is_no_signal),
        cmocka_unit_test(test_open_socket_is_close_on_exec),
        cmocka_unit_test(test_collect_pipeline_keeps_order),
        cmocka_unit_test(test_pool_frozen_server_costs_one_deadline),
        cmocka_unit_test(test_pool_backoff_grows_and_ends),
        cmocka_unit_test(test_pool_restarted_server_is_no_failure),
        cmocka_unit_test(test_pool_full_waits_then_times_out),
    };
    return cmocka_run_group_tests_name("store_link", tests, start_server,
                                       end_server);
}
