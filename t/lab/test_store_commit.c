/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Documents and events in a real Redis: what the admin daemon and redis-cli
 * write, what the filter records. Covers R5, R7, R9, R10 and R14 of the list of
 * cases.
 */
#include "milter/clock.h"
#include "milter/store/batch.h"
#include "milter/store/commit.h"
#include "milter/store/journal.h"
#include "milter/store/listing.h"
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

#include <signal.h>
#include <unistd.h>

#define ON  "{\"enabled\":true}"
#define OFF "{\"enabled\":false}"

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
    assert_int_equal(cm_pool_new(&pool, &opts, 16, NULL), CM_OK);
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
    redis_server_end(&server);
    return 0;
}

static int
flush(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    return 0;
}

static enum cm_status
set(enum cm_kind kind, const char *name, const char *doc, int64_t rev,
    int64_t *rev_r)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status st =
        cm_commit_set(commits, kind, name, doc, strlen(doc), rev, rev_r, &err);
    if (st != CM_OK)
        print_message("  %s: %s\n", name, err.msg);
    return st;
}

/* --- documents --- */

static void
test_set_revisions_and_conflicts(void **state)
{
    int64_t rev = 0;
    struct cm_doc doc;
    (void)state;
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_NONE, &rev), CM_OK);
    assert_int_equal(rev, 1);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", OFF, CM_REV_NONE, NULL),
                     CM_ECONFLICT);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", OFF, 7, NULL), CM_ECONFLICT);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", OFF, 1, &rev), CM_OK);
    assert_int_equal(rev, 2);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_ANY, &rev), CM_OK);
    assert_int_equal(rev, 3);
    assert_int_equal(set(CM_KIND_RULE, "r1", OFF, 4, NULL), CM_ECONFLICT);

    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_OK);
    assert_string_equal(doc.text, ON);
    assert_int_equal(doc.rev, 3);
    assert_int_equal(doc.seq, 3);
    cm_doc_fini(&doc);

    assert_int_equal(cm_commit_del(commits, CM_KIND_INBOX, "a@b.c", 2, NULL),
                     CM_ECONFLICT);
    assert_int_equal(cm_commit_del(commits, CM_KIND_INBOX, "a@b.c", 3, NULL),
                     CM_OK);
    assert_int_equal(
        cm_commit_del(commits, CM_KIND_INBOX, "a@b.c", CM_REV_ANY, NULL),
        CM_NOTFOUND);
    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_NOTFOUND);
    /* The tombstone: revisions go on where they were. */
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_NONE, &rev), CM_OK);
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
        {CM_KIND_INBOX, "", ON},
        {CM_KIND_INBOX, "a", ON},
        {CM_KIND_INBOX, "@b", ON},
        {CM_KIND_INBOX, "a@", ON},
        {CM_KIND_INBOX, "a b@c", ON},
        {CM_KIND_INBOX, "a@b c", ON},
        {CM_KIND_INBOX, "a@b\tc", ON},
        {CM_KIND_INBOX, "a@\xc3\xbc.example", ON},
        {CM_KIND_INBOX, "<a@b.c>", ON},
        {CM_KIND_BOX, "nobody", ON},
        {CM_KIND_RULE, "", ON},
        {CM_KIND_RULE, "r 1", ON},
        {CM_KIND_RULE, "-r", ON},
    };
    (void)state;
    memset(large, ' ', sizeof large - 1);
    memcpy(large, "{\"a\":", 5);
    memcpy(large + sizeof large - 3, "1}", 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (set(cases[i].kind, cases[i].name, cases[i].doc, CM_REV_ANY, NULL) !=
            CM_EINVAL)
            fail_msg("%s %.60s", cases[i].name, cases[i].doc);
    assert_int_equal(redis_say(&server, "DBSIZE", NULL)->integer, 0);
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
        (void)!cm_commit_set(commits, CM_KIND_INBOX, "a@b.c", text, at,
                             CM_REV_ANY, NULL, NULL);
        (void)!cm_commit_set(commits, CM_KIND_INBOX, text, ON, strlen(ON),
                             CM_REV_ANY, NULL, NULL);
        memcpy(text, "{\"a\":[\"", 8);
        memcpy(text + at - 3, "\"]}", 3);
        (void)!cm_commit_set(commits, CM_KIND_INBOX, "a@b.c", text, at,
                             CM_REV_ANY, NULL, NULL);
        memcpy(text, "{\"a\":  [", 8);
        memcpy(text + at - 3, "1]}", 3);
        (void)!cm_commit_set(commits, CM_KIND_INBOX, "a@b.c", text, at,
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
        set(CM_KIND_INBOX, "User+T@EXAMPLE.com", doc, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(
        cm_commit_get(commits, CM_KIND_INBOX, "user+t@example.com", &got, NULL),
        CM_OK);
    assert_string_equal(got.text, doc);
    assert_int_equal(got.len, strlen(doc));
    cm_doc_fini(&got);
    assert_int_equal(set(CM_KIND_INBOX, "\"a b\"@x", ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(set(CM_KIND_INBOX, "a@[192.0.2.1]", ON, CM_REV_ANY, NULL),
                     CM_OK);
    assert_int_equal(set(CM_KIND_INBOX, "{}*?[]@x", ON, CM_REV_ANY, NULL),
                     CM_OK);
}

static void
test_commits_case_sensitive_keeps_local_part(void **state)
{
    struct cm_commits *other = NULL;
    struct cm_doc got;
    (void)state;
    assert_int_equal(cm_commits_new(&other, pool, "{cs}", false, 1000, NULL),
                     CM_OK);
    assert_int_equal(cm_commit_set(other, CM_KIND_INBOX, "User@EXAMPLE.com", ON,
                                   strlen(ON), CM_REV_ANY, NULL, NULL),
                     CM_OK);
    assert_int_equal(
        cm_commit_get(other, CM_KIND_INBOX, "User@example.com", &got, NULL),
        CM_OK);
    cm_doc_fini(&got);
    assert_int_equal(
        cm_commit_get(commits, CM_KIND_INBOX, "user@example.com", &got, NULL),
        CM_NOTFOUND);
    cm_commits_free(&other);
    assert_int_equal(cm_commits_new(&other, pool, "a'b", false, 1000, NULL),
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
        assert_int_equal(cm_commit_set(commits, CM_KIND_INBOX, name, ON,
                                       strlen(ON), CM_REV_ANY, NULL, NULL),
                         CM_OK);
    }
    assert_int_equal(
        set(CM_KIND_BOX, "user0000@example.com", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL), CM_OK);
    do {
        char **names = NULL;
        assert_int_equal(cm_commit_list(commits, CM_KIND_INBOX, "", last, 400,
                                        &names, &n, NULL),
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
    assert_int_equal(cm_commit_list(commits, CM_KIND_INBOX, "user001", "", 1000,
                                    &names, &n, NULL),
                     CM_OK);
    assert_int_equal(n, 10);
    assert_string_equal(names[9], "user0019@example.com");
    cm_names_free(&names);
    assert_int_equal(
        cm_commit_list(commits, CM_KIND_INBOX, "", "", 0, &names, &n, NULL),
        CM_EINVAL);
}

static void
test_commit_seq_and_epoch(void **state)
{
    char *epoch = NULL, *again = NULL;
    int64_t seq = 0;
    (void)state;
    assert_int_equal(cm_commit_seq(commits, &epoch, &seq, NULL), CM_NOTFOUND);
    assert_int_equal(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(set(CM_KIND_RULE, "r2", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(cm_commit_seq(commits, &epoch, &seq, NULL), CM_OK);
    assert_int_equal(seq, 2);
    assert_int_equal(strlen(epoch), 40);
    redis_say(&server, "FLUSHALL", NULL);
    assert_int_equal(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(cm_commit_seq(commits, &again, &seq, NULL), CM_OK);
    assert_string_not_equal(epoch, again);
    free(epoch);
    free(again);
}

static void
test_rule_order_survives_changes(void **state)
{
    (void)state;
    assert_int_equal(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(set(CM_KIND_RULE, "r2", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(set(CM_KIND_RULE, "r1", OFF, CM_REV_ANY, NULL), CM_OK);
    assert_string_equal(
        redis_say(&server, "GET", "{cm}:cfg:rule:r1", NULL)->str,
        "{\"rev\":2,\"seq\":3,\"ord\":1,\"doc\":" OFF "}");
}

/* --- Redis in trouble --- */

static void
test_set_after_script_flush_works(void **state)
{
    (void)state;
    assert_int_equal(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL), CM_OK);
    redis_say(&server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL), CM_OK);
    redis_say(&server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(cm_commit_del(commits, CM_KIND_RULE, "r1", 2, NULL),
                     CM_OK);
}

static void
test_set_out_of_memory_applies_nothing(void **state)
{
    struct cm_doc doc;
    char *epoch = NULL;
    int64_t seq = 0;
    (void)state;
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(set(CM_KIND_INBOX, "b@b.c", ON, CM_REV_ANY, NULL), CM_OK);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "1", NULL);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", OFF, CM_REV_ANY, NULL),
                     CM_EPROTO);
    assert_int_equal(set(CM_KIND_INBOX, "c@b.c", OFF, CM_REV_ANY, NULL),
                     CM_EPROTO);
    assert_int_equal(
        cm_commit_del(commits, CM_KIND_INBOX, "b@b.c", CM_REV_ANY, NULL),
        CM_EPROTO);
    char *said = redis_cli(&server, "FCALL cm_set 0 inbox c@b.c '" ON "'");
    assert_null(strstr(said, "rev"));
    free(said);
    /* Reading goes on. */
    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_OK);
    assert_string_equal(doc.text, ON);
    cm_doc_fini(&doc);
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(
        cm_commit_list(commits, CM_KIND_INBOX, "", "", 10, &names, &n, NULL),
        CM_OK);
    assert_int_equal(n, 2);
    cm_names_free(&names);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    assert_int_equal(cm_commit_seq(commits, &epoch, &seq, NULL), CM_OK);
    assert_int_equal(seq, 2);
    assert_int_equal(redis_say(&server, "XLEN", "{cm}:log", NULL)->integer, 2);
    free(epoch);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", OFF, CM_REV_ANY, NULL), CM_OK);
}

static void
test_set_on_replica_is_refused(void **state)
{
    struct cm_doc doc;
    (void)state;
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_ANY, NULL), CM_OK);
    redis_say(&server, "CONFIG", "SET", "replica-serve-stale-data", "yes",
              NULL);
    redis_say(&server, "REPLICAOF", "127.0.0.1", "9", NULL);
    struct cm_err err = {CM_OK, ""};
    assert_int_equal(cm_commit_set(commits, CM_KIND_INBOX, "a@b.c", OFF,
                                   strlen(OFF), CM_REV_ANY, NULL, &err),
                     CM_EPROTO);
    assert_non_null(strstr(err.msg, "READONLY"));
    assert_int_equal(cm_pool_retry_ms(pool), 0);
    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_OK);
    cm_doc_fini(&doc);
    redis_say(&server, "REPLICAOF", "NO", "ONE", NULL);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", OFF, CM_REV_ANY, NULL), CM_OK);
}

static void
test_set_over_wrong_types(void **state)
{
    struct cm_doc doc;
    (void)state;
    redis_say(&server, "LPUSH", "{cm}:cfg:inbox:a@b.c", "x", NULL);
    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_EPROTO);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_NONE, NULL),
                     CM_ECONFLICT);
    assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_ANY, NULL), CM_OK);
    /* Our own keys taken by somebody: nothing is half done. */
    static const char *const keys[] = {"{cm}:idx", "{cm}:log", "{cm}:seq"};
    for (size_t i = 0; i < 3; i++) {
        redis_say(&server, "FLUSHALL", NULL);
        redis_say(&server, "LPUSH", keys[i], "x", NULL);
        assert_int_equal(set(CM_KIND_INBOX, "a@b.c", ON, CM_REV_ANY, NULL),
                         CM_EPROTO);
        assert_int_equal(redis_say(&server, "DBSIZE", NULL)->integer, 1);
    }
    /* A value that no document is. */
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "SET", "{cm}:cfg:inbox:a@b.c", "junk", NULL);
    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_EPROTO);
    redis_say(&server, "SETRANGE", "{cm}:cfg:inbox:a@b.c", "90000000", "x",
              NULL);
    assert_int_equal(cm_commit_get(commits, CM_KIND_INBOX, "a@b.c", &doc, NULL),
                     CM_EPROTO);
}

