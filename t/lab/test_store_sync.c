/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The replica kept equal to a real Redis, whatever happens to it. Covers R1,
 * R2, R3, R6, R7, R9 to R14, R17, R18, R23 and P7, P8 of the list of cases.
 */
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/store/commit.h"
#include "milter/store/journal.h"
#include "milter/store/redis.h"
#include "milter/store/replica.h"
#include "milter/store/stateful.h"
#include "milter/store/sync.h"
#include "t/lab/redis_server.h"

#include <jansson.h>
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
#include <sys/stat.h>
#include <unistd.h>

#define ON   "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define RULE "{\"fault\":{\"kind\":\"error\",\"code\":451}}"

static struct redis_server server;
static struct cm_pool *pool;
static struct cm_commits *commits;

/* One filter, as far as this room goes. */
struct node {
    struct cm_replica *replica;
    struct cm_sync *sync;
};

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

static void
add_report(void *arg, struct cm_buf *json)
{
    cm_buf_puts(json, arg);
}

static struct node
start_node_with(const char *host, int64_t stale_after_ms, int dir_fd)
{
    static char extra[] = ",\"extra\":42";
    struct node node = {NULL, NULL};
    struct cm_sync_opts opts = {.link = redis_server_opts(&server),
                                .prefix = "{cm}",
                                .host_id = host,
                                .version = "1.2.3",
                                .stale_after_ms = stale_after_ms,
                                .snapshot_dir_fd = dir_fd,
                                .snapshot_name = "snapshot",
                                .report = add_report,
                                .report_arg = extra};
    struct cm_err err = {CM_OK, ""};
    assert_int_equal(cm_replica_new(&node.replica, 0), CM_OK);
    if (cm_sync_start(&node.sync, &opts, node.replica, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return node;
}

static struct node
start_node(const char *host)
{
    return start_node_with(host, 0, -1);
}

static void
stop_node(struct node *node)
{
    int64_t start = cm_clock_mono_ms();
    cm_sync_stop(node->sync);
    assert_true(cm_clock_mono_ms() - start < 250);
    cm_sync_free(&node->sync);
    cm_replica_free(&node->replica);
}

static struct cm_replica_state
state_of(const struct node *node)
{
    struct cm_replica_state state;
    cm_replica_state(node->replica, &state);
    return state;
}

static bool
has(const struct node *node, const char *address)
{
    struct cm_view *view = cm_replica_view(node->replica);
    struct cm_inbox *inbox = cm_view_inbox(view, address, strlen(address));
    bool found = inbox != NULL;
    cm_inbox_release(&inbox);
    cm_view_release(&view);
    return found;
}

static size_t
count_rules(const struct node *node)
{
    struct cm_view *view = cm_replica_view(node->replica);
    struct cm_ruleset *set = cm_view_rules(view);
    size_t n = set ? cm_ruleset_count(set) : 0;
    cm_ruleset_release(&set);
    cm_view_release(&view);
    return n;
}

static bool
alarm_has(const struct node *node, const char *text)
{
    struct cm_buf buf;
    cm_buf_init(&buf, 65536);
    cm_sync_alarms_json(node->sync, &buf);
    bool found = buf.data && strstr(buf.data, text) != NULL;
    cm_buf_fini(&buf);
    return found;
}

static bool
no_alarm(const struct node *node)
{
    struct cm_buf buf;
    cm_buf_init(&buf, 65536);
    cm_sync_alarms_json(node->sync, &buf);
    bool none = strcmp(buf.data, "[]") == 0;
    cm_buf_fini(&buf);
    return none;
}

static void
set_doc(enum cm_kind kind, const char *name, const char *doc)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_set(commits, kind, name, doc, strlen(doc), CM_REV_ANY, NULL,
                      &err) != CM_OK)
        fail_msg("%s: %s", name, err.msg);
}

static void
set_inbox(const char *name)
{
    set_doc(CM_KIND_INBOX, name, ON);
}

static int
fresh(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", "maxmemory-policy",
              "noeviction", NULL);
    struct cm_link_opts opts = redis_server_opts(&server);
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&commits, pool, "{cm}", true, 1000, NULL),
                     CM_OK);
    return 0;
}

