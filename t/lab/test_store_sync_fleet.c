/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several filters on one Redis, what each tells of itself, what each may do
 * there, and the snapshot that it starts from while Redis is away.
 */
#include "milter/clock.h"
#include "milter/store/journal.h"
#include "milter/store/redis.h"
#include "milter/store/stateful.h"
#include "t/lab/sync_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the fleet --- */

static void
test_two_replicas_converge_under_load(void **state)
{
    enum { RATE = 300, SECONDS = 3 };
    struct node one = node_start("h1"), two = node_start("h2");
    char name[64];
    (void)state;
    int64_t start = cm_clock_mono_us();
    for (int i = 0; i < RATE * SECONDS; i++) {
        snprintf(name, sizeof name, "u%d@example.com", (i * 7) % 200);
        if (i % 5 == 4)
            (void)!cm_commit_del(rig.commits, CM_KIND_INBOX, name, CM_REV_ANY,
                                 NULL);
        else
            rig_set_inbox(name);
        if (i % 50 == 0)
            rig_set_doc(CM_KIND_RULE, "r1", RIG_RULE);
        if (i == RATE) { /* one of them starts anew in the middle */
            node_stop(&two);
            two = node_start("h2");
        }
        int64_t due = start + (int64_t)(i + 1) * 1000000 / RATE;
        if (due > cm_clock_mono_us())
            usleep((useconds_t)(due - cm_clock_mono_us()));
    }
    int64_t end = cm_clock_mono_ms();
    char *epoch = NULL;
    int64_t seq = 0;
    assert_int_equal(cm_commit_seq(rig.commits, &epoch, &seq, NULL), CM_OK);
    free(epoch);
    WAIT_UNTIL(node_state(&one).seq == seq && node_state(&two).seq == seq,
               1000);
    print_message("  equal %d ms after the last of %d commits\n",
                  (int)(cm_clock_mono_ms() - end), (int)seq);
    assert_int_equal(node_state(&one).digest, node_state(&two).digest);
    /* And both equal to one that reads everything now. */
    struct node three = node_start("h3");
    WAIT_UNTIL(cm_sync_synced(three.sync), 2000);
    assert_int_equal(node_state(&three).digest, node_state(&one).digest);
    assert_int_equal(node_state(&three).inboxes, node_state(&one).inboxes);
    node_stop(&one);
    node_stop(&two);
    node_stop(&three);
}

static void
test_heartbeat_tells_all(void **state)
{
    struct node node = node_start("host \"1\"");
    char **hosts = NULL;
    (void)state;
    rig_set_inbox("a@example.com");
    rig_set_doc(CM_KIND_INBOX, "b@example.com", "{}");
    WAIT_UNTIL(node_state(&node).seq == 2, 2000);
    usleep(1200000);
    assert_int_equal(cm_commit_hosts(rig.commits, &hosts, NULL), CM_OK);
    assert_non_null(hosts[0]);
    json_error_t error;
    json_t *json = json_loads(hosts[0], JSON_REJECT_DUPLICATES, &error);
    if (!json)
        fail_msg("%s: %s", error.text, hosts[0]);
    const char *host, *version, *epoch, *digest, *key, *why, *warning;
    json_int_t pid, started, now, seq, inboxes, rules, broken, extra;
    if (json_unpack_ex(json, &error, JSON_STRICT,
                       "{s:s,s:I,s:s,s:I,s:I,s:s,s:I,s:s,s:I,s:I,s:I,"
                       "s:[{s:s,s:s}],s:[s],s:I}",
                       "host", &host, "pid", &pid, "version", &version,
                       "started_ms", &started, "time_ms", &now, "epoch", &epoch,
                       "seq", &seq, "digest", &digest, "inboxes", &inboxes,
                       "rules", &rules, "broken_total", &broken, "broken",
                       "key", &key, "why", &why, "alarms", &warning, "extra",
                       &extra) != 0)
        fail_msg("%s: %s", error.text, hosts[0]);
    assert_string_equal(host, "host \"1\"");
    assert_int_equal(pid, getpid());
    assert_string_equal(version, "1.2.3");
    assert_int_equal(seq, 2);
    assert_int_equal(inboxes, 1);
    assert_int_equal(broken, 1);
    assert_int_equal(strlen(digest), 16);
    assert_string_equal(key, "inbox:b@example.com");
    assert_int_equal(extra, 42);
    assert_true(now >= started && cm_clock_wall_ms() - now < 2000);
    json_decref(json);
    cm_names_free(&hosts);
    node_stop(&node);
}