static void
test_commit_redis_gone_says_so_and_recovers(void **state)
{
    struct cm_doc doc;
    (void)state;
    redis_server_freeze(&server);
    enum cm_status st = set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL);
    assert_true(st == CM_ETIMEOUT || st == CM_EIO);
    assert_int_equal(cm_commit_get(commits, CM_KIND_RULE, "r1", &doc, NULL),
                     CM_EIO);
    assert_true(cm_pool_retry_ms(pool) > 0);
    redis_server_thaw(&server);
    WAIT_UNTIL(set(CM_KIND_RULE, "r1", ON, CM_REV_ANY, NULL) == CM_OK, 3000);
}

/* --- redis-cli alone --- */

static void
expect_cli(const char *args, const char *expected)
{
    char *said = redis_cli(&server, args);
    if (strcmp(said, expected) != 0)
        fail_msg("%s\n  said     %s\n  expected %s", args, said, expected);
    free(said);
}

static void
test_library_by_redis_cli(void **state)
{
    (void)state;
    assert_int_equal(cm_commits_load_library(commits, NULL), CM_OK);
    assert_int_equal(cm_commits_load_library(commits, NULL), CM_OK);
    expect_cli("FCALL cm_set 0 inbox A@Example.com '" ON "'",
               "rev\n1\nseq\n1\nkey\ninbox:a@example.com");
    expect_cli("FCALL cm_get 0 inbox a@example.com",
               "{\"rev\":1,\"seq\":1,\"doc\":" ON "}");
    expect_cli("FCALL_RO cm_get 0 inbox a@example.com",
               "{\"rev\":1,\"seq\":1,\"doc\":" ON "}");
    expect_cli("FCALL cm_set 0 inbox a@example.com '" OFF "' 5",
               "CMCONFLICT inbox:a@example.com is at revision 1, wanted it at "
               "revision 5");
    expect_cli("FCALL cm_set 0 mailbox a@example.com '" OFF "'",
               "CMINVALID the kind must be inbox, rule, fault, trigger, "
               "effect or box");
    expect_cli("FCALL cm_set 0 inbox a@example.com",
               "CMINVALID the document is missing");
    expect_cli("FCALL cm_set 0 inbox a@example.com '{' x",
               "CMINVALID the document is not JSON: Expected object key "
               "string but found T_END at character 2");
    expect_cli("FCALL cm_set 0 inbox a@example.com '{}' x",
               "CMINVALID the revision must be *, 0 or a number");
    expect_cli("FCALL cm_set 0 rule r1 '" ON "' 0 tester",
               "rev\n1\nseq\n2\nkey\nrule:r1");
    expect_cli("FCALL cm_list 0 inbox", "a@example.com");
    expect_cli("FCALL cm_list 0 rule", "r1");
    expect_cli("FCALL cm_list 0 rule '' '' many",
               "CMINVALID the limit must be 1 to 10000");
    expect_cli("FCALL cm_del 0 inbox a@example.com",
               "rev\n1\nseq\n3\nkey\ninbox:a@example.com");
    expect_cli("FCALL cm_get 0 inbox a@example.com", "");
    expect_cli("FCALL cm_seq 0 | sed -n 3,4p", "seq\n3");
    expect_cli("XREVRANGE '{cm}:log' + - COUNT 2 | grep -A1 actor",
               "actor\ntester");
}