static int
finish(void **state)
{
    (void)state;
    cm_commits_free(&commits);
    cm_pool_free(&pool);
    if (server.pid == 0)
        redis_server_again(&server);
    return 0;
}

/* --- the way of a commit --- */

static int
by_value(const void *a, const void *b)
{
    int64_t one = *(const int64_t *)a, two = *(const int64_t *)b;
    return one < two ? -1 : one > two;
}

static void
test_commit_reaches_replica_fast(void **state)
{
    enum { N = 200 };
    static int64_t us[N];
    struct node node = start_node("h1");
    char name[64];
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "u%d@example.com", i);
        int64_t start = cm_clock_mono_us();
        set_inbox(name);
        while (!has(&node, name)) {
            if (cm_clock_mono_us() - start > 2000000)
                fail_msg("%s did not arrive", name);
            usleep(20);
        }
        us[i] = cm_clock_mono_us() - start;
        usleep(2000);
    }
    qsort(us, N, sizeof *us, by_value);
    print_message("  a commit is in the replica %.2f ms after it was "
                  "asked for (median), %.2f ms (slowest of %d)\n",
                  (double)us[N / 2] / 1000, (double)us[N - 1] / 1000, N);
    assert_true(us[N / 2] < 100000);
    stop_node(&node);
}

static void
test_first_commit_ever_reaches_replica_fast(void **state)
{
    struct node node = start_node("h1");
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    assert_true(no_alarm(&node));
    usleep(1300000); /* several quiet rounds */
    set_inbox("a@example.com");
    WAIT_UNTIL(has(&node, "a@example.com"), 100);
    stop_node(&node);
}

