/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The halt against a real Redis: how fast it is obeyed, also while a filter has
 * other things to do, and what stays of it when Redis, the filter or both are
 * gone. P8 and R2, R3, R9, R10 of the list of cases, as far as they concern it.
 */
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/store/commit.h"
#include "milter/store/halt.h"
#include "milter/store/halt_watch.h"
#include "milter/store/redis.h"
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
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

static struct redis_server server;
static struct cm_pool *pool;
static struct cm_commits *commits;
static atomic_int changes;

static int
start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    cm_log_set_level(CM_LOG_ERR);
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

static int
fresh(void **state)
{
    (void)state;
    if (server.pid == 0)
        redis_server_again(&server);
    redis_say(&server, "FLUSHALL", NULL);
    struct cm_link_opts opts = redis_server_opts(&server);
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&commits, pool, "{cm}", true, 1000, NULL),
                     CM_OK);
    atomic_store(&changes, 0);
    return 0;
}

static int
finish(void **state)
{
    (void)state;
    cm_commits_free(&commits);
    cm_pool_free(&pool);
    return 0;
}

static void
note_change(void *arg, bool halted)
{
    (void)arg;
    (void)halted;
    atomic_fetch_add(&changes, 1);
}

static struct cm_halt_watch *
start_watch(int dir_fd)
{
    struct cm_halt_watch *watch = NULL;
    struct cm_err err = {CM_OK, ""};
    struct cm_halt_watch_opts opts = {.link = redis_server_opts(&server),
                                      .prefix = "{cm}",
                                      .dir_fd = dir_fd,
                                      .name = "snapshot.halted",
                                      .changed = note_change};
    if (cm_halt_watch_start(&watch, &opts, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return watch;
}

static void
stop_watch(struct cm_halt_watch **watch)
{
    int64_t start = cm_clock_mono_ms();
    cm_halt_watch_stop(*watch);
    assert_true(cm_clock_mono_ms() - start < 250);
    cm_halt_watch_free(watch);
}

static bool
report_has(struct cm_halt_watch *watch, const char *text)
{
    struct cm_buf buf;
    cm_buf_init(&buf, 65536);
    cm_halt_watch_report(watch, &buf);
    bool found = buf.data && strstr(buf.data, text) != NULL;
    cm_buf_fini(&buf);
    return found;
}

static struct cm_halt
halt(const char *reason)
{
    struct cm_halt now;
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_halt(commits, reason, &now, &err) != CM_OK)
        fail_msg("%s", err.msg);
    assert_true(now.halted);
    return now;
}

static void
resume(void)
{
    struct cm_halt now;
    assert_int_equal(cm_commit_resume(commits, &now, NULL), CM_OK);
    assert_false(now.halted);
}

#define ON(watch)  cm_halt_watch_on(watch)
#define OFF(watch) (!cm_halt_watch_on(watch))

/* --- the switch in Redis --- */

static void
test_halt_keeps_who_when_and_why_of_the_first(void **state)
{
    struct cm_halt now;
    (void)state;
    assert_int_equal(cm_commit_halted(commits, &now, NULL), CM_OK);
    assert_false(now.halted);
    assert_int_equal(now.at_ms, 0);
    int64_t before_ms = cm_clock_wall_ms();
    struct cm_commits *ann = cm_commits_as(commits, "ann");
    assert_non_null(ann);
    assert_int_equal(cm_commit_halt(ann, "load test in \"prod\"", &now, NULL),
                     CM_OK);
    cm_commits_free(&ann);
    assert_string_equal(now.by, "ann");
    assert_string_equal(now.reason, "load test in \"prod\"");
    assert_true(now.at_ms >= before_ms && now.at_ms <= cm_clock_wall_ms());
    now = halt("another");
    assert_string_equal(now.by, "ann");
    assert_string_equal(now.reason, "load test in \"prod\"");
    resume();
    now = halt("");
    assert_string_equal(now.by, "chaosadmin");
    assert_int_equal(redis_say(&server, "XLEN", "{cm}:halt", NULL)->integer, 1);
}

static void
test_halt_reason_that_is_none_is_refused(void **state)
{
    char large[CM_HALT_REASON_MAX + 2];
    struct cm_halt now;
    (void)state;
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    assert_int_equal(cm_commit_halt(commits, large, &now, NULL), CM_EINVAL);
    assert_int_equal(cm_commit_halt(commits, "a\r\nb", &now, NULL), CM_EINVAL);
    assert_int_equal(cm_commit_halted(commits, &now, NULL), CM_OK);
    assert_false(now.halted);
}

static void
test_halt_replaces_what_is_no_stream(void **state)
{
    struct cm_halt now;
    (void)state;
    redis_say(&server, "SET", "{cm}:halt", "no", NULL);
    assert_int_not_equal(cm_commit_halted(commits, &now, NULL), CM_OK);
    halt("");
    assert_int_equal(cm_commit_halted(commits, &now, NULL), CM_OK);
    assert_true(now.halted);
}

static void
test_halt_works_when_redis_has_no_memory_left(void **state)
{
    struct cm_halt now;
    (void)state;
    redis_say(&server, "CONFIG", "SET", "maxmemory", "1", NULL);
    assert_int_not_equal(cm_commit_set(commits, CM_KIND_INBOX, "a@b.c", "{}", 2,
                                       CM_REV_ANY, NULL, NULL),
                         CM_OK);
    halt("full");
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    assert_int_equal(cm_commit_halted(commits, &now, NULL), CM_OK);
    assert_true(now.halted);
}

/* --- who obeys it --- */

static void
test_watch_obeys_within_100_ms_fifty_times(void **state)
{
    (void)state;
    int64_t worst_us = 0;
    struct cm_halt_watch *watch = start_watch(-1);
    WAIT_UNTIL(OFF(watch), 2000);
    for (int i = 0; i < 50; i++) {
        halt("");
        int64_t since_us = cm_clock_mono_us();
        WAIT_UNTIL(ON(watch), 1000);
        int64_t took_us = cm_clock_mono_us() - since_us;
        worst_us = took_us > worst_us ? took_us : worst_us;
        resume();
        WAIT_UNTIL(OFF(watch), 1000);
    }
    print_message("  worst of 50: %.1f ms\n", (double)worst_us / 1000);
    assert_true(worst_us < 100000);
    stop_watch(&watch);
    /* Once at the start, for it is halted until it knows; then each. */
    assert_int_equal(atomic_load(&changes), 2 + 100);
}

static void
test_watch_by_redis_cli_alone(void **state)
{
    (void)state;
    struct cm_halt_watch *watch = start_watch(-1);
    assert_int_equal(cm_commits_load_library(commits, NULL), CM_OK);
    WAIT_UNTIL(OFF(watch), 2000);
    free(redis_cli(&server, "FCALL cm_halt 0 'stop it' ann"));
    WAIT_UNTIL(ON(watch), 100);
    assert_true(report_has(watch, "\"by\":\"ann\",\"reason\":\"stop it\""));
    char *text = redis_cli(&server, "FCALL cm_halted 0");
    assert_non_null(strstr(text, "stop it"));
    free(text);
    free(redis_cli(&server, "FCALL cm_resume 0"));
    WAIT_UNTIL(OFF(watch), 100);
    assert_true(report_has(watch, "{\"halted\":false}"));
    stop_watch(&watch);
}

static void
test_watch_is_on_until_redis_told(void **state)
{
    (void)state;
    redis_server_freeze(&server);
    struct cm_halt_watch *watch = start_watch(-1);
    usleep(200000);
    assert_true(ON(watch));
    redis_server_thaw(&server);
    WAIT_UNTIL(OFF(watch), 3000);
    stop_watch(&watch);
}

static void
test_watch_that_redis_refuses_is_on_and_says_why(void **state)
{
    (void)state;
    struct cm_halt_watch *watch = start_watch(-1);
    WAIT_UNTIL(OFF(watch), 2000);
    redis_say(&server, "SET", "{cm}:halt", "something else", NULL);
    WAIT_UNTIL(ON(watch), 3000);
    assert_true(report_has(watch, "WRONGTYPE"));
    redis_say(&server, "DEL", "{cm}:halt", NULL);
    WAIT_UNTIL(OFF(watch), 5000);
    assert_false(report_has(watch, "halt_problem"));
    stop_watch(&watch);
}

static void
test_watch_takes_an_entry_it_cannot_read_for_a_halt(void **state)
{
    (void)state;
    struct cm_halt_watch *watch = start_watch(-1);
    WAIT_UNTIL(OFF(watch), 2000);
    redis_say(&server, "XADD", "{cm}:halt", "*", "what", "ever", NULL);
    WAIT_UNTIL(ON(watch), 1000);
    resume();
    WAIT_UNTIL(OFF(watch), 1000);
    stop_watch(&watch);
}

/* --- what stays --- */

static void
test_watch_holds_while_redis_is_away_and_emptied(void **state)
{
    (void)state;
    struct cm_halt_watch *watch = start_watch(-1);
    WAIT_UNTIL(OFF(watch), 2000);
    halt("");
    WAIT_UNTIL(ON(watch), 1000);
    redis_say(&server, "FLUSHALL", NULL);
    usleep(2200000); /* looked at least twice */
    assert_true(ON(watch));
    redis_server_kill(&server);
    usleep(300000);
    assert_true(ON(watch));
    redis_server_again(&server);
    usleep(1500000);
    assert_true(ON(watch));
    resume(); /* also where nothing is: it is news to the filter */
    WAIT_UNTIL(OFF(watch), 6000);
    redis_server_kill(&server);
    usleep(300000);
    assert_true(OFF(watch));
    stop_watch(&watch);
}

struct folder {
    char path[64];
    int fd;
};

static struct folder
make_folder(void)
{
    struct folder f = {.path = "/tmp/cm-halt-XXXXXX"};
    assert_non_null(mkdtemp(f.path));
    f.fd = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f.fd >= 0);
    return f;
}

