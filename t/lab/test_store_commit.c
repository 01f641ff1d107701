/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Documents in a real Redis: what the admin daemon writes and reads, also while
 * Redis is out of memory, read-only, away, or holds what nobody expected.
 */
#include "milter/clock.h"
#include "milter/store/redis.h"
#include "t/lab/commit_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- documents --- */

static void
test_set_revisions_and_conflicts(void **state)
{
    int64_t rev = 0;
    struct cm_doc doc;
    (void)state;
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_NONE, &rev),
                     CM_OK);
    assert_int_equal(rev, 1);
    assert_int_equal(
        rig_set(CM_KIND_INBOX, "a@b.c", RIG_OFF, CM_REV_NONE, NULL),
        CM_ECONFLICT);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_OFF, 7, NULL),
                     CM_ECONFLICT);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_OFF, 1, &rev), CM_OK);
    assert_int_equal(rev, 2);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_ANY, &rev),
                     CM_OK);
    assert_int_equal(rev, 3);
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_OFF, 4, NULL),
                     CM_ECONFLICT);

    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL), CM_OK);
    assert_string_equal(doc.text, RIG_ON);
    assert_int_equal(doc.rev, 3);
    assert_int_equal(doc.seq, 3);
    cm_doc_fini(&doc);

    assert_int_equal(
        cm_commit_del(rig.commits, CM_KIND_INBOX, "a@b.c", 2, NULL),
        CM_ECONFLICT);
    assert_int_equal(
        cm_commit_del(rig.commits, CM_KIND_INBOX, "a@b.c", 3, NULL), CM_OK);
    assert_int_equal(
        cm_commit_del(rig.commits, CM_KIND_INBOX, "a@b.c", CM_REV_ANY, NULL),
        CM_NOTFOUND);
    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
        CM_NOTFOUND);
    /* The tombstone: revisions go on where they were. */
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_NONE, &rev),
                     CM_OK);
    assert_int_equal(rev, 4);
}

static void
test_set_bad_input_changes_nothing(void **state)
{
    static char large[70000];
    static const struct {
        enum cm_kind kind;
        const char *name, *doc;
    } cases[] = {
        {CM_KIND_INBOX, "a@b.c", ""},
        {CM_KIND_INBOX, "a@b.c", "[]"},
        {CM_KIND_INBOX, "a@b.c", "1"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":1"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":1}}"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":NaN}"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":Infinity}"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":0x10}"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":1} {\"b\":2}"},
        {CM_KIND_INBOX, "a@b.c", "\xef\xbb\xbf{}"},
        {CM_KIND_INBOX, "a@b.c", "{\"a\":\"\x01\"}"},
        {CM_KIND_INBOX, "a@b.c", large},
        {CM_KIND_INBOX, "", RIG_ON},
        {CM_KIND_INBOX, "a", RIG_ON},
        {CM_KIND_INBOX, "@b", RIG_ON},
        {CM_KIND_INBOX, "a@", RIG_ON},
        {CM_KIND_INBOX, "a b@c", RIG_ON},
        {CM_KIND_INBOX, "a@b c", RIG_ON},
        {CM_KIND_INBOX, "a@b\tc", RIG_ON},
        {CM_KIND_INBOX, "a@\xc3\xbc.example", RIG_ON},
        {CM_KIND_INBOX, "<a@b.c>", RIG_ON},
        {CM_KIND_BOX, "nobody", RIG_ON},
        {CM_KIND_RULE, "", RIG_ON},
        {CM_KIND_RULE, "r 1", RIG_ON},
        {CM_KIND_RULE, "-r", RIG_ON},
    };
    (void)state;
    memset(large, ' ', sizeof large - 1);
    memcpy(large, "{\"a\":", 5);
    memcpy(large + sizeof large - 3, "1}", 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (rig_set(cases[i].kind, cases[i].name, cases[i].doc, CM_REV_ANY,
                    NULL) != CM_EINVAL)
            fail_msg("%s %.60s", cases[i].name, cases[i].doc);
    assert_int_equal(redis_say(&rig.server, "DBSIZE", NULL)->integer, 0);
}

/* A script that takes long keeps Redis from everybody, so no text may make it:
 * 64 KiB of anything, as document or as name. */
static void
test_set_hostile_text_is_quick(void **state)
{
    static const char *const fills[] = {" ",     "\t",   "[",   "{\"a\":", "\\",
                                        "\"",    "\\\"", "@",   "true",    "1",
                                        "\"\",", "a@",   "[],", "e+"};
    static char text[65537];
    (void)state;
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
        size_t len = strlen(fills[i]), at = 0;
        for (; at + len < sizeof text; at += len)
            memcpy(text + at, fills[i], len);
        text[at] = '\0';
        int64_t start = cm_clock_mono_ms();
        (void)!cm_commit_set(rig.commits, CM_KIND_INBOX, "a@b.c", text, at,
                             CM_REV_ANY, NULL, NULL);
        (void)!cm_commit_set(rig.commits, CM_KIND_INBOX, text, RIG_ON,
                             strlen(RIG_ON), CM_REV_ANY, NULL, NULL);
        memcpy(text, "{\"a\":[\"", 8);
        memcpy(text + at - 3, "\"]}", 3);
        (void)!cm_commit_set(rig.commits, CM_KIND_INBOX, "a@b.c", text, at,
                             CM_REV_ANY, NULL, NULL);
        memcpy(text, "{\"a\":  [", 8);
        memcpy(text + at - 3, "1]}", 3);
        (void)!cm_commit_set(rig.commits, CM_KIND_INBOX, "a@b.c", text, at,
                             CM_REV_ANY, NULL, NULL);
        if (cm_clock_mono_ms() - start > 200)
            fail_msg("64 KiB of %s took %d ms", fills[i],
                     (int)(cm_clock_mono_ms() - start));
    }
}