static void
test_delete_and_change_arrive(void **state)
{
    struct node node = start_node("h1");
    (void)state;
    set_inbox("a@example.com");
    set_doc(CM_KIND_RULE, "r1", RULE);
    set_doc(CM_KIND_BOX, "a@example.com", "{\"x\":1}");
    WAIT_UNTIL(has(&node, "a@example.com") && count_rules(&node) == 1, 2000);
    WAIT_UNTIL(state_of(&node).seq == 3, 1000);
    assert_int_equal(state_of(&node).inboxes, 1);
    assert_int_equal(cm_commit_del(commits, CM_KIND_INBOX, "a@example.com",
                                   CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(
        cm_commit_del(commits, CM_KIND_RULE, "r1", CM_REV_ANY, NULL), CM_OK);
    WAIT_UNTIL(!has(&node, "a@example.com") && count_rules(&node) == 0, 1000);
    assert_int_equal(state_of(&node).digest, 0);
    stop_node(&node);
}

static void
test_rules_come_in_their_order(void **state)
{
    struct node node = start_node("h1");
    (void)state;
    set_doc(CM_KIND_RULE, "z", RULE);
    set_doc(CM_KIND_RULE, "a", RULE);
    set_doc(CM_KIND_RULE, "z",
            "{\"enabled\":false,\"fault\":{\"kind\":"
            "\"error\"}}");
    WAIT_UNTIL(state_of(&node).seq == 3, 2000);
    struct cm_view *view = cm_replica_view(node.replica);
    struct cm_ruleset *set = cm_view_rules(view);
    assert_int_equal(cm_ruleset_count(set), 2);
    assert_string_equal(cm_ruleset_at(set, 0)->id, "z");
    assert_false(cm_ruleset_at(set, 0)->enabled);
    assert_string_equal(cm_ruleset_at(set, 1)->id, "a");
    cm_ruleset_release(&set);
    cm_view_release(&view);
    stop_node(&node);
}

static void
test_large_document_arrives(void **state)
{
    static char doc[40000];
    struct node node = start_node("h1");
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    int n = snprintf(doc, sizeof doc, "{\"enabled\":true");
    memset(doc + n, ' ', sizeof doc - 1 - (size_t)n);
    memcpy(doc + sizeof doc - 2, "}", 2);
    set_doc(CM_KIND_INBOX, "big@example.com", doc);
    WAIT_UNTIL(has(&node, "big@example.com"), 1000);
    /* The same after a resync. */
    struct node other = start_node("h2");
    WAIT_UNTIL(has(&other, "big@example.com"), 2000);
    assert_int_equal(state_of(&node).digest, state_of(&other).digest);
    stop_node(&other);
    stop_node(&node);
}

static void
test_many_inboxes_page(void **state)
{
    char name[64];
    (void)state;
    for (int i = 0; i < 2500; i++) {
        snprintf(name, sizeof name, "user%04d@example.com", i);
        set_inbox(name);
    }
    struct node node = start_node("h1");
    WAIT_UNTIL(cm_sync_synced(node.sync), 5000);
    assert_int_equal(state_of(&node).inboxes, 2500);
    assert_int_equal(state_of(&node).seq, 2500);
    assert_true(has(&node, "user0000@example.com"));
    assert_true(has(&node, "user0499@example.com"));
    assert_true(has(&node, "user0500@example.com"));
    assert_true(has(&node, "user2499@example.com"));
    stop_node(&node);
}

/* --- Redis comes and goes --- */

static void
test_start_without_redis_then_recover(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    redis_server_kill(&server);
    struct node node = start_node("h1");
    usleep(300000);
    assert_false(cm_sync_connected(node.sync));
    assert_false(cm_sync_synced(node.sync));
    assert_true(alarm_has(&node, "Redis is away: connect: "));
    redis_server_again(&server); /* empty */
    WAIT_UNTIL(cm_sync_connected(node.sync) && cm_sync_synced(node.sync), 3000);
    WAIT_UNTIL(no_alarm(&node), 1000);
    stop_node(&node);
}

static void
test_restart_empty_keeps_rules_until_new_epoch(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    set_doc(CM_KIND_RULE, "r1", RULE);
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    redis_server_kill(&server);
    WAIT_UNTIL(!cm_sync_connected(node.sync), 1000);
    assert_true(has(&node, "a@example.com"));
    redis_server_again(&server);
    WAIT_UNTIL(cm_sync_connected(node.sync), 5000);
    WAIT_UNTIL(alarm_has(&node, "Redis is empty"), 2000);
    usleep(1500000);
    assert_true(has(&node, "a@example.com"));
    assert_int_equal(count_rules(&node), 1);
    /* Somebody begins anew: that is the data now. */
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com"), 1000);
    assert_false(has(&node, "a@example.com"));
    assert_int_equal(count_rules(&node), 0);
    WAIT_UNTIL(no_alarm(&node), 1500);
    stop_node(&node);
}

static void
test_restart_with_old_data_goes_back(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    redis_say(&server, "SAVE", NULL);
    set_inbox("b@example.com");
    set_inbox("c@example.com");
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "c@example.com"), 2000);
    redis_server_kill(&server);
    redis_server_again(&server); /* reads dump.rdb */
    WAIT_UNTIL(!has(&node, "c@example.com"), 6000);
    assert_true(has(&node, "a@example.com"));
    assert_int_equal(state_of(&node).seq, 1);
    /* As many commits as were lost, and other ones. */
    set_inbox("d@example.com");
    set_inbox("e@example.com");
    WAIT_UNTIL(has(&node, "d@example.com") && has(&node, "e@example.com"),
               2000);
    stop_node(&node);
    char dump[128];
    snprintf(dump, sizeof dump, "%s/dump.rdb", server.dir);
    unlink(dump);
}

static void
test_frozen_redis_keeps_rules_and_recovers(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    struct node node = start_node_with("h1", 1500, -1);
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    redis_server_freeze(&server);
    WAIT_UNTIL(!cm_sync_connected(node.sync), 3000);
    assert_true(has(&node, "a@example.com"));
    WAIT_UNTIL(cm_sync_stale(node.sync), 3000);
    assert_true(alarm_has(&node, "stale"));
    redis_server_thaw(&server);
    WAIT_UNTIL(cm_sync_connected(node.sync) && !cm_sync_stale(node.sync), 6000);
    WAIT_UNTIL(cm_pool_retry_ms(pool) <= 1, 6000);
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com"), 1000);
    assert_int_equal(state_of(&node).seq, 2);
    stop_node(&node);
}