static bool
has_file(const struct folder *f)
{
    struct stat status;
    return fstatat(f->fd, "snapshot.halted", &status, 0) == 0;
}

static void
remove_folder(struct folder *f)
{
    (void)unlinkat(f->fd, "snapshot.halted", 0);
    close(f->fd);
    assert_int_equal(rmdir(f->path), 0);
}

static void
test_watch_started_without_redis_goes_by_its_file(void **state)
{
    (void)state;
    struct folder f = make_folder();
    struct cm_halt_watch *watch = start_watch(f.fd);
    WAIT_UNTIL(OFF(watch), 2000);
    assert_false(has_file(&f));
    halt("for the night");
    WAIT_UNTIL(has_file(&f), 1000);
    stop_watch(&watch);
    redis_server_kill(&server);

    watch = start_watch(f.fd);
    usleep(500000);
    assert_true(ON(watch));
    assert_true(report_has(watch, "for the night"));
    redis_server_again(&server); /* empty, as it keeps nothing here */
    usleep(1500000);
    assert_true(ON(watch));
    resume();
    WAIT_UNTIL(OFF(watch), 6000);
    WAIT_UNTIL(!has_file(&f), 1000);
    stop_watch(&watch);
    redis_server_kill(&server);

    watch = start_watch(f.fd);
    WAIT_UNTIL(OFF(watch), 3000);
    stop_watch(&watch);
    remove_folder(&f);
}