static void
test_set_keeps_text_and_canonical_name(void **state)
{
    const char *doc = "{ \"enabled\" : true, \"x\": 1.50, \"y\":\"\\u00fc\" }";
    struct cm_doc got;
    (void)state;
    assert_int_equal(
        rig_set(CM_KIND_INBOX, "User+T@EXAMPLE.com", doc, CM_REV_ANY, NULL),
        CM_OK);
    assert_int_equal(cm_commit_get(rig.commits, CM_KIND_INBOX,
                                   "user+t@example.com", &got, NULL),
                     CM_OK);
    assert_string_equal(got.text, doc);
    assert_int_equal(got.len, strlen(doc));
    cm_doc_fini(&got);
    assert_int_equal(
        rig_set(CM_KIND_INBOX, "\"a b\"@x", RIG_ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(
        rig_set(CM_KIND_INBOX, "a@[192.0.2.1]", RIG_ON, CM_REV_ANY, NULL),
        CM_OK);
    assert_int_equal(
        rig_set(CM_KIND_INBOX, "{}*?[]@x", RIG_ON, CM_REV_ANY, NULL), CM_OK);
}

static void
test_commits_case_sensitive_keeps_local_part(void **state)
{
    struct cm_commits *other = NULL;
    struct cm_doc got;
    (void)state;
    assert_int_equal(
        cm_commits_new(&other, rig.pool, "{cs}", false, 1000, NULL), CM_OK);
    assert_int_equal(cm_commit_set(other, CM_KIND_INBOX, "User@EXAMPLE.com",
                                   RIG_ON, strlen(RIG_ON), CM_REV_ANY, NULL,
                                   NULL),
                     CM_OK);
    assert_int_equal(
        cm_commit_get(other, CM_KIND_INBOX, "User@example.com", &got, NULL),
        CM_OK);
    cm_doc_fini(&got);
    assert_int_equal(cm_commit_get(rig.commits, CM_KIND_INBOX,
                                   "user@example.com", &got, NULL),
                     CM_NOTFOUND);
    cm_commits_free(&other);
    assert_int_equal(cm_commits_new(&other, rig.pool, "a'b", false, 1000, NULL),
                     CM_EINVAL);
    assert_null(other);
}

static void
test_list_pages_through_all_names(void **state)
{
    char name[64], last[64] = "";
    size_t total = 0, pages = 0, n = 0;
    (void)state;
    for (int i = 0; i < 2500; i++) {
        snprintf(name, sizeof name, "user%04d@example.com", i);
        assert_int_equal(cm_commit_set(rig.commits, CM_KIND_INBOX, name, RIG_ON,
                                       strlen(RIG_ON), CM_REV_ANY, NULL, NULL),
                         CM_OK);
    }
    assert_int_equal(
        rig_set(CM_KIND_BOX, "user0000@example.com", RIG_ON, CM_REV_ANY, NULL),
        CM_OK);
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    do {
        char **names = NULL;
        assert_int_equal(cm_commit_list(rig.commits, CM_KIND_INBOX, "", last,
                                        400, &names, &n, NULL),
                         CM_OK);
        for (size_t i = 0; i < n; i++) {
            assert_true(strcmp(last, names[i]) < 0);
            snprintf(last, sizeof last, "%s", names[i]);
        }
        assert_null(names[n]);
        cm_names_free(&names);
        total += n;
        pages++;
    } while (n > 0);
    assert_int_equal(total, 2500);
    assert_int_equal(pages, 8);

    char **names = NULL;
    assert_int_equal(cm_commit_list(rig.commits, CM_KIND_INBOX, "user001", "",
                                    1000, &names, &n, NULL),
                     CM_OK);
    assert_int_equal(n, 10);
    assert_string_equal(names[9], "user0019@example.com");
    cm_names_free(&names);
    assert_int_equal(
        cm_commit_list(rig.commits, CM_KIND_INBOX, "", "", 0, &names, &n, NULL),
        CM_EINVAL);
}

static void
test_commit_seq_and_epoch(void **state)
{
    char *epoch = NULL, *again = NULL;
    int64_t seq = 0;
    (void)state;
    assert_int_equal(cm_commit_seq(rig.commits, &epoch, &seq, NULL),
                     CM_NOTFOUND);
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(rig_set(CM_KIND_RULE, "r2", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(cm_commit_seq(rig.commits, &epoch, &seq, NULL), CM_OK);
    assert_int_equal(seq, 2);
    assert_int_equal(strlen(epoch), 40);
    redis_say(&rig.server, "FLUSHALL", NULL);
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(cm_commit_seq(rig.commits, &again, &seq, NULL), CM_OK);
    assert_string_not_equal(epoch, again);
    free(epoch);
    free(again);
}

static void
test_rule_order_survives_changes(void **state)
{
    (void)state;
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(rig_set(CM_KIND_RULE, "r2", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_OFF, CM_REV_ANY, NULL),
                     CM_OK);
    assert_string_equal(
        redis_say(&rig.server, "GET", "{cm}:cfg:rule:r1", NULL)->str,
        "{\"rev\":2,\"seq\":3,\"ord\":1,\"doc\":" RIG_OFF "}");
}

/* --- Redis in trouble --- */

static void
test_set_after_script_flush_works(void **state)
{
    (void)state;
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    redis_say(&rig.server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    redis_say(&rig.server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(cm_commit_del(rig.commits, CM_KIND_RULE, "r1", 2, NULL),
                     CM_OK);
}

static void
test_set_out_of_memory_applies_nothing(void **state)
{
    struct cm_doc doc;
    char *epoch = NULL;
    int64_t seq = 0;
    (void)state;
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(rig_set(CM_KIND_INBOX, "b@b.c", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "1", NULL);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_OFF, CM_REV_ANY, NULL),
                     CM_EPROTO);
    assert_int_equal(rig_set(CM_KIND_INBOX, "c@b.c", RIG_OFF, CM_REV_ANY, NULL),
                     CM_EPROTO);
    assert_int_equal(
        cm_commit_del(rig.commits, CM_KIND_INBOX, "b@b.c", CM_REV_ANY, NULL),
        CM_EPROTO);
    char *said =
        redis_cli(&rig.server, "FCALL cm_set 0 inbox c@b.c '" RIG_ON "'");
    assert_null(strstr(said, "rev"));
    free(said);
    /* Reading goes on. */
    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL), CM_OK);
    assert_string_equal(doc.text, RIG_ON);
    cm_doc_fini(&doc);
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(cm_commit_list(rig.commits, CM_KIND_INBOX, "", "", 10,
                                    &names, &n, NULL),
                     CM_OK);
    assert_int_equal(n, 2);
    cm_names_free(&names);
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "0", NULL);
    assert_int_equal(cm_commit_seq(rig.commits, &epoch, &seq, NULL), CM_OK);
    assert_int_equal(seq, 2);
    assert_int_equal(redis_say(&rig.server, "XLEN", "{cm}:log", NULL)->integer,
                     2);
    free(epoch);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_OFF, CM_REV_ANY, NULL),
                     CM_OK);
}