static void
test_stop_is_prompt_while_frozen(void **state)
{
    struct node node = start_node("h1");
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    redis_server_freeze(&server);
    usleep(100000);
    stop_node(&node); /* asserts the time */
    node = start_node("h1");
    usleep(50000);
    stop_node(&node); /* while it connects */
    redis_server_thaw(&server);
    WAIT_UNTIL(redis_try(&server, "PING", NULL) == CM_REDIS_OK, 3000);
}

static void
test_killed_client_goes_on_where_it_was(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    for (int i = 0; i < 3; i++) {
        redis_say(&server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
                  NULL);
        set_inbox("b@example.com");
        WAIT_UNTIL(state_of(&node).seq == 2 + i, 2000);
    }
    stop_node(&node);
}

/* --- what people do to the data --- */

static void
test_flushall_keeps_rules(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "SET", "other-app", "data", NULL);
    WAIT_UNTIL(alarm_has(&node, "Redis is empty"), 2500);
    assert_true(has(&node, "a@example.com"));
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com") && !has(&node, "a@example.com"),
               100);
    stop_node(&node);
}

static void
test_deleted_log_converges(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    redis_say(&server, "DEL", "{cm}:log", NULL);
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com"), 2500);
    /* Commits whose entries are gone before anybody saw them. */
    cm_sync_stop(node.sync);
    cm_sync_free(&node.sync);
    set_inbox("c@example.com");
    redis_say(&server, "DEL", "{cm}:log", NULL);
    cm_replica_free(&node.replica);
    node = start_node("h1");
    WAIT_UNTIL(has(&node, "c@example.com"), 2000);
    /* The same while it runs: one transaction, so that no entry is seen. */
    free(redis_cli(&server,
                   "EVAL \"redis.call('INCR', '{cm}:seq') "
                   "redis.call('DEL', '{cm}:log') redis.call('SET', "
                   "'{cm}:cfg:inbox:d@example.com', '{\\\"rev\\\":1,"
                   "\\\"seq\\\":4,\\\"doc\\\":{\\\"enabled\\\":true}}') "
                   "redis.call('ZADD', '{cm}:idx', 0, "
                   "'inbox:d@example.com')\" 0"));
    WAIT_UNTIL(has(&node, "d@example.com"), 2500);
    stop_node(&node);
}

static void
test_deleted_epoch_keeps_then_follows(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    redis_say(&server, "DEL", "{cm}:epoch", NULL);
    WAIT_UNTIL(alarm_has(&node, "Redis is empty"), 2500);
    assert_true(has(&node, "a@example.com"));
    set_inbox("b@example.com"); /* makes an epoch; the documents are there */
    WAIT_UNTIL(has(&node, "b@example.com"), 1000);
    assert_true(has(&node, "a@example.com"));
    WAIT_UNTIL(no_alarm(&node), 1500);
    stop_node(&node);
}

static void
test_seq_set_back_converges(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    set_inbox("b@example.com");
    struct node node = start_node("h1");
    WAIT_UNTIL(state_of(&node).seq == 2, 2000);
    redis_say(&server, "SET", "{cm}:seq", "1", NULL);
    WAIT_UNTIL(state_of(&node).seq == 1, 3000);
    set_inbox("c@example.com");
    WAIT_UNTIL(has(&node, "c@example.com"), 2500);
    stop_node(&node);
}

static void
test_trimmed_log_converges(void **state)
{
    char name[64];
    struct node node = start_node("h1");
    (void)state;
    set_inbox("a@example.com");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    /* Away while more happens than the log keeps. */
    redis_say(&server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
              NULL);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "u%d@example.com", i);
        set_inbox(name);
        redis_say(&server, "XTRIM", "{cm}:log", "MAXLEN", "1", NULL);
    }
    WAIT_UNTIL(state_of(&node).seq == 51, 3000);
    assert_int_equal(state_of(&node).inboxes, 51);
    assert_true(has(&node, "u0@example.com"));
    stop_node(&node);
}

