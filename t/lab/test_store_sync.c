/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The replica kept equal to a real Redis: how a commit comes, and what becomes
 * of the rules while Redis goes, freezes and comes back.
 */
#include "milter/clock.h"
#include "t/lab/sync_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    struct node node = node_start("h1");
    char name[64];
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "u%d@example.com", i);
        int64_t start = cm_clock_mono_us();
        rig_set_inbox(name);
        while (!node_has(&node, name)) {
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
    node_stop(&node);
}

static void
test_first_commit_ever_reaches_replica_fast(void **state)
{
    struct node node = node_start("h1");
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    assert_true(node_no_alarm(&node));
    usleep(1300000); /* several quiet rounds */
    rig_set_inbox("a@example.com");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 100);
    node_stop(&node);
}

static void
test_delete_and_change_arrive(void **state)
{
    struct node node = node_start("h1");
    (void)state;
    rig_set_inbox("a@example.com");
    rig_set_doc(CM_KIND_RULE, "r1", RIG_RULE);
    rig_set_doc(CM_KIND_BOX, "a@example.com", "{\"x\":1}");
    WAIT_UNTIL(node_has(&node, "a@example.com") && node_rules(&node) == 1,
               2000);
    WAIT_UNTIL(node_state(&node).seq == 3, 1000);
    assert_int_equal(node_state(&node).inboxes, 1);
    assert_int_equal(cm_commit_del(rig.commits, CM_KIND_INBOX, "a@example.com",
                                   CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(
        cm_commit_del(rig.commits, CM_KIND_RULE, "r1", CM_REV_ANY, NULL),
        CM_OK);
    WAIT_UNTIL(!node_has(&node, "a@example.com") && node_rules(&node) == 0,
               1000);
    assert_int_equal(node_state(&node).digest, 0);
    node_stop(&node);
}

static void
test_rules_come_in_their_order(void **state)
{
    struct node node = node_start("h1");
    (void)state;
    rig_set_doc(CM_KIND_RULE, "z", RIG_RULE);
    rig_set_doc(CM_KIND_RULE, "a", RIG_RULE);
    rig_set_doc(CM_KIND_RULE, "z",
                "{\"enabled\":false,\"fault\":{\"kind\":"
                "\"error\"}}");
    WAIT_UNTIL(node_state(&node).seq == 3, 2000);
    struct cm_view *view = cm_replica_view(node.replica);
    struct cm_ruleset *set = cm_view_rules(view);
    assert_int_equal(cm_ruleset_count(set), 2);
    assert_string_equal(cm_ruleset_at(set, 0)->id, "z");
    assert_false(cm_ruleset_at(set, 0)->enabled);
    assert_string_equal(cm_ruleset_at(set, 1)->id, "a");
    cm_ruleset_release(&set);
    cm_view_release(&view);
    node_stop(&node);
}

static void
test_large_document_arrives(void **state)
{
    static char doc[40000];
    struct node node = node_start("h1");
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    int n = snprintf(doc, sizeof doc, "{\"enabled\":true");
    memset(doc + n, ' ', sizeof doc - 1 - (size_t)n);
    memcpy(doc + sizeof doc - 2, "}", 2);
    rig_set_doc(CM_KIND_INBOX, "big@example.com", doc);
    WAIT_UNTIL(node_has(&node, "big@example.com"), 1000);
    /* The same after a resync. */
    struct node other = node_start("h2");
    WAIT_UNTIL(node_has(&other, "big@example.com"), 2000);
    assert_int_equal(node_state(&node).digest, node_state(&other).digest);
    node_stop(&other);
    node_stop(&node);
}

static void
test_many_inboxes_page(void **state)
{
    char name[64];
    (void)state;
    for (int i = 0; i < 2500; i++) {
        snprintf(name, sizeof name, "user%04d@example.com", i);
        rig_set_inbox(name);
    }
    struct node node = node_start("h1");
    WAIT_UNTIL(cm_sync_synced(node.sync), 5000);
    assert_int_equal(node_state(&node).inboxes, 2500);
    assert_int_equal(node_state(&node).seq, 2500);
    assert_true(node_has(&node, "user0000@example.com"));
    assert_true(node_has(&node, "user0499@example.com"));
    assert_true(node_has(&node, "user0500@example.com"));
    assert_true(node_has(&node, "user2499@example.com"));
    node_stop(&node);
}

/* --- Redis comes and goes --- */

static void
test_start_without_redis_then_recover(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    redis_server_kill(&rig.server);
    struct node node = node_start("h1");
    usleep(300000);
    assert_false(cm_sync_connected(node.sync));
    assert_false(cm_sync_synced(node.sync));
    assert_true(node_alarm_has(&node, "Redis is away: connect: "));
    redis_server_again(&rig.server); /* empty */
    WAIT_UNTIL(cm_sync_connected(node.sync) && cm_sync_synced(node.sync), 3000);
    WAIT_UNTIL(node_no_alarm(&node), 1000);
    node_stop(&node);
}

static void
test_restart_empty_keeps_rules_until_new_epoch(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    rig_set_doc(CM_KIND_RULE, "r1", RIG_RULE);
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    redis_server_kill(&rig.server);
    WAIT_UNTIL(!cm_sync_connected(node.sync), 1000);
    assert_true(node_has(&node, "a@example.com"));
    redis_server_again(&rig.server);
    WAIT_UNTIL(cm_sync_connected(node.sync), 5000);
    WAIT_UNTIL(node_alarm_has(&node, "Redis is empty"), 2000);
    usleep(1500000);
    assert_true(node_has(&node, "a@example.com"));
    assert_int_equal(node_rules(&node), 1);
    /* Somebody begins anew: that is the data now. */
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com"), 1000);
    assert_false(node_has(&node, "a@example.com"));
    assert_int_equal(node_rules(&node), 0);
    WAIT_UNTIL(node_no_alarm(&node), 1500);
    node_stop(&node);
}

static void
test_restart_with_old_data_goes_back(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    redis_say(&rig.server, "SAVE", NULL);
    rig_set_inbox("b@example.com");
    rig_set_inbox("c@example.com");
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "c@example.com"), 2000);
    redis_server_kill(&rig.server);
    redis_server_again(&rig.server); /* reads dump.rdb */
    WAIT_UNTIL(!node_has(&node, "c@example.com"), 6000);
    assert_true(node_has(&node, "a@example.com"));
    assert_int_equal(node_state(&node).seq, 1);
    /* As many commits as were lost, and other ones. */
    rig_set_inbox("d@example.com");
    rig_set_inbox("e@example.com");
    WAIT_UNTIL(node_has(&node, "d@example.com") &&
                   node_has(&node, "e@example.com"),
               2000);
    node_stop(&node);
    char dump[128];
    snprintf(dump, sizeof dump, "%s/dump.rdb", rig.server.dir);
    unlink(dump);
}