static void
test_set_on_replica_is_refused(void **state)
{
    struct cm_doc doc;
    (void)state;
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    redis_say(&rig.server, "CONFIG", "SET", "replica-serve-stale-data", "yes",
              NULL);
    redis_say(&rig.server, "REPLICAOF", "127.0.0.1", "9", NULL);
    struct cm_err err = {CM_OK, ""};
    assert_int_equal(cm_commit_set(rig.commits, CM_KIND_INBOX, "a@b.c", RIG_OFF,
                                   strlen(RIG_OFF), CM_REV_ANY, NULL, &err),
                     CM_EPROTO);
    assert_non_null(strstr(err.msg, "READONLY"));
    assert_int_equal(cm_pool_retry_ms(rig.pool), 0);
    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL), CM_OK);
    cm_doc_fini(&doc);
    redis_say(&rig.server, "REPLICAOF", "NO", "ONE", NULL);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_OFF, CM_REV_ANY, NULL),
                     CM_OK);
}

static void
test_set_over_wrong_types(void **state)
{
    struct cm_doc doc;
    (void)state;
    redis_say(&rig.server, "LPUSH", "{cm}:cfg:inbox:a@b.c", "x", NULL);
    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
        CM_EPROTO);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_NONE, NULL),
                     CM_ECONFLICT);
    assert_int_equal(rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_ANY, NULL),
                     CM_OK);
    /* Our own keys taken by somebody: nothing is half done. */
    static const char *const keys[] = {"{cm}:idx", "{cm}:log", "{cm}:seq"};
    for (size_t i = 0; i < 3; i++) {
        redis_say(&rig.server, "FLUSHALL", NULL);
        redis_say(&rig.server, "LPUSH", keys[i], "x", NULL);
        assert_int_equal(
            rig_set(CM_KIND_INBOX, "a@b.c", RIG_ON, CM_REV_ANY, NULL),
            CM_EPROTO);
        assert_int_equal(redis_say(&rig.server, "DBSIZE", NULL)->integer, 1);
    }
    /* A value that no document is. */
    redis_say(&rig.server, "FLUSHALL", NULL);
    redis_say(&rig.server, "SET", "{cm}:cfg:inbox:a@b.c", "junk", NULL);
    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
        CM_EPROTO);
    redis_say(&rig.server, "SETRANGE", "{cm}:cfg:inbox:a@b.c", "90000000", "x",
              NULL);
    assert_int_equal(
        cm_commit_get(rig.commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
        CM_EPROTO);
}