static void
test_foreign_log_entries_are_passed_over(void **state)
{
    struct node node = start_node("h1");
    (void)state;
    set_inbox("a@example.com");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    redis_say(&server, "XADD", "{cm}:log", "*", "hello", "world", NULL);
    redis_say(&server, "XADD", "{cm}:log", "*", "epoch", "other", "seq", "9",
              "op", "del", "key", "inbox:a@example.com", NULL);
    redis_say(&server, "XADD", "{cm}:log", "*", "seq", "-1", "op", "", "key",
              "", "epoch", "", NULL);
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com"), 2000);
    assert_true(has(&node, "a@example.com"));
    stop_node(&node);
}

/* --- broken documents --- */

static void
put_raw(const char *key, const char *text, size_t len)
{
    char name[256];
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_link *link = NULL;
    struct redisReply *reply = NULL;
    snprintf(name, sizeof name, "{cm}:cfg:%s", key);
    const char *set[] = {"SET", name, text};
    const size_t lens[] = {3, strlen(name), len};
    const char *index[] = {"ZADD", "{cm}:idx", "0", key};
    assert_int_equal(cm_link_open(&link, &opts, NULL), CM_OK);
    assert_int_equal(
        cm_link_command(link, &reply, 3, set, lens, 5000, NULL, NULL), CM_OK);
    cm_link_reply_free(&reply);
    assert_int_equal(
        cm_link_command(link, &reply, 4, index, NULL, 0, NULL, NULL), CM_OK);
    cm_link_reply_free(&reply);
    cm_link_close(&link);
}

static void
test_broken_documents_break_nothing_else(void **state)
{
#define DOC(text) "{\"rev\":1,\"seq\":1,\"doc\":" text "}"
    static const struct {
        const char *key, *text;
        size_t len; /* 0: a string */
    } cases[] = {
        {"inbox:b00@example.com", "", 0},
        {"inbox:b01@example.com", "junk", 0},
        {"inbox:b02@example.com", "{\"enabled\":true}", 0},
        {"inbox:b03@example.com", "{\"rev\":1,\"seq\":1,\"doc\":", 0},
        {"inbox:b04@example.com", DOC("{\"enabled\":tru"), 0},
        {"inbox:b05@example.com", DOC("{\"enabled\":true} x"), 0},
        {"inbox:b06@example.com", "\xef\xbb\xbf" DOC("{\"enabled\":true}"), 0},
        {"inbox:b07@example.com", DOC("\xef\xbb\xbf{\"enabled\":true}"), 0},
        {"inbox:b08@example.com", DOC("{\"enabled\":NaN}"), 0},
        {"inbox:b09@example.com",
         DOC("{\"enabled\":true,\"randomError\":{\"enabled\":true,"
             "\"errorRate\":1e309}}"),
         0},
        {"inbox:b10@example.com", DOC("{\"enabled\":true,\"enabled\":false}"),
         0},
        {"inbox:b11@example.com",
         DOC("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]"
             "]]]]]]]]]]]]"),
         0},
        {"inbox:b12@example.com", DOC("{\"enabled\":\"yes\"}"), 0},
        {"inbox:b13@example.com", DOC("{\"enabled\":true,\"what\":1}"), 0},
        {"inbox:b14@example.com", DOC("{\"enabled\":true,\"x\":\"\xff\"}"), 0},
        {"inbox:b15@example.com", DOC("{\"enabled\":true,\"\\u0000\":1}"), 0},
        {"inbox:b16@example.com", DOC("[]"), 0},
        {"inbox:b17@example.com", DOC("null"), 0},
        {"inbox:b18@example.com", DOC("{\"enabled\":true},\"x\":{}"), 0},
        {"inbox:b19@example.com",
         "{\"rev\":0,\"seq\":1,\"doc\":{\"enabled\":true}}", 0},
        {"inbox:b20@example.com",
         "{\"rev\":99999999999999999999,\"seq\":1,\"doc\":{}}", 0},
        {"inbox:b21@example.com", "{\"rev\":1,\0\"seq\":1}", 18},
        {"inbox:B22@Example.com", DOC("{\"enabled\":true}"), 0},
        {"inbox:b23", DOC("{\"enabled\":true}"), 0},
        {"inbox:", DOC("{\"enabled\":true}"), 0},
        {"rule:b24", DOC("{}"), 0},
        {"rule:b25", DOC("{\"fault\":{\"kind\":\"what\"}}"), 0},
        {"rule:b26", DOC("{\"fault\":{\"kind\":\"error\",\"code\":200}}"), 0},
    };
    (void)state;
    set_inbox("good@example.com");
    set_doc(CM_KIND_RULE, "good", RULE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        put_raw(cases[i].key, cases[i].text,
                cases[i].len ? cases[i].len : strlen(cases[i].text));
    /* Too large to be fetched, of the wrong type, and a ghost. */
    put_raw("inbox:huge@example.com", "x", 1);
    redis_say(&server, "SETRANGE", "{cm}:cfg:inbox:huge@example.com",
              "100000000", "x", NULL);
    redis_say(&server, "LPUSH", "{cm}:cfg:inbox:list@example.com", "x", NULL);
    redis_say(&server, "ZADD", "{cm}:idx", "0", "inbox:list@example.com", "0",
              "inbox:ghost@example.com", "0", "unknown:kind", NULL);

    struct node node = start_node("h1");
    WAIT_UNTIL(cm_sync_synced(node.sync), 3000);
    assert_true(has(&node, "good@example.com"));
    assert_int_equal(count_rules(&node), 1);
    struct cm_buf buf;
    cm_buf_init(&buf, 1 << 20);
    cm_replica_broken_json(node.replica, &buf, 1000);
    json_error_t error;
    json_t *list = json_loads(buf.data, 0, &error);
    assert_non_null(list);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *at = json_array_get(list, i);
        print_message("  %-28s %s\n",
                      json_string_value(json_object_get(at, "key")),
                      json_string_value(json_object_get(at, "why")));
    }
    assert_int_equal(json_array_size(list), sizeof cases / sizeof *cases + 3);
    assert_int_equal(state_of(&node).broken, json_array_size(list));
    assert_non_null(strstr(buf.data, "must be written inbox:b22@example.com"));
    json_decref(list);
    cm_buf_fini(&buf);
    assert_true(alarm_has(&node, "broken documents: 31"));

    /* Mending one mends one. */
    set_inbox("list@example.com");
    WAIT_UNTIL(has(&node, "list@example.com"), 1000);
    assert_int_equal(state_of(&node).broken, 30);
    /* A document broken by hand takes the chaos away with the next resync. */
    put_raw("inbox:good@example.com", "junk", 4);
    redis_say(&server, "SET", "{cm}:epoch", "another", NULL);
    WAIT_UNTIL(!has(&node, "good@example.com"), 2500);
    assert_true(has(&node, "list@example.com"));
    stop_node(&node);
}