static void
test_script_by_redis_cli(void **state)
{
    char command[512];
    (void)state;
    snprintf(command, sizeof command,
             "SCRIPT LOAD \"$(tail -n +2 %s/milter/store/chaosmilter.lua)\"",
             getenv("srcdir") ? getenv("srcdir") : CM_SRCDIR);
    char *sha = redis_cli(&server, command);
    assert_int_equal(strlen(sha), 40);
    snprintf(command, sizeof command,
             "EVALSHA %s 0 set inbox a@example.com '" ON "'", sha);
    expect_cli(command, "rev\n1\nseq\n1\nkey\ninbox:a@example.com");
    snprintf(command, sizeof command, "EVALSHA %s 0 get inbox a@example.com",
             sha);
    expect_cli(command, "{\"rev\":1,\"seq\":1,\"doc\":" ON "}");
    snprintf(command, sizeof command, "EVALSHA %s 0 list inbox a", sha);
    expect_cli(command, "a@example.com");
    snprintf(command, sizeof command, "EVALSHA %s 0", sha);
    expect_cli(command, "CMINVALID the first argument must be set, del, get, "
                        "list, read, seq or batch");
    free(sha);
}

static void
test_library_of_another_prefix_is_left_alone(void **state)
{
    struct cm_commits *other = NULL;
    struct cm_err err = {CM_OK, ""};
    (void)state;
    assert_int_equal(cm_commits_load_library(commits, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&other, pool, "{x}", true, 1000, NULL),
                     CM_OK);
    assert_int_equal(cm_commits_load_library(other, &err), CM_ECONFLICT);
    assert_non_null(strstr(err.msg, "{x}"));
    expect_cli("FCALL cm_set 0 rule r1 '" ON "'",
               "rev\n1\nseq\n1\nkey\nrule:r1");
    cm_commits_free(&other);
}