static void
test_watch_file_of_any_kind_halts(void **state)
{
    (void)state;
    struct folder f = make_folder();
    redis_server_kill(&server);
    assert_int_equal(symlinkat("/nowhere", f.fd, "snapshot.halted"), 0);
    struct cm_halt_watch *watch = start_watch(f.fd);
    usleep(300000);
    assert_true(ON(watch));
    stop_watch(&watch);
    remove_folder(&f);
}

static void
test_watch_that_cannot_keep_its_file_halts_and_says_so(void **state)
{
    (void)state;
    struct folder f = make_folder();
    assert_int_equal(mkdirat(f.fd, "snapshot.halted.new", 0700), 0);
    struct cm_halt_watch *watch = start_watch(f.fd);
    WAIT_UNTIL(OFF(watch), 2000);
    halt("");
    WAIT_UNTIL(ON(watch), 1000);
    WAIT_UNTIL(report_has(watch, "would not survive"), 1000);
    assert_int_equal(unlinkat(f.fd, "snapshot.halted.new", AT_REMOVEDIR), 0);
    WAIT_UNTIL(has_file(&f), 3000); /* tried again */
    WAIT_UNTIL(!report_has(watch, "would not survive"), 1000);
    stop_watch(&watch);
    remove_folder(&f);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, fresh, finish)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_halt_keeps_who_when_and_why_of_the_first),
        CASE(test_halt_reason_that_is_none_is_refused),
        CASE(test_halt_works_when_redis_has_no_memory_left),
        CASE(test_halt_replaces_what_is_no_stream),
        CASE(test_watch_obeys_within_100_ms_fifty_times),
        CASE(test_watch_by_redis_cli_alone),
        CASE(test_watch_is_on_until_redis_told),
        CASE(test_watch_that_redis_refuses_is_on_and_says_why),
        CASE(test_watch_takes_an_entry_it_cannot_read_for_a_halt),
        CASE(test_watch_holds_while_redis_is_away_and_emptied),
        CASE(test_watch_started_without_redis_goes_by_its_file),
        CASE(test_watch_file_of_any_kind_halts),
        CASE(test_watch_that_cannot_keep_its_file_halts_and_says_so),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