static void
test_frozen_redis_keeps_rules_and_recovers(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    struct node node = node_start_with("h1", 1500, -1);
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    redis_server_freeze(&rig.server);
    WAIT_UNTIL(!cm_sync_connected(node.sync), 3000);
    assert_true(node_has(&node, "a@example.com"));
    WAIT_UNTIL(cm_sync_stale(node.sync), 3000);
    assert_true(node_alarm_has(&node, "stale"));
    redis_server_thaw(&rig.server);
    WAIT_UNTIL(cm_sync_connected(node.sync) && !cm_sync_stale(node.sync), 6000);
    WAIT_UNTIL(cm_pool_retry_ms(rig.pool) <= 1, 6000);
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com"), 1000);
    assert_int_equal(node_state(&node).seq, 2);
    node_stop(&node);
}

static void
test_stop_is_prompt_while_frozen(void **state)
{
    struct node node = node_start("h1");
    (void)state;
    WAIT_UNTIL(cm_sync_synced(node.sync), 2000);
    redis_server_freeze(&rig.server);
    usleep(100000);
    node_stop(&node); /* asserts the time */
    node = node_start("h1");
    usleep(50000);
    node_stop(&node); /* while it connects */
    redis_server_thaw(&rig.server);
    WAIT_UNTIL(redis_try(&rig.server, "PING", NULL) == CM_REDIS_OK, 3000);
}

static void
test_killed_client_goes_on_where_it_was(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    for (int i = 0; i < 3; i++) {
        redis_say(&rig.server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME",
                  "yes", NULL);
        rig_set_inbox("b@example.com");
        WAIT_UNTIL(node_state(&node).seq == 2 + i, 2000);
    }
    node_stop(&node);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_commit_reaches_replica_fast),
        RIG_TEST(test_first_commit_ever_reaches_replica_fast),
        RIG_TEST(test_delete_and_change_arrive),
        RIG_TEST(test_rules_come_in_their_order),
        RIG_TEST(test_large_document_arrives),
        RIG_TEST(test_many_inboxes_page),
        RIG_TEST(test_start_without_redis_then_recover),
        RIG_TEST(test_restart_empty_keeps_rules_until_new_epoch),
        RIG_TEST(test_restart_with_old_data_goes_back),
        RIG_TEST(test_frozen_redis_keeps_rules_and_recovers),
        RIG_TEST(test_stop_is_prompt_while_frozen),
        RIG_TEST(test_killed_client_goes_on_where_it_was),
    };
    return cmocka_run_group_tests_name("store_sync", tests, rig_start_server,
                                       rig_end_server);
}