static void
test_script_takes_what_model_refuses(void **state)
{
    struct node node = start_node("h1");
    (void)state;
    /* Sound JSON, so the script takes it; no configuration, so we do not. */
    set_doc(CM_KIND_INBOX, "a@example.com", "{\"enabled\":\"maybe\"}");
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com"), 2000);
    WAIT_UNTIL(state_of(&node).broken == 1, 1000);
    set_inbox("a@example.com");
    WAIT_UNTIL(has(&node, "a@example.com"), 1000);
    assert_int_equal(state_of(&node).broken, 0);
    stop_node(&node);
}

/* --- the fleet --- */

static void
test_two_replicas_converge_under_load(void **state)
{
    enum { RATE = 300, SECONDS = 3 };
    struct node one = start_node("h1"), two = start_node("h2");
    char name[64];
    (void)state;
    int64_t start = cm_clock_mono_us();
    for (int i = 0; i < RATE * SECONDS; i++) {
        snprintf(name, sizeof name, "u%d@example.com", (i * 7) % 200);
        if (i % 5 == 4)
            (void)!cm_commit_del(commits, CM_KIND_INBOX, name, CM_REV_ANY,
                                 NULL);
        else
            set_inbox(name);
        if (i % 50 == 0)
            set_doc(CM_KIND_RULE, "r1", RULE);
        if (i == RATE) { /* one of them starts anew in the middle */
            stop_node(&two);
            two = start_node("h2");
        }
        int64_t due = start + (int64_t)(i + 1) * 1000000 / RATE;
        if (due > cm_clock_mono_us())
            usleep((useconds_t)(due - cm_clock_mono_us()));
    }
    int64_t end = cm_clock_mono_ms();
    char *epoch = NULL;
    int64_t seq = 0;
    assert_int_equal(cm_commit_seq(commits, &epoch, &seq, NULL), CM_OK);
    free(epoch);
    WAIT_UNTIL(state_of(&one).seq == seq && state_of(&two).seq == seq, 1000);
    print_message("  equal %d ms after the last of %d commits\n",
                  (int)(cm_clock_mono_ms() - end), (int)seq);
    assert_int_equal(state_of(&one).digest, state_of(&two).digest);
    /* And both equal to one that reads everything now. */
    struct node three = start_node("h3");
    WAIT_UNTIL(cm_sync_synced(three.sync), 2000);
    assert_int_equal(state_of(&three).digest, state_of(&one).digest);
    assert_int_equal(state_of(&three).inboxes, state_of(&one).inboxes);
    stop_node(&one);
    stop_node(&two);
    stop_node(&three);
}

