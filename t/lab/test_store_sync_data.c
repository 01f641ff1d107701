/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The replica, and what people do to the data behind the back of the scripts:
 * keys deleted or set back, a log cut or written to, documents that are none.
 */
#include "milter/buf.h"
#include "milter/clock.h"
#include "t/lab/sync_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- what people do to the data --- */

static void
test_flushall_keeps_rules(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    redis_say(&rig.server, "FLUSHALL", NULL);
    redis_say(&rig.server, "SET", "other-app", "data", NULL);
    WAIT_UNTIL(node_alarm_has(&node, "Redis is empty"), 2500);
    assert_true(node_has(&node, "a@example.com"));
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com") &&
                   !node_has(&node, "a@example.com"),
               100);
    node_stop(&node);
}

static void
test_deleted_log_converges(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    redis_say(&rig.server, "DEL", "{cm}:log", NULL);
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com"), 2500);
    /* Commits whose entries are gone before anybody saw them. */
    cm_sync_stop(node.sync);
    cm_sync_free(&node.sync);
    rig_set_inbox("c@example.com");
    redis_say(&rig.server, "DEL", "{cm}:log", NULL);
    cm_replica_free(&node.replica);
    node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "c@example.com"), 2000);
    /* The same while it runs: one transaction, so that no entry is seen. */
    free(redis_cli(&rig.server,
                   "EVAL \"redis.call('INCR', '{cm}:seq') "
                   "redis.call('DEL', '{cm}:log') redis.call('SET', "
                   "'{cm}:cfg:inbox:d@example.com', '{\\\"rev\\\":1,"
                   "\\\"seq\\\":4,\\\"doc\\\":{\\\"enabled\\\":true}}') "
                   "redis.call('ZADD', '{cm}:idx', 0, "
                   "'inbox:d@example.com')\" 0"));
    WAIT_UNTIL(node_has(&node, "d@example.com"), 2500);
    node_stop(&node);
}

static void
test_deleted_epoch_keeps_then_follows(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    struct node node = node_start("h1");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    redis_say(&rig.server, "DEL", "{cm}:epoch", NULL);
    WAIT_UNTIL(node_alarm_has(&node, "Redis is empty"), 2500);
    assert_true(node_has(&node, "a@example.com"));
    rig_set_inbox(
        "b@example.com"); /* makes an epoch; the documents are there */
    WAIT_UNTIL(node_has(&node, "b@example.com"), 1000);
    assert_true(node_has(&node, "a@example.com"));
    WAIT_UNTIL(node_no_alarm(&node), 1500);
    node_stop(&node);
}

static void
test_seq_set_back_converges(void **state)
{
    (void)state;
    rig_set_inbox("a@example.com");
    rig_set_inbox("b@example.com");
    struct node node = node_start("h1");
    WAIT_UNTIL(node_state(&node).seq == 2, 2000);
    redis_say(&rig.server, "SET", "{cm}:seq", "1", NULL);
    WAIT_UNTIL(node_state(&node).seq == 1, 3000);
    rig_set_inbox("c@example.com");
    WAIT_UNTIL(node_has(&node, "c@example.com"), 2500);
    node_stop(&node);
}

static void
test_trimmed_log_converges(void **state)
{
    char name[64];
    struct node node = node_start("h1");
    (void)state;
    rig_set_inbox("a@example.com");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    /* Away while more happens than the log keeps. */
    redis_say(&rig.server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
              NULL);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "u%d@example.com", i);
        rig_set_inbox(name);
        redis_say(&rig.server, "XTRIM", "{cm}:log", "MAXLEN", "1", NULL);
    }
    WAIT_UNTIL(node_state(&node).seq == 51, 3000);
    assert_int_equal(node_state(&node).inboxes, 51);
    assert_true(node_has(&node, "u0@example.com"));
    node_stop(&node);
}

