/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stream of events read back from a real Redis: pages in both directions,
 * and the thread that follows it through trimming, emptying and outages.
 */
#include "milter/clock.h"
#include "milter/store/chronicle.h"
#include "milter/store/commit.h"
#include "milter/store/redis.h"
#include "t/lab/redis_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct redis_server server;
static struct cm_pool *pool;
static struct cm_commits *commits;

static int
start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&server);
    struct cm_link_opts opts = redis_server_opts(&server);
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&commits, pool, "{cm}", true, 1000, NULL),
                     CM_OK);
    return 0;
}

static int
end_server(void **state)
{
    (void)state;
    cm_commits_free(&commits);
    cm_pool_free(&pool);
    redis_say_done();
    redis_server_end(&server);
    return 0;
}

static int
flush(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    return 0;
}

/* An entry with an id of the caller's and its rule as a mark. */
static void
add(const char *id, const char *mark)
{
    redis_say(&server, "XADD", "{cm}:ev", id, "time", "1", "host", "h", "kind",
              "error", "outcome", "applied", "stage", "rcpt", "rule", mark,
              NULL);
}

/* --- pages --- */

struct gathered {
    char marks[256]; /* "a b c " */
    size_t n, limit;
};

static bool
gather(void *arg, const struct cm_record *record)
{
    struct gathered *gathered = arg;
    strcat(gathered->marks, record->at[CM_ENTRY_RULE]);
    strcat(gathered->marks, " ");
    return ++gathered->n != gathered->limit;
}

static void
assert_page(struct cm_record_id from, bool newest_first, int count,
            size_t limit, const char *marks, const char *seen, size_t looked_at)
{
    struct gathered gathered = {.limit = limit};
    struct cm_record_id id = {0, 0};
    char text[CM_RECORD_ID_BYTES];
    size_t n;
    assert_int_equal(cm_chronicle_page(commits, from, newest_first, count,
                                       gather, &gathered, &id, &n, NULL),
                     CM_OK);
    assert_string_equal(gathered.marks, marks);
    assert_int_equal(n, looked_at);
    cm_record_id_print(id, text);
    if (looked_at > 0)
        assert_string_equal(text, seen);
}

static void
test_page_goes_both_ways_and_never_twice(void **state)
{
    static const struct cm_record_id oldest = {0, 0}, five = {5, 0},
                                     six = {6, 0};
    (void)state;
    assert_page(CM_RECORD_ID_MAX, true, 10, 0, "", "", 0);
    assert_page(oldest, false, 10, 0, "", "", 0);
    add("5-0", "a");
    add("5-18446744073709551615", "b");
    add("6-0", "c");
    add("6-1", "d");
    assert_page(CM_RECORD_ID_MAX, true, 10, 0, "d c b a ", "5-0", 4);
    assert_page(CM_RECORD_ID_MAX, true, 2, 0, "d c ", "6-0", 2);
    assert_page(six, true, 2, 0, "b a ", "5-0", 2);
    assert_page(five, true, 2, 0, "", "", 0);
    assert_page(oldest, false, 3, 0, "a b c ", "6-0", 3);
    assert_page(six, false, 3, 0, "d ", "6-1", 1);
    assert_page((struct cm_record_id){5, UINT64_MAX}, false, 3, 0, "c d ",
                "6-1", 2);
    assert_page(oldest, false, 10, 2, "a b ", "5-18446744073709551615", 2);
}

static void
test_page_passes_over_what_is_not_ours(void **state)
{
    char *huge = malloc(CM_RECORD_BYTES_MAX + 1);
    (void)state;
    assert_non_null(huge);
    memset(huge, 'x', CM_RECORD_BYTES_MAX);
    huge[CM_RECORD_BYTES_MAX] = '\0';
    redis_say(&server, "XADD", "{cm}:ev", "1-1", "hello", "world", NULL);
    add("2-1", huge);
    redis_say(&server, "XADD", "{cm}:ev", "3-1", "time", "1", "host", "h",
              "kind", "error", "outcome", "applied", "stage", "", NULL);
    add("4-1", "mine");
    assert_page(CM_RECORD_ID_MAX, true, 10, 0, "mine ", "1-1", 4);
    free(huge);
    struct gathered gathered = {.limit = 0};
    struct cm_record_id id;
    struct cm_err err;
    size_t n;
    redis_say(&server, "SET", "{cm}:ev", "text", NULL);
    assert_int_equal(cm_chronicle_page(commits, CM_RECORD_ID_MAX, true, 10,
                                       gather, &gathered, &id, &n, &err),
                     CM_EPROTO);
    assert_non_null(strstr(err.msg, "WRONGTYPE"));
}