static void
test_heartbeat_tells_all(void **state)
{
    struct node node = start_node("host \"1\"");
    char **hosts = NULL;
    (void)state;
    set_inbox("a@example.com");
    set_doc(CM_KIND_INBOX, "b@example.com", "{}");
    WAIT_UNTIL(state_of(&node).seq == 2, 2000);
    usleep(1200000);
    assert_int_equal(cm_commit_hosts(commits, &hosts, NULL), CM_OK);
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
    stop_node(&node);
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
    redis_say(&server, "SCRIPT", "FLUSH", NULL);
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
    assert_int_equal(redis_say(&server, "XLEN", "{cm}:ev", NULL)->integer, 1);
    assert_int_equal(
        redis_say(&server, "HLEN", "{cm}:st:totals", NULL)->integer, 3);
}

static void
test_acl_milter_is_enough_and_denied_is_told(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    redis_say(&server, "ACL", "SETUSER", "chaos-milter", "reset", "on", ">hush",
              "%R~{cm}:cfg:*", "%R~{cm}:log", "%R~{cm}:epoch", "%R~{cm}:seq",
              "%R~{cm}:idx", "~{cm}:st:*", "~{cm}:ev", "+ping", "+select",
              "+client|setname", "+info", "+mget", "+getrange", "+zrangebylex",
              "+xread", "+xinfo|stream", "+hset", "+xadd", "+eval", "+evalsha",
              "+time", "+get", "+set", "+hmget", "+del", "+pexpire", "+incr",
              "+hincrby", NULL);
    struct cm_sync_opts opts = {.link = redis_server_opts(&server),
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
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    set_inbox("b@example.com");
    WAIT_UNTIL(has(&node, "b@example.com"), 1000);
    usleep(1100000);
    assert_true(no_alarm(&node));
    assert_int_equal(redis_say(&server, "HLEN", "{cm}:st:hosts", NULL)->integer,
                     1);
    use_state(&opts.link);
    /* The right to read is taken away: rules stay, and the alarm says it. */
    redis_say(&server, "ACL", "SETUSER", "chaos-milter", "-xread", NULL);
    WAIT_UNTIL(alarm_has(&node, "NOPERM"), 3000);
    assert_false(alarm_has(&node, "hush"));
    assert_true(has(&node, "a@example.com"));
    redis_say(&server, "ACL", "SETUSER", "chaos-milter", "+xread", NULL);
    WAIT_UNTIL(no_alarm(&node), 8000);
    /* The password changes. */
    redis_say(&server, "ACL", "SETUSER", "chaos-milter", "resetpass", ">new",
              NULL);
    redis_say(&server, "CLIENT", "KILL", "USER", "chaos-milter", NULL);
    WAIT_UNTIL(alarm_has(&node, "WRONGPASS"), 3000);
    assert_true(has(&node, "a@example.com"));
    stop_node(&node);
    redis_say(&server, "ACL", "DELUSER", "chaos-milter", NULL);
}

static void
test_evicting_redis_raises_alarm(void **state)
{
    (void)state;
    redis_say(&server, "CONFIG", "SET", "maxmemory", "100mb",
              "maxmemory-policy", "allkeys-lru", NULL);
    struct node node = start_node("h1");
    WAIT_UNTIL(alarm_has(&node, "allkeys-lru"), 2000);
    stop_node(&node);
}

static void
test_read_only_redis_still_serves(void **state)
{
    (void)state;
    set_inbox("a@example.com");
    redis_say(&server, "REPLICAOF", "127.0.0.1", "9", NULL);
    struct node node = start_node("h1");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    WAIT_UNTIL(alarm_has(&node, "READONLY"), 2500);
    redis_say(&server, "REPLICAOF", "NO", "ONE", NULL);
    WAIT_UNTIL(no_alarm(&node), 2500);
    stop_node(&node);
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
    set_inbox("a@example.com");
    set_doc(CM_KIND_RULE, "r1", RULE);
    struct node node = start_node_with("h1", 0, fd);
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    WAIT_UNTIL(faccessat(fd, "snapshot", F_OK, 0) == 0, 1000);
    set_inbox("b@example.com"); /* written at stop: five seconds are not over */
    WAIT_UNTIL(has(&node, "b@example.com"), 1000);
    struct cm_replica_state before = state_of(&node);
    stop_node(&node);

    redis_server_kill(&server);
    node = start_node_with("h1", 0, fd);
    assert_true(has(&node, "a@example.com")); /* at once */
    assert_true(has(&node, "b@example.com"));
    assert_int_equal(count_rules(&node), 1);
    assert_int_equal(state_of(&node).seq, before.seq);
    assert_int_equal(state_of(&node).digest, before.digest);
    assert_string_equal(state_of(&node).epoch, before.epoch);
    assert_false(cm_sync_synced(node.sync));
    redis_server_again(&server); /* empty: the rules stay */
    WAIT_UNTIL(alarm_has(&node, "Redis is empty"), 6000);
    assert_true(has(&node, "a@example.com"));
    stop_node(&node);

    /* Half a file is no file. */
    cut_in_half(fd, "snapshot");
    node = start_node_with("h1", 0, fd);
    assert_false(has(&node, "a@example.com"));
    assert_true(alarm_has(&node, "snapshot snapshot line"));
    stop_node(&node);
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
    struct node node = start_node_with("h1", 0, fd);
    set_inbox("a@example.com");
    WAIT_UNTIL(has(&node, "a@example.com"), 2000);
    WAIT_UNTIL(alarm_has(&node, "cannot create snapshot"), 1000);
    stop_node(&node);
    close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, finish)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_commit_reaches_replica_fast),
        TEST(test_first_commit_ever_reaches_replica_fast),
        TEST(test_delete_and_change_arrive),
        TEST(test_rules_come_in_their_order),
        TEST(test_large_document_arrives),
        TEST(test_many_inboxes_page),
        TEST(test_start_without_redis_then_recover),
        TEST(test_restart_empty_keeps_rules_until_new_epoch),
        TEST(test_restart_with_old_data_goes_back),
        TEST(test_frozen_redis_keeps_rules_and_recovers),
        TEST(test_stop_is_prompt_while_frozen),
        TEST(test_killed_client_goes_on_where_it_was),
        TEST(test_flushall_keeps_rules),
        TEST(test_deleted_log_converges),
        TEST(test_deleted_epoch_keeps_then_follows),
        TEST(test_seq_set_back_converges),
        TEST(test_trimmed_log_converges),
        TEST(test_foreign_log_entries_are_passed_over),
        TEST(test_broken_documents_break_nothing_else),
        TEST(test_script_takes_what_model_refuses),
        TEST(test_two_replicas_converge_under_load),
        TEST(test_heartbeat_tells_all),
        TEST(test_acl_milter_is_enough_and_denied_is_told),
        TEST(test_evicting_redis_raises_alarm),
        TEST(test_read_only_redis_still_serves),
        TEST(test_snapshot_serves_while_redis_is_away),
        TEST(test_snapshot_failing_is_an_alarm),
    };
    return cmocka_run_group_tests_name("store_sync", tests, start_server,
                                       end_server);
}