static void
test_foreign_log_entries_are_passed_over(void **state)
{
    struct node node = node_start("h1");
    (void)state;
    rig_set_inbox("a@example.com");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 2000);
    redis_say(&rig.server, "XADD", "{cm}:log", "*", "hello", "world", NULL);
    redis_say(&rig.server, "XADD", "{cm}:log", "*", "epoch", "other", "seq",
              "9", "op", "del", "key", "inbox:a@example.com", NULL);
    redis_say(&rig.server, "XADD", "{cm}:log", "*", "seq", "-1", "op", "",
              "key", "", "epoch", "", NULL);
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com"), 2000);
    assert_true(node_has(&node, "a@example.com"));
    node_stop(&node);
}

/* --- broken documents --- */

static void
put_raw(const char *key, const char *text, size_t len)
{
    char name[256];
    struct cm_link_opts opts = redis_server_opts(&rig.server);
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
    rig_set_inbox("good@example.com");
    rig_set_doc(CM_KIND_RULE, "good", RIG_RULE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        put_raw(cases[i].key, cases[i].text,
                cases[i].len ? cases[i].len : strlen(cases[i].text));
    /* Too large to be fetched, of the wrong type, and a ghost. */
    put_raw("inbox:huge@example.com", "x", 1);
    redis_say(&rig.server, "SETRANGE", "{cm}:cfg:inbox:huge@example.com",
              "100000000", "x", NULL);
    redis_say(&rig.server, "LPUSH", "{cm}:cfg:inbox:list@example.com", "x",
              NULL);
    redis_say(&rig.server, "ZADD", "{cm}:idx", "0", "inbox:list@example.com",
              "0", "inbox:ghost@example.com", "0", "unknown:kind", NULL);

    struct node node = node_start("h1");
    WAIT_UNTIL(cm_sync_synced(node.sync), 3000);
    assert_true(node_has(&node, "good@example.com"));
    assert_int_equal(node_rules(&node), 1);
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
    assert_int_equal(node_state(&node).broken, json_array_size(list));
    assert_non_null(strstr(buf.data, "must be written inbox:b22@example.com"));
    json_decref(list);
    cm_buf_fini(&buf);
    assert_true(node_alarm_has(&node, "broken documents: 31"));

    /* Mending one mends one. */
    rig_set_inbox("list@example.com");
    WAIT_UNTIL(node_has(&node, "list@example.com"), 1000);
    assert_int_equal(node_state(&node).broken, 30);
    /* A document broken by hand takes the chaos away with the next resync. */
    put_raw("inbox:good@example.com", "junk", 4);
    redis_say(&rig.server, "SET", "{cm}:epoch", "another", NULL);
    WAIT_UNTIL(!node_has(&node, "good@example.com"), 2500);
    assert_true(node_has(&node, "list@example.com"));
    node_stop(&node);
}

static void
test_script_takes_what_model_refuses(void **state)
{
    struct node node = node_start("h1");
    (void)state;
    /* Sound JSON, so the script takes it; no configuration, so we do not. */
    rig_set_doc(CM_KIND_INBOX, "a@example.com", "{\"enabled\":\"maybe\"}");
    rig_set_inbox("b@example.com");
    WAIT_UNTIL(node_has(&node, "b@example.com"), 2000);
    WAIT_UNTIL(node_state(&node).broken == 1, 1000);
    rig_set_inbox("a@example.com");
    WAIT_UNTIL(node_has(&node, "a@example.com"), 1000);
    assert_int_equal(node_state(&node).broken, 0);
    node_stop(&node);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_flushall_keeps_rules),
        RIG_TEST(test_deleted_log_converges),
        RIG_TEST(test_deleted_epoch_keeps_then_follows),
        RIG_TEST(test_seq_set_back_converges),
        RIG_TEST(test_trimmed_log_converges),
        RIG_TEST(test_foreign_log_entries_are_passed_over),
        RIG_TEST(test_broken_documents_break_nothing_else),
        RIG_TEST(test_script_takes_what_model_refuses),
    };
    return cmocka_run_group_tests_name("store_sync_data", tests,
                                       rig_start_server, rig_end_server);
}
