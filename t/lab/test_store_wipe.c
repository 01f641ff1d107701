/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many documents removed at once, in a real Redis and in a filter that follows:
 * what goes, what stays, and that revisions are never used twice.
 */
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/store/audit.h"
#include "milter/store/batch.h"
#include "milter/store/commit.h"
#include "milter/store/redis.h"
#include "milter/store/replica.h"
#include "milter/store/sync.h"
#include "milter/store/wipe.h"
#include "t/lab/redis_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <unistd.h>

#define ON   "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define RULE "{\"fault\":{\"kind\":\"error\",\"code\":451}}"

static struct redis_server server;
static struct cm_pool *pool;
static struct cm_commits *commits;
static struct cm_replica *replica;
static struct cm_sync *filter;

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
    struct cm_link_opts link = redis_server_opts(&server);
    struct cm_sync_opts opts = {.link = link,
                                .prefix = "{cm}",
                                .host_id = "h1",
                                .version = "1",
                                .snapshot_dir_fd = -1};
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    assert_int_equal(cm_pool_new(&pool, &link, 4, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&commits, pool, "{cm}", true, 3000, NULL),
                     CM_OK);
    assert_int_equal(cm_replica_new(&replica, 0), CM_OK);
    assert_int_equal(cm_sync_start(&filter, &opts, replica, NULL), CM_OK);
    return 0;
}

static int
finish(void **state)
{
    (void)state;
    cm_sync_stop(filter);
    cm_sync_free(&filter);
    cm_replica_free(&replica);
    cm_commits_free(&commits);
    cm_pool_free(&pool);
    return 0;
}

static void
set(enum cm_kind kind, const char *name, const char *doc, int64_t *rev_r)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_set(commits, kind, name, doc, strlen(doc), CM_REV_ANY, rev_r,
                      &err) != CM_OK)
        fail_msg("%s: %s", name, err.msg);
}

static int64_t
number(const char *key)
{
    const struct redisReply *reply = redis_say(&server, "GET", key, NULL);
    return reply->str ? strtoll(reply->str, NULL, 10) : 0;
}

static struct cm_replica_state
settle(void)
{
    struct cm_replica_state now;
    int64_t want = number("{cm}:seq");
    WAIT_UNTIL((cm_replica_state(replica, &now), now.seq == want), 5000);
    return now;
}

static void
wipe(enum cm_kind kind, const char *begin, int64_t expected)
{
    struct cm_wipe one = {.kind = kind, .begin = begin};
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_wipe(commits, &one, 1, &err) != CM_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(one.count, expected);
}

static bool
in_filter(const char *address)
{
    struct cm_view *view = cm_replica_view(replica);
    struct cm_inbox *inbox = cm_view_inbox(view, address, strlen(address));
    bool there = inbox != NULL;
    cm_inbox_release(&inbox);
    cm_view_release(&view);
    return there;
}

static void
test_wipe_takes_what_begins_so_and_nothing_else(void **state)
{
    (void)state;
    set(CM_KIND_INBOX, "load-1@x.example", ON, NULL);
    set(CM_KIND_INBOX, "load-2@x.example", ON, NULL);
    set(CM_KIND_INBOX, "loa@x.example", ON, NULL);
    set(CM_KIND_INBOX, "load-3@x.example", "{\"broken\":1}", NULL);
    set(CM_KIND_BOX, "load-1@x.example", "{}", NULL);
    set(CM_KIND_RULE, "load-1", RULE, NULL);
    assert_int_equal(settle().broken, 1);
    wipe(CM_KIND_INBOX, "load-", 3);
    struct cm_replica_state now = settle();
    assert_int_equal(now.inboxes, 1);
    assert_int_equal(now.rules, 1);
    assert_int_equal(now.broken, 0);
    assert_true(in_filter("loa@x.example"));
    assert_false(in_filter("load-1@x.example"));
    wipe(CM_KIND_INBOX, "load-", 0);
    wipe(CM_KIND_RULE, "", 1);
    assert_int_equal(settle().rules, 0);
    assert_int_equal(
        redis_say(&server, "EXISTS", "{cm}:cfg:box:load-1@x.example", NULL)
            ->integer,
        1);
}