/* --- least privilege --- */

/* Everything that commit.h offers, from nothing. */
static enum cm_status
use_all(struct cm_commits *admin, struct cm_err *err)
{
    struct cm_total total = {.name = "t", .value = 2};
    struct cm_doc doc = {.text = NULL};
    struct cm_listing listing = {.docs = NULL};
    const struct cm_change at = {.what = CM_CHANGE_AT, .kind = CM_KIND_FAULT};
    char **names = NULL, **hosts = NULL, *epoch = NULL;
    int64_t seq = 0;
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "FUNCTION", "FLUSH", NULL);
    redis_say(&server, "SCRIPT", "FLUSH", NULL);
    redis_say(&server, "HSET", "{cm}:st:hosts", "h", "{\"time_ms\":0}", NULL);
    enum cm_status st = cm_commits_load_library(admin, err);
    if (st == CM_OK)
        st = cm_commit_set(admin, CM_KIND_RULE, "r1", ON, strlen(ON),
                           CM_REV_NONE, NULL, err);
    if (st == CM_OK)
        st = cm_commit_set(admin, CM_KIND_RULE, "r1", ON, strlen(ON), 1, NULL,
                           err);
    if (st == CM_OK)
        st = cm_commit_get(admin, CM_KIND_RULE, "r1", &doc, err);
    if (st == CM_OK)
        st = cm_commit_list(admin, CM_KIND_RULE, "", "", 5, &names, NULL, err);
    if (st == CM_OK)
        st = cm_commit_del(admin, CM_KIND_RULE, "r1", 2, err);
    if (st == CM_OK)
        st = cm_commit_seq(admin, &epoch, &seq, err);
    if (st == CM_OK)
        st = cm_commit_add_totals(admin, &total, 1, err);
    if (st == CM_OK)
        st = cm_commit_totals(admin, &total, 1, err);
    if (st == CM_OK)
        st = cm_commit_hosts(admin, &hosts, err);
    if (st == CM_OK)
        st = cm_commit_forget_hosts(admin, 1, err);
    if (st == CM_OK)
        st = cm_commit_read(admin, CM_KIND_RULE, &listing, err);
    cm_listing_fini(&listing);
    if (st == CM_OK)
        st = cm_commit_batch(admin, &at, 1, NULL, NULL, err);
    cm_doc_fini(&doc);
    cm_names_free(&names);
    cm_names_free(&hosts);
    free(epoch);
    return st;
}

