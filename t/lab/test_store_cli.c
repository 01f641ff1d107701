/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scripts from outside the daemons: by redis-cli alone, and with no more
 * rights than the admin daemon needs.
 */
#include "milter/store/batch.h"
#include "milter/store/listing.h"
#include "t/lab/commit_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- redis-cli alone --- */

static void
expect_cli(const char *args, const char *expected)
{
    char *said = redis_cli(&rig.server, args);
    if (strcmp(said, expected) != 0)
        fail_msg("%s\n  said     %s\n  expected %s", args, said, expected);
    free(said);
}

static void
test_library_by_redis_cli(void **state)
{
    (void)state;
    assert_int_equal(cm_commits_load_library(rig.commits, NULL), CM_OK);
    assert_int_equal(cm_commits_load_library(rig.commits, NULL), CM_OK);
    expect_cli("FCALL cm_set 0 inbox A@Example.com '" RIG_ON "'",
               "rev\n1\nseq\n1\nkey\ninbox:a@example.com");
    expect_cli("FCALL cm_get 0 inbox a@example.com",
               "{\"rev\":1,\"seq\":1,\"doc\":" RIG_ON "}");
    expect_cli("FCALL_RO cm_get 0 inbox a@example.com",
               "{\"rev\":1,\"seq\":1,\"doc\":" RIG_ON "}");
    expect_cli("FCALL cm_set 0 inbox a@example.com '" RIG_OFF "' 5",
               "CMCONFLICT inbox:a@example.com is at revision 1, wanted it at "
               "revision 5");
    expect_cli("FCALL cm_set 0 mailbox a@example.com '" RIG_OFF "'",
               "CMINVALID the kind must be inbox, rule, fault, trigger, "
               "effect or box");
    expect_cli("FCALL cm_set 0 inbox a@example.com",
               "CMINVALID the document is missing");
    expect_cli("FCALL cm_set 0 inbox a@example.com '{' x",
               "CMINVALID the document is not JSON: Expected object key "
               "string but found T_END at character 2");
    expect_cli("FCALL cm_set 0 inbox a@example.com '{}' x",
               "CMINVALID the revision must be *, 0 or a number");
    expect_cli("FCALL cm_set 0 rule r1 '" RIG_ON "' 0 tester",
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
    char *sha = redis_cli(&rig.server, command);
    assert_int_equal(strlen(sha), 40);
    snprintf(command, sizeof command,
             "EVALSHA %s 0 set inbox a@example.com '" RIG_ON "'", sha);
    expect_cli(command, "rev\n1\nseq\n1\nkey\ninbox:a@example.com");
    snprintf(command, sizeof command, "EVALSHA %s 0 get inbox a@example.com",
             sha);
    expect_cli(command, "{\"rev\":1,\"seq\":1,\"doc\":" RIG_ON "}");
    snprintf(command, sizeof command, "EVALSHA %s 0 list inbox a", sha);
    expect_cli(command, "a@example.com");
    snprintf(command, sizeof command, "EVALSHA %s 0", sha);
    expect_cli(command, "CMINVALID the first argument must be a function's "
                        "name, such as set");
    free(sha);
}

static void
test_library_of_another_prefix_is_left_alone(void **state)
{
    struct cm_commits *other = NULL;
    struct cm_err err = {CM_OK, ""};
    (void)state;
    assert_int_equal(cm_commits_load_library(rig.commits, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&other, rig.pool, "{x}", true, 1000, NULL),
                     CM_OK);
    assert_int_equal(cm_commits_load_library(other, &err), CM_ECONFLICT);
    assert_non_null(strstr(err.msg, "{x}"));
    expect_cli("FCALL cm_set 0 rule r1 '" RIG_ON "'",
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
    redis_say(&rig.server, "FLUSHALL", NULL);
    redis_say(&rig.server, "FUNCTION", "FLUSH", NULL);
    redis_say(&rig.server, "SCRIPT", "FLUSH", NULL);
    redis_say(&rig.server, "HSET", "{cm}:st:hosts", "h", "{\"time_ms\":0}",
              NULL);
    enum cm_status st = cm_commits_load_library(admin, err);
    if (st == CM_OK)
        st = cm_commit_set(admin, CM_KIND_RULE, "r1", RIG_ON, strlen(RIG_ON),
                           CM_REV_NONE, NULL, err);
    if (st == CM_OK)
        st = cm_commit_set(admin, CM_KIND_RULE, "r1", RIG_ON, strlen(RIG_ON), 1,
                           NULL, err);
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
    struct cm_link_opts opts = redis_server_opts(&rig.server);
    struct cm_commits *admin = NULL;
    struct cm_pool *own = NULL;
    struct cm_err err = {CM_OK, ""};
    char right[32];
    (void)state;
    redis_say(&rig.server, "ACL", "SETUSER", "chaos-admin", "reset", "on",
              ">hush", "~{cm}:*", NULL);
    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++) {
        snprintf(right, sizeof right, "+%s", rights[i]);
        redis_say(&rig.server, "ACL", "SETUSER", "chaos-admin", right, NULL);
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
        redis_say(&rig.server, "ACL", "SETUSER", "chaos-admin", right, NULL);
        if (use_all(admin, &err) == CM_OK)
            fail_msg("%s is not needed", rights[i]);
        right[0] = '+';
        redis_say(&rig.server, "ACL", "SETUSER", "chaos-admin", right, NULL);
    }
    assert_int_equal(use_all(admin, &err), CM_OK);
    cm_commits_free(&admin);
    assert_int_equal(cm_commits_new(&admin, own, "{xx}", true, 1000, NULL),
                     CM_OK);
    assert_int_equal(cm_commit_set(admin, CM_KIND_RULE, "r1", RIG_ON,
                                   strlen(RIG_ON), CM_REV_NONE, NULL, &err),
                     CM_EPROTO);
    cm_commits_free(&admin);
    cm_pool_free(&own);
    redis_say(&rig.server, "ACL", "DELUSER", "chaos-admin", NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_library_by_redis_cli),
        RIG_TEST(test_script_by_redis_cli),
        RIG_TEST(test_library_of_another_prefix_is_left_alone),
        RIG_TEST(test_acl_admin_is_enough_and_no_more),
    };
    return cmocka_run_group_tests_name("store_cli", tests, rig_start_server,
                                       rig_end_server);
}