/* The other two that a filter has: stateful faults and the journal. */
static void
use_state(const struct cm_link_opts *opts)
{
    struct cm_journal_opts journal_opts = {.link = *opts,
                                           .prefix = "{cm}",
                                           .host_id = "h1",
                                           .stream_max = 100,
                                           .ring = 16};
    struct cm_incident incident = {.kind = CM_FAULT_ERROR};
    struct cm_fault_greylist grey = {.window_ms = 1000, .max_attempts = 2};
    struct cm_fault_throttle rare = {.rate = 0.1, .burst = 1};
    struct cm_fault_sequence steps = {.key = CM_KEY_SENDER, .ttl_ms = 1000};
    struct cm_pool *own = NULL;
    struct cm_stateful *stateful = NULL;
    struct cm_journal *journal = NULL;
    bool yes = false;
    int64_t n = 0;
    redis_say(&rig.server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(cm_pool_new(&own, opts, 2, NULL), CM_OK);
    assert_int_equal(cm_stateful_new(&stateful, own, "{cm}", 500, NULL), CM_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(cm_stateful_greylist(stateful, &grey, "i@x", "s@y",
                                              "192.0.2.1", &yes, &n, NULL),
                         CM_OK);
    assert_int_equal(
        cm_stateful_occurrence(stateful, "r1", "s@y", "i@x", &n, NULL), CM_OK);
    assert_int_equal(cm_stateful_hit(stateful, "r1", 1, &yes, NULL), CM_OK);
    assert_int_equal(
        cm_stateful_throttle(stateful, "r1", &rare, "i@x", &yes, NULL), CM_OK);
    assert_int_equal(cm_stateful_sequence(stateful, "r1", &steps, "192.0.2.1",
                                          "s@y", "i@x", &n, NULL),
                     CM_OK);
    assert_int_equal(
        cm_stateful_attempt(stateful, "192.0.2.1", "s@y", "i@x", &n, NULL),
        CM_OK);
    assert_int_equal(
        cm_stateful_attempt_done(stateful, "192.0.2.1", "s@y", "i@x", NULL),
        CM_OK);
    cm_stateful_free(&stateful);
    cm_pool_free(&own);
    assert_int_equal(cm_journal_start(&journal, &journal_opts, NULL), CM_OK);
    cm_journal_record(journal, &incident);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
    assert_int_equal(redis_say(&rig.server, "XLEN", "{cm}:ev", NULL)->integer,
                     1);
    assert_int_equal(
        redis_say(&rig.server, "HLEN", "{cm}:st:totals", NULL)->integer, 3);
}

static void
test_acl_milter_is_enough_and_denied_is_told(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    redis_say(&rig.server, "ACL", "SETUSER", "chaos-milter", "reset", "on",
              ">hush", "%R~{cm}:cfg:*", "%R~{cm}:log", "%R~{cm}:epoch",
              "%R~{cm}:seq", "%R~{cm}:idx", "~{cm}:st:*", "~{cm}:ev", "+ping",
              "+select", "+client|setname", "+info", "+mget", "+getrange",
              "+zrangebylex", "+xread", "+xinfo|stream", "+hset", "+xadd",
              "+eval", "+evalsha", "+time", "+get", "+set", "+hmget", "+del",
              "+pexpire", "+incr", "+hincrby", NULL);
    struct cm_sync_opts opts = {.link = redis_server_opts(&rig.server),
                                .prefix = "{cm}",
                                .host_id = "h1",
                                .version = "1",
                                .snapshot_dir_fd = -1};
    struct node node = {NULL, NULL};
    opts.link.username = "chaos-milter";
    opts.link.password = "hush";
    assert_int_equal(cm_replica_new(&node.replica, 0), CM_OK);
    assert_int_equal(cm_sync_start(&node.sync, &opts, node.replica, NULL),
                     CM_OK);
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com"), 1000);
    usleep(1100000);
    assert_true(node_no_alarm(&node));
    assert_int_equal(
        redis_say(&rig.server, "HLEN", "{cm}:st:hosts", NULL)->integer, 1);
    use_state(&opts.link);
    /* The right to read is taken away: rules stay, and the alarm says it. */
    redis_say(&rig.server, "ACL", "SETUSER", "chaos-milter", "-xread", NULL);
    WAIT_UNTIL(node_alarm_has(&node, "NOPERM"), 3000);
    assert_false(node_alarm_has(&node, "hush"));
    assert_true(node_has(&node, "a@example.com"));
    redis_say(&rig.server, "ACL", "SETUSER", "chaos-milter", "+xread", NULL);
    WAIT_UNTIL(node_no_alarm(&node), 8000);
    /* The password changes. */
    redis_say(&rig.server, "ACL", "SETUSER", "chaos-milter", "resetpass",
              ">new", NULL);
    redis_say(&rig.server, "CLIENT", "KILL", "USER", "chaos-milter", NULL);
    WAIT_UNTIL(node_alarm_has(&node, "WRONGPASS"), 3000);
    assert_true(node_has(&node, "a@example.com"));
    node_stop(&node);
    redis_say(&rig.server, "ACL", "DELUSER", "chaos-milter", NULL);
}

static void
test_evicting_redis_raises_alarm(void **state)
{
    (void)state;
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "100mb",
              "maxmemory-policy", "allkeys-lru", NULL);
    struct node node = node_start("h1");
    WAIT_UNTIL(node_alarm_has(&node, "allkeys-lru"), 2000);
    node_stop(&node);
}

static void
test_read_only_redis_still_serves(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    redis_say(&rig.server, "REPLICAOF", "127.0.0.1", "9", NULL);
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    WAIT_UNTIL(node_alarm_has(&node, "READONLY"), 2500);
    redis_say(&rig.server, "REPLICAOF", "NO", "ONE", NULL);
    WAIT_UNTIL(node_no_alarm(&node), 2500);
    node_stop(&node);
}

/* --- the snapshot --- */

static void
cut_in_half(int dir_fd, const char *name)
{
    struct stat status;
    int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(ftruncate(fd, status.st_size / 2), 0);
    close(fd);
}

static void
test_snapshot_serves_while_redis_is_away(void **state)
{
    char dir[] = "/tmp/chaosmilter-snap.XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(dir));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rig_set_inbox("a@example.com");
    rig_set_doc(CM_KIND_RULE, "r1", RIG_RULE);
    struct node node = node_start_with("h1", 0, fd);
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    WAIT_UNTIL(faccessat(fd, "snapshot", F_OK, 0) == 0, 1000);
    rig_set_inbox(
        "b@example.com"); /* written at stop: five seconds are not over */
    WAIT_UNTIL(node_has(&node, "b@example.com"), 1000);
    struct cm_replica_state before = node_state(&node);
    node_stop(&node);

    redis_server_kill(&rig.server);
    node = node_start_with("h1", 0, fd);
    assert_true(node_has(&node, "a@example.com")); /* at once */
    assert_true(node_has(&node, "b@example.com"));
    assert_int_equal(node_rules(&node), 1);
    assert_int_equal(node_state(&node).seq, before.seq);
    assert_int_equal(node_state(&node).digest, before.digest);
    assert_string_equal(node_state(&node).epoch, before.epoch);
    assert_false(cm_sync_synced(node.sync));
    redis_server_again(&rig.server); /* empty: the rules stay */
    WAIT_UNTIL(node_alarm_has(&node, "Redis is empty"), 6000);
    assert_true(node_has(&node, "a@example.com"));
    node_stop(&node);

    /* Half a file is no file. */
    cut_in_half(fd, "snapshot");
    node = node_start_with("h1", 0, fd);
    assert_false(node_has(&node, "a@example.com"));
    assert_true(node_alarm_has(&node, "snapshot snapshot line"));
    node_stop(&node);
    unlinkat(fd, "snapshot", 0);
    close(fd);
    assert_int_equal(rmdir(dir), 0);
}

static void
test_snapshot_failing_is_an_alarm(void **state)
{
    char dir[] = "/tmp/chaosmilter-snap.XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(dir));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(rmdir(dir), 0); /* nothing can be created in it */
    struct node node = node_start_with("h1", 0, fd);
    rig_set_inbox("a@example.com");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    WAIT_UNTIL(node_alarm_has(&node, "cannot create snapshot"), 1000);
    node_stop(&node);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_two_replicas_converge_under_load),
        RIG_TEST(test_heartbeat_tells_all),
        RIG_TEST(test_acl_milter_is_enough_and_denied_is_told),
        RIG_TEST(test_evicting_redis_raises_alarm),
        RIG_TEST(test_read_only_redis_still_serves),
        RIG_TEST(test_snapshot_serves_while_redis_is_away),
        RIG_TEST(test_snapshot_failing_is_an_alarm),
    };
    return cmocka_run_group_tests_name("store_sync_fleet", tests,
                                       rig_start_server, rig_end_server);
}