static void
test_acl_admin_is_enough_and_no_more(void **state)
{
    static const char *const rights[] = {
        "ping",   "eval",    "evalsha",  "function|list", "function|load",
        "type",   "get",     "mget",     "set",           "del",
        "incrby", "time",    "getrange", "zadd",          "zrem",
        "zscore", "xadd",    "hvals",    "zrangebylex",   "hgetall",
        "hmget",  "hincrby", "hdel",     "hget",          "hset"};
    struct cm_link_opts opts = redis_server_opts(&server);
    struct cm_commits *admin = NULL;
    struct cm_pool *own = NULL;
    struct cm_err err = {CM_OK, ""};
    char right[32];
    (void)state;
    redis_say(&server, "ACL", "SETUSER", "chaos-admin", "reset", "on", ">hush",
              "~{cm}:*", NULL);
    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++) {
        snprintf(right, sizeof right, "+%s", rights[i]);
        redis_say(&server, "ACL", "SETUSER", "chaos-admin", right, NULL);
    }
    opts.username = "chaos-admin";
    opts.password = "hush";
    opts.client_name = NULL;
    assert_int_equal(cm_pool_new(&own, &opts, 2, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&admin, own, "{cm}", true, 1000, NULL),
                     CM_OK);
    if (use_all(admin, &err) != CM_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 1; i < sizeof rights / sizeof *rights; i++) {
        snprintf(right, sizeof right, "-%s", rights[i]);
        redis_say(&server, "ACL", "SETUSER", "chaos-admin", right, NULL);
        if (use_all(admin, &err) == CM_OK)
            fail_msg("%s is not needed", rights[i]);
        right[0] = '+';
        redis_say(&server, "ACL", "SETUSER", "chaos-admin", right, NULL);
    }
    assert_int_equal(use_all(admin, &err), CM_OK);
    cm_commits_free(&admin);
    assert_int_equal(cm_commits_new(&admin, own, "{xx}", true, 1000, NULL),
                     CM_OK);
    assert_int_equal(cm_commit_set(admin, CM_KIND_RULE, "r1", ON, strlen(ON),
                                   CM_REV_NONE, NULL, &err),
                     CM_EPROTO);
    cm_commits_free(&admin);
    cm_pool_free(&own);
    redis_say(&server, "ACL", "DELUSER", "chaos-admin", NULL);
}