static void
test_commit_redis_gone_says_so_and_recovers(void **state)
{
    struct cm_doc doc;
    (void)state;
    redis_server_freeze(&rig.server);
    enum cm_status st = rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL);
    assert_true(st == CM_ETIMEOUT || st == CM_EIO);
    assert_int_equal(cm_commit_get(rig.commits, CM_KIND_RULE, "r1", &doc, NULL),
                     CM_EIO);
    assert_true(cm_pool_retry_ms(rig.pool) > 0);
    redis_server_thaw(&rig.server);
    WAIT_UNTIL(rig_set(CM_KIND_RULE, "r1", RIG_ON, CM_REV_ANY, NULL) == CM_OK,
               3000);
}

/* --- the fleet --- */

static void
test_totals_and_hosts(void **state)
{
    struct cm_total totals[] = {{"a.x", 3}, {"b", 4}};
    struct cm_total read[] = {{"b", -1}, {"never", -1}, {"a.x", -1}};
    char **json = NULL;
    (void)state;
    assert_int_equal(cm_commit_add_totals(rig.commits, totals, 2, NULL), CM_OK);
    redis_say(&rig.server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(cm_commit_add_totals(rig.commits, totals, 2, NULL), CM_OK);
    assert_int_equal(cm_commit_totals(rig.commits, read, 3, NULL), CM_OK);
    assert_int_equal(read[0].value, 8);
    assert_int_equal(read[1].value, 0);
    assert_int_equal(read[2].value, 6);

    redis_say(&rig.server, "HSET", "{cm}:st:hosts", "h1", "{\"time_ms\":1000}",
              "h2", "{\"time_ms\":3000}", "h3", "junk", NULL);
    assert_int_equal(cm_commit_hosts(rig.commits, &json, NULL), CM_OK);
    assert_non_null(json[2]);
    assert_null(json[3]);
    cm_names_free(&json);
    assert_int_equal(cm_commit_forget_hosts(rig.commits, 2000, NULL), CM_OK);
    assert_int_equal(cm_commit_hosts(rig.commits, &json, NULL), CM_OK);
    assert_string_equal(json[0], "{\"time_ms\":3000}");
    assert_null(json[1]);
    cm_names_free(&json);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_set_revisions_and_conflicts),
        RIG_TEST(test_set_bad_input_changes_nothing),
        RIG_TEST(test_set_hostile_text_is_quick),
        RIG_TEST(test_set_keeps_text_and_canonical_name),
        RIG_TEST(test_commits_case_sensitive_keeps_local_part),
        RIG_TEST(test_list_pages_through_all_names),
        RIG_TEST(test_commit_seq_and_epoch),
        RIG_TEST(test_rule_order_survives_changes),
        RIG_TEST(test_set_after_script_flush_works),
        RIG_TEST(test_set_out_of_memory_applies_nothing),
        RIG_TEST(test_set_on_replica_is_refused),
        RIG_TEST(test_set_over_wrong_types),
        RIG_TEST(test_commit_redis_gone_says_so_and_recovers),
        RIG_TEST(test_totals_and_hosts),
    };
    return cmocka_run_group_tests_name("store_commit", tests, rig_start_server,
                                       rig_end_server);
}