/* --- following --- */

/* What the thread told, "|" where something may be missing. */
static struct {
    pthread_mutex_t lock;
    char marks[4096];
} heard = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void
on_read(void *arg, const struct cm_record *records, size_t n)
{
    (void)arg;
    pthread_mutex_lock(&heard.lock);
    for (size_t i = 0; i < n; i++) {
        strcat(heard.marks, records[i].at[CM_ENTRY_RULE]);
        strcat(heard.marks, " ");
    }
    pthread_mutex_unlock(&heard.lock);
}

static void
on_lost(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&heard.lock);
    strcat(heard.marks, "| ");
    pthread_mutex_unlock(&heard.lock);
}

static bool
heard_is(const char *marks)
{
    pthread_mutex_lock(&heard.lock);
    bool same = strcmp(heard.marks, marks) == 0;
    pthread_mutex_unlock(&heard.lock);
    return same;
}

static struct cm_chronicle *
follow(int history)
{
    static const struct cm_chronicle_ops ops = {on_read, on_lost, NULL};
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_chronicle *chronicle = NULL;
    heard.marks[0] = '\0';
    assert_int_equal(
        cm_chronicle_start(&chronicle, &opts, "{cm}", history, &ops, NULL),
        CM_OK);
    return chronicle;
}

/* Ends the thread's link, as a Redis that restarts would. */
static void
cut(void)
{
    redis_say(&server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
              NULL);
}

static void
test_follow_reads_history_and_then_what_comes(void **state)
{
    (void)state;
    add("1-1", "a");
    add("2-1", "b");
    add("3-1", "c");
    struct cm_chronicle *chronicle = follow(2);
    WAIT_UNTIL(heard_is("b c "), 3000);
    add("4-1", "d");
    WAIT_UNTIL(heard_is("b c d "), 1000);
    redis_say(&server, "XADD", "{cm}:ev", "5-1", "hello", "world", NULL);
    add("6-1", "e");
    WAIT_UNTIL(heard_is("b c d e "), 1000);
    cut();
    add("7-1", "f");
    WAIT_UNTIL(heard_is("b c d e f "), 3000);
    cm_chronicle_stop(&chronicle);
    assert_null(chronicle);
}

static void
test_follow_begins_before_there_is_a_stream(void **state)
{
    (void)state;
    struct cm_chronicle *chronicle = follow(10);
    usleep(50000);
    add("1-1", "a");
    WAIT_UNTIL(heard_is("a "), 3000);
    cm_chronicle_stop(&chronicle);
}

static void
test_follow_says_when_something_may_be_missing(void **state)
{
    (void)state;
    add("10-1", "a");
    struct cm_chronicle *chronicle = follow(10);
    WAIT_UNTIL(heard_is("a "), 3000);
    /* Emptied, and filled again with smaller ids, which XREAD passes over. */
    redis_say(&server, "DEL", "{cm}:ev", NULL);
    add("5-1", "b");
    cut();
    WAIT_UNTIL(heard_is("a | b "), 3000);
    /* Trimmed past us. */
    add("20-1", "c");
    WAIT_UNTIL(heard_is("a | b c "), 3000);
    redis_say(&server, "XTRIM", "{cm}:ev", "MAXLEN", "0", NULL);
    cut();
    WAIT_UNTIL(heard_is("a | b c | "), 3000);
    add("30-1", "d");
    WAIT_UNTIL(heard_is("a | b c | d "), 3000);
    cm_chronicle_stop(&chronicle);
}

static void
test_follow_stops_at_once_while_redis_hangs(void **state)
{
    (void)state;
    struct cm_chronicle *chronicle = follow(10);
    add("1-1", "a");
    WAIT_UNTIL(heard_is("a "), 3000);
    redis_server_freeze(&server);
    int64_t begin_ms = cm_clock_mono_ms();
    cm_chronicle_stop(&chronicle);
    assert_true(cm_clock_mono_ms() - begin_ms < 500);
    redis_server_thaw(&server);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_page_goes_both_ways_and_never_twice, flush),
        cmocka_unit_test_setup(test_page_passes_over_what_is_not_ours, flush),
        cmocka_unit_test_setup(test_follow_reads_history_and_then_what_comes,
                               flush),
        cmocka_unit_test_setup(test_follow_begins_before_there_is_a_stream,
                               flush),
        cmocka_unit_test_setup(test_follow_says_when_something_may_be_missing,
                               flush),
        cmocka_unit_test_setup(test_follow_stops_at_once_while_redis_hangs,
                               flush),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