/* --- the fleet --- */

static void
test_totals_and_hosts(void **state)
{
    struct cm_total totals[] = {{"a.x", 3}, {"b", 4}};
    struct cm_total read[] = {{"b", -1}, {"never", -1}, {"a.x", -1}};
    char **json = NULL;
    (void)state;
    assert_int_equal(cm_commit_add_totals(commits, totals, 2, NULL), CM_OK);
    redis_say(&server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(cm_commit_add_totals(commits, totals, 2, NULL), CM_OK);
    assert_int_equal(cm_commit_totals(commits, read, 3, NULL), CM_OK);
    assert_int_equal(read[0].value, 8);
    assert_int_equal(read[1].value, 0);
    assert_int_equal(read[2].value, 6);

    redis_say(&server, "HSET", "{cm}:st:hosts", "h1", "{\"time_ms\":1000}",
              "h2", "{\"time_ms\":3000}", "h3", "junk", NULL);
    assert_int_equal(cm_commit_hosts(commits, &json, NULL), CM_OK);
    assert_non_null(json[2]);
    assert_null(json[3]);
    cm_names_free(&json);
    assert_int_equal(cm_commit_forget_hosts(commits, 2000, NULL), CM_OK);
    assert_int_equal(cm_commit_hosts(commits, &json, NULL), CM_OK);
    assert_string_equal(json[0], "{\"time_ms\":3000}");
    assert_null(json[1]);
    cm_names_free(&json);
}

/* --- the journal --- */

static struct cm_journal *
start_journal(size_t ring)
{
    struct cm_journal_opts opts = {.link = redis_server_opts(&server),
                                   .prefix = "{cm}",
                                   .host_id = "host-1",
                                   .stream_max = 10000,
                                   .ring = ring};
    struct cm_journal *journal = NULL;
    assert_int_equal(cm_journal_start(&journal, &opts, NULL), CM_OK);
    return journal;
}

static struct cm_incident
incident(enum cm_fault_kind kind)
{
    return (struct cm_incident){.time_ms = 1700000000000,
                                .kind = kind,
                                .outcome = CM_INCIDENT_APPLIED,
                                .stage = CM_STAGE_RCPT,
                                .inbox = "i@x",
                                .sender = "s@y",
                                .rule = "inbox:greylist",
                                .client = "192.0.2.1",
                                .queue_id = "",
                                .reply = "451 4.7.1 later",
                                .detail = "attempt 1/2",
                                .delay_asked_ms = -1,
                                .delay_measured_ms = 40,
                                .variant = "v",
                                .probability_ppb = 5,
                                .occurrence = 3,
                                .committed = CM_COMMITTED_NO,
                                .others = 2};
}

static int64_t
total(const char *name)
{
    struct cm_total one = {.name = name};
    assert_int_equal(cm_commit_totals(commits, &one, 1, NULL), CM_OK);
    return one.value;
}

static void
test_journal_event_holds_every_field(void **state)
{
    static const char *const expected[] = {"time",        "1700000000000",
                                           "host",        "host-1",
                                           "n",           "1",
                                           "kind",        "greylist",
                                           "outcome",     "applied",
                                           "stage",       "rcpt",
                                           "variant",     "v",
                                           "inbox",       "i@x",
                                           "sender",      "s@y",
                                           "rule",        "inbox:greylist",
                                           "client",      "192.0.2.1",
                                           "qid",         "",
                                           "reply",       "451 4.7.1 later",
                                           "detail",      "attempt 1/2",
                                           "probability", "5",
                                           "occurrence",  "3",
                                           "committed",   "no",
                                           "asked",       "-1",
                                           "measured",    "40",
                                           "others",      "2"};
    struct cm_journal *journal = start_journal(16);
    struct cm_incident one = incident(CM_FAULT_GREYLIST);
    (void)state;
    cm_journal_record(journal, &one);
    WAIT_UNTIL(redis_say(&server, "XLEN", "{cm}:ev", NULL)->integer == 1, 1000);
    const struct redisReply *entry =
        redis_say(&server, "XRANGE", "{cm}:ev", "-", "+", NULL)
            ->element[0]
            ->element[1];
    assert_int_equal(entry->elements, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < entry->elements; i++)
        assert_string_equal(entry->element[i]->str, expected[i]);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
}

static void
test_journal_totals_by_kind(void **state)
{
    struct cm_journal *journal = start_journal(64);
    (void)state;
    for (int kind = 0; kind < CM_FAULT_COUNT; kind++) {
        struct cm_incident one = incident((enum cm_fault_kind)kind);
        cm_journal_record(journal, &one);
        one.outcome = CM_INCIDENT_UNAVAILABLE;
        cm_journal_record(journal, &one);
        one.outcome = CM_INCIDENT_SHADOW;
        cm_journal_record(journal, &one);
    }
    cm_journal_count(journal, CM_COUNT_CONNECTIONS, 5);
    cm_journal_count(journal, CM_COUNT_MESSAGES, 6);
    cm_journal_count(journal, CM_COUNT_RECIPIENTS, 7);
    cm_journal_stop(journal); /* sends what is left */
    cm_journal_free(&journal);
    assert_int_equal(total("chaos.events_total"), CM_FAULT_COUNT);
    assert_int_equal(total("chaos.latency_injected_ms"), 40);
    assert_int_equal(total("chaos.errors_returned_total"), 1);
    assert_int_equal(total("chaos.connections_dropped_total"), 1);
    assert_int_equal(total("chaos.greylist_rejections_total"), 1);
    assert_int_equal(total("chaos.blackhole_total"), 1);
    assert_int_equal(total("connections.total"), 5);
    assert_int_equal(total("email.received_total"), 6);
    assert_int_equal(total("email.recipients_total"), 7);
    assert_int_equal(total("faults.drop.rcpt.applied"), 1);
    assert_int_equal(total("faults.drop.rcpt.unavailable"), 1);
    assert_int_equal(total("faults.drop.rcpt.shadow"), 1);
    assert_int_equal(total("faults.drop.message.applied"), 0);
    assert_int_equal(redis_say(&server, "XLEN", "{cm}:ev", NULL)->integer,
                     3 * CM_FAULT_COUNT);
}

static void
test_journal_outage_keeps_totals_and_bounds_events(void **state)
{
    struct cm_journal *journal = start_journal(100);
    struct cm_incident one = incident(CM_FAULT_ERROR);
    (void)state;
    cm_journal_record(journal, &one);
    WAIT_UNTIL(total("chaos.events_total") == 1, 1000);
    redis_server_freeze(&server);
    int64_t start = cm_clock_mono_us();
    for (int i = 0; i < 1000; i++)
        cm_journal_record(journal, &one);
    int64_t took = cm_clock_mono_us() - start;
    assert_true(took < 50000); /* the mail path does not wait */
    usleep(700000);            /* a command runs into its deadline */
    assert_int_equal(cm_journal_dropped(journal), 900);
    redis_server_thaw(&server);
    WAIT_UNTIL(cm_pool_retry_ms(pool) <= 1 &&
                   redis_try(&server, "PING", NULL) == CM_REDIS_OK,
               3000);
    WAIT_UNTIL(total("chaos.events_total") >= 1001, 5000);
    usleep(400000);
    /* Redis ran the frozen command when it woke up, and the same batch came
     * once more: counted once. */
    assert_int_equal(total("chaos.events_total"), 1001);
    assert_int_equal(total("chaos.errors_returned_total"), 1001);
    assert_true(redis_say(&server, "XLEN", "{cm}:ev", NULL)->integer >= 101);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
}

static void
test_journal_out_of_memory_keeps_all(void **state)
{
    struct cm_journal *journal = start_journal(100);
    struct cm_incident one = incident(CM_FAULT_BLACKHOLE);
    (void)state;
    redis_say(&server, "CONFIG", "SET", "maxmemory", "1", NULL);
    for (int i = 0; i < 10; i++)
        cm_journal_record(journal, &one);
    usleep(300000);
    assert_int_equal(redis_say(&server, "XLEN", "{cm}:ev", NULL)->integer, 0);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    WAIT_UNTIL(redis_say(&server, "XLEN", "{cm}:ev", NULL)->integer == 10,
               3000);
    assert_int_equal(total("chaos.blackhole_total"), 10);
    assert_int_equal(cm_journal_dropped(journal), 0);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
}

static void
test_journal_stop_is_prompt(void **state)
{
    struct cm_journal *journal = start_journal(100);
    struct cm_incident one = incident(CM_FAULT_BLACKHOLE);
    (void)state;
    redis_server_freeze(&server);
    cm_journal_record(journal, &one);
    usleep(20000);
    int64_t start = cm_clock_mono_ms();
    cm_journal_stop(journal);
    assert_true(cm_clock_mono_ms() - start < 260);
    cm_journal_record(journal, &one); /* not heard, not harmful */
    cm_journal_stop(journal);
    cm_journal_free(&journal);
    redis_server_thaw(&server);
    WAIT_UNTIL(redis_try(&server, "PING", NULL) == CM_REDIS_OK, 3000);
}

#define TEST(f) cmocka_unit_test_setup(f, flush)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_set_revisions_and_conflicts),
        TEST(test_set_bad_input_changes_nothing),
        TEST(test_set_hostile_text_is_quick),
        TEST(test_set_keeps_text_and_canonical_name),
        TEST(test_commits_case_sensitive_keeps_local_part),
        TEST(test_list_pages_through_all_names),
        TEST(test_commit_seq_and_epoch),
        TEST(test_rule_order_survives_changes),
        TEST(test_library_by_redis_cli),
        TEST(test_script_by_redis_cli),
        TEST(test_library_of_another_prefix_is_left_alone),
        TEST(test_acl_admin_is_enough_and_no_more),
        TEST(test_set_after_script_flush_works),
        TEST(test_set_out_of_memory_applies_nothing),
        TEST(test_set_on_replica_is_refused),
        TEST(test_set_over_wrong_types),
        TEST(test_commit_redis_gone_says_so_and_recovers),
        TEST(test_totals_and_hosts),
        TEST(test_journal_event_holds_every_field),
        TEST(test_journal_totals_by_kind),
        TEST(test_journal_out_of_memory_keeps_all),
        TEST(test_journal_outage_keeps_totals_and_bounds_events),
        TEST(test_journal_stop_is_prompt),
    };
    return cmocka_run_group_tests_name("store_commit", tests, start_server,
                                       end_server);
}