static void
test_wipe_of_several_kinds_is_one_change(void **state)
{
    struct cm_wipe all[] = {{.kind = CM_KIND_INBOX, .begin = ""},
                            {.kind = CM_KIND_RULE, .begin = ""},
                            {.kind = CM_KIND_FAULT, .begin = ""}};
    struct cm_err err = {CM_OK, ""};
    struct cm_audit audit;
    (void)state;
    set(CM_KIND_INBOX, "a@x.example", ON, NULL);
    set(CM_KIND_RULE, "r1", RULE, NULL);
    set(CM_KIND_RULE, "r2", RULE, NULL);
    if (cm_commit_wipe(commits, all, 3, &err) != CM_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(all[0].count, 1);
    assert_int_equal(all[1].count, 2);
    assert_int_equal(all[2].count, 0);
    assert_int_equal(number("{cm}:seq"), 6);
    struct cm_replica_state now = settle();
    assert_int_equal(now.inboxes + now.rules + now.broken, 0);
    assert_int_equal(redis_say(&server, "ZCARD", "{cm}:idx", NULL)->integer, 0);
    assert_int_equal(
        cm_audit_read(commits, CM_AUDIT_FLEET, "", "rule:*", 1, &audit, &err),
        CM_OK);
    assert_int_equal(audit.n, 1);
    assert_string_equal(cm_audit_field(&audit.entries[0], "op"), "wipe");
    assert_string_equal(cm_audit_field(&audit.entries[0], "count"), "2");
    cm_audit_fini(&audit);
}

/* An entity tag that somebody still holds must never fit another document. */
static void
test_wipe_uses_no_revision_twice(void **state)
{
    int64_t before, after;
    (void)state;
    for (int i = 0; i < 5; i++)
        set(CM_KIND_RULE, "r1", RULE, &before);
    wipe(CM_KIND_RULE, "", 1);
    set(CM_KIND_RULE, "r1", RULE, &after);
    assert_true(after > before);
    assert_int_equal(cm_commit_set(commits, CM_KIND_RULE, "r1", RULE,
                                   strlen(RULE), before, NULL, NULL),
                     CM_ECONFLICT);
}

static void
test_wipe_of_many_is_quick_and_followed(void **state)
{
    enum { EACH = 10000, N = 60000 };
    static struct cm_change changes[EACH];
    static char names[EACH][32];
    (void)state;
    for (int at = 0; at < N; at += EACH) {
        for (int i = 0; i < EACH; i++) {
            snprintf(names[i], sizeof names[i], "u%07d@x.example", at + i);
            changes[i] = (struct cm_change){.what = CM_CHANGE_SET,
                                            .kind = CM_KIND_INBOX,
                                            .name = names[i],
                                            .doc = ON,
                                            .len = strlen(ON),
                                            .rev = CM_REV_ANY,
                                            .place = CM_PLACE_USUAL};
        }
        assert_int_equal(
            cm_commit_batch(commits, changes, EACH, NULL, NULL, NULL), CM_OK);
    }
    assert_int_equal(settle().inboxes, N);
    int64_t start = cm_clock_mono_ms();
    wipe(CM_KIND_INBOX, "", N);
    int64_t wiped = cm_clock_mono_ms();
    assert_int_equal(settle().inboxes, 0);
    print_message("  %d inboxes: %d ms in Redis, %d ms more in the filter\n", N,
                  (int)(wiped - start), (int)(cm_clock_mono_ms() - wiped));
}

static void
test_wipe_refuses_what_it_does_not_know(void **state)
{
    struct cm_wipe one = {.kind = CM_KIND_INBOX, .begin = "a\nb"};
    (void)state;
    set(CM_KIND_INBOX, "a@x.example", ON, NULL);
    assert_int_equal(cm_commit_wipe(commits, &one, 1, NULL), CM_EINVAL);
    assert_int_equal(redis_try(&server, "EVAL", "return 1", "0", NULL),
                     CM_REDIS_OK);
    assert_int_equal(number("{cm}:seq"), 1);
}

/* Nothing needs it more than a Redis that is full. */
static void
test_wipe_works_when_redis_has_no_memory_left(void **state)
{
    (void)state;
    set(CM_KIND_INBOX, "a@x.example", ON, NULL);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "1", NULL);
    wipe(CM_KIND_INBOX, "", 1);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, fresh, finish)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_wipe_takes_what_begins_so_and_nothing_else),
        CASE(test_wipe_of_several_kinds_is_one_change),
        CASE(test_wipe_uses_no_revision_twice),
        CASE(test_wipe_of_many_is_quick_and_followed),
        CASE(test_wipe_refuses_what_it_does_not_know),
        CASE(test_wipe_works_when_redis_has_no_memory_left),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
