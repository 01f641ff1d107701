/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit in a real Redis: every change has its line, with the document
 * before and after, and what did not happen has none.
 */
#include "milter/clock.h"
#include "milter/store/audit.h"
#include "milter/store/batch.h"
#include "milter/store/commit.h"
#include "milter/store/halt.h"
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
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&commits, pool, "{cm}", true, 5000, NULL),
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
fresh(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    return 0;
}

static void
set(enum cm_kind kind, const char *name, const char *doc)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_set(commits, kind, name, doc, strlen(doc), CM_REV_ANY, NULL,
                      &err) != CM_OK)
        fail_msg("%s: %s", name, err.msg);
}

static struct cm_audit
read_audit(enum cm_audit_of of, const char *from, const char *key, int limit)
{
    struct cm_audit audit;
    struct cm_err err = {CM_OK, ""};
    if (cm_audit_read(commits, of, from, key, limit, &audit, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return audit;
}

/* field is what the entry says, "-" when it says nothing. */
static void
expect(const struct cm_audit *audit, size_t i, const char *name,
       const char *text)
{
    assert_true(i < audit->n);
    const char *said = cm_audit_field(&audit->entries[i], name);
    assert_string_equal(said ? said : "-", text);
}

static void
test_audit_tells_before_and_after_and_who(void **state)
{
    (void)state;
    struct cm_commits *ann = cm_commits_as(commits, "ann");
    assert_non_null(ann);
    int64_t began_ms = cm_clock_wall_ms();
    set(CM_KIND_RULE, "r1", ON);
    assert_int_equal(
        cm_commit_set(ann, CM_KIND_RULE, "r1", OFF, strlen(OFF), 1, NULL, NULL),
        CM_OK);
    assert_int_equal(cm_commit_del(ann, CM_KIND_RULE, "r1", 2, NULL), CM_OK);
    cm_commits_free(&ann);
    struct cm_audit audit = read_audit(CM_AUDIT_FLEET, "", NULL, 10);
    assert_int_equal(audit.n, 3);
    assert_string_equal(audit.next, "");
    expect(&audit, 0, "op", "del");
    expect(&audit, 0, "actor", "ann");
    expect(&audit, 0, "before", OFF);
    expect(&audit, 0, "after", "-");
    expect(&audit, 1, "op", "set");
    expect(&audit, 1, "key", "rule:r1");
    expect(&audit, 1, "rev", "2");
    expect(&audit, 1, "seq", "2");
    expect(&audit, 1, "before", ON);
    expect(&audit, 1, "after", OFF);
    expect(&audit, 2, "actor", "chaosadmin");
    expect(&audit, 2, "before", "-");
    expect(&audit, 2, "after", ON);
    int64_t at_ms = atoll(cm_audit_field(&audit.entries[0], "at"));
    assert_true(at_ms >= began_ms && at_ms <= cm_clock_wall_ms());
    cm_audit_fini(&audit);
}

static void
test_audit_of_what_was_refused_is_none(void **state)
{
    (void)state;
    set(CM_KIND_RULE, "r1", ON);
    assert_int_equal(
        cm_commit_set(commits, CM_KIND_RULE, "r1", OFF, 17, 7, NULL, NULL),
        CM_ECONFLICT);
    assert_int_equal(
        cm_commit_del(commits, CM_KIND_RULE, "r2", CM_REV_ANY, NULL),
        CM_NOTFOUND);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "1", NULL);
    assert_int_not_equal(cm_commit_set(commits, CM_KIND_RULE, "r1", OFF, 17,
                                       CM_REV_ANY, NULL, NULL),
                         CM_OK);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    redis_say(&server, "RENAME", "{cm}:audit", "aside", NULL);
    redis_say(&server, "SET", "{cm}:audit", "no stream", NULL);
    assert_int_not_equal(cm_commit_set(commits, CM_KIND_RULE, "r1", OFF, 17,
                                       CM_REV_ANY, NULL, NULL),
                         CM_OK);
    redis_say(&server, "RENAME", "aside", "{cm}:audit", NULL);
    struct cm_audit audit = read_audit(CM_AUDIT_FLEET, "", NULL, 10);
    assert_int_equal(audit.n, 1);
    cm_audit_fini(&audit);
    struct cm_doc doc;
    assert_int_equal(cm_commit_get(commits, CM_KIND_RULE, "r1", &doc, NULL),
                     CM_OK);
    assert_string_equal(doc.text, ON);
    cm_doc_fini(&doc);
}

static void
test_audit_of_inboxes_is_apart_and_bounded(void **state)
{
    static struct cm_change changes[1000];
    static char names[1000][32];
    struct cm_err err = {CM_OK, ""};
    (void)state;
    set(CM_KIND_RULE, "r1", ON);
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < 1000; i++) {
            snprintf(names[i], sizeof names[i], "b%zu@x.example", i);
            changes[i] = (struct cm_change){.what = CM_CHANGE_SET,
                                            .kind = CM_KIND_INBOX,
                                            .name = names[i],
                                            .doc = ON,
                                            .len = strlen(ON),
                                            .rev = CM_REV_ANY,
                                            .place = CM_PLACE_USUAL};
        }
        if (cm_commit_batch(commits, changes, 1000, NULL, NULL, &err) != CM_OK)
            fail_msg("%s", err.msg);
    }
    struct cm_audit audit = read_audit(CM_AUDIT_FLEET, "", NULL, 10);
    assert_int_equal(audit.n, 1);
    cm_audit_fini(&audit);
    long long kept =
        redis_say(&server, "XLEN", "{cm}:audit:inbox", NULL)->integer;
    assert_true(kept >= 30000 && kept < 31000);
    audit = read_audit(CM_AUDIT_INBOXES, "", "inbox:b7@x.example", 3);
    assert_int_equal(audit.n, 3);
    expect(&audit, 0, "rev", "40");
    expect(&audit, 2, "rev", "38");
    assert_true(*audit.next);
    cm_audit_fini(&audit);
}

static void
test_audit_pages_back_through_all(void **state)
{
    char name[24], from[48] = "";
    size_t seen = 0;
    (void)state;
    for (int i = 0; i < 250; i++) {
        snprintf(name, sizeof name, "r%03d", i);
        set(CM_KIND_RULE, name, ON);
    }
    do {
        struct cm_audit audit = read_audit(CM_AUDIT_FLEET, from, NULL, 60);
        for (size_t i = 0; i < audit.n; i++) {
            snprintf(name, sizeof name, "rule:r%03d", 249 - (int)seen++);
            expect(&audit, i, "key", name);
        }
        snprintf(from, sizeof from, "%s", audit.next);
        cm_audit_fini(&audit);
    } while (*from);
    assert_int_equal(seen, 250);
    struct cm_audit audit;
    assert_int_equal(cm_audit_read(commits, CM_AUDIT_FLEET, "yesterday", NULL,
                                   1, &audit, NULL),
                     CM_EINVAL);
    cm_audit_fini(&audit);
}

static void
test_audit_of_large_documents_keeps_their_size(void **state)
{
    static char doc[9000];
    (void)state;
    memset(doc, 'x', sizeof doc - 1);
    memcpy(doc, "{\"a\":\"", 6);
    memcpy(doc + sizeof doc - 3, "\"}", 2);
    set(CM_KIND_RULE, "r1", doc);
    set(CM_KIND_RULE, "r1", ON);
    struct cm_audit audit = read_audit(CM_AUDIT_FLEET, "", "rule:r1", 10);
    assert_int_equal(audit.n, 2);
    expect(&audit, 0, "before", "-");
    expect(&audit, 0, "before_bytes", "8999");
    expect(&audit, 0, "after", ON);
    expect(&audit, 1, "after_bytes", "8999");
    cm_audit_fini(&audit);
}

static void
test_audit_of_a_move_and_of_a_halt(void **state)
{
    struct cm_halt halt;
    struct cm_doc doc;
    struct cm_change move = {.what = CM_CHANGE_MOVE,
                             .kind = CM_KIND_RULE,
                             .name = "r2",
                             .rev = 1,
                             .place = 1};
    (void)state;
    set(CM_KIND_RULE, "r1", ON);
    set(CM_KIND_RULE, "r2", OFF);
    assert_int_equal(cm_commit_batch(commits, &move, 1, NULL, NULL, NULL),
                     CM_OK);
    assert_int_equal(cm_commit_get(commits, CM_KIND_RULE, "r2", &doc, NULL),
                     CM_OK);
    assert_int_equal(doc.rev, 1);
    assert_int_equal(doc.seq, 3);
    assert_int_equal(doc.ord, 1);
    assert_string_equal(doc.text, OFF);
    cm_doc_fini(&doc);
    move.name = "r9";
    assert_int_equal(cm_commit_batch(commits, &move, 1, NULL, NULL, NULL),
                     CM_ECONFLICT);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cm_commit_halt(commits, "why", &halt, NULL), CM_OK);
        assert_int_equal(cm_commit_resume(commits, &halt, NULL), CM_OK);
    }
    struct cm_audit audit = read_audit(CM_AUDIT_FLEET, "", NULL, 10);
    assert_int_equal(audit.n, 7);
    expect(&audit, 0, "op", "resume");
    expect(&audit, 1, "op", "halt");
    expect(&audit, 1, "key", "halt");
    expect(&audit, 1, "reason", "why");
    expect(&audit, 4, "op", "move");
    expect(&audit, 4, "key", "rule:r2");
    expect(&audit, 4, "place", "1");
    expect(&audit, 4, "place_before", "2");
    cm_audit_fini(&audit);
}

/* Where somebody gave a place by hand, the end is beyond it. */
static void
test_place_of_a_new_rule_is_the_end(void **state)
{
    struct cm_doc last, given;
    struct cm_change placed = {.what = CM_CHANGE_SET,
                               .kind = CM_KIND_RULE,
                               .name = "given",
                               .doc = ON,
                               .len = strlen(ON),
                               .rev = CM_REV_ANY,
                               .place = 5000};
    (void)state;
    set(CM_KIND_RULE, "first", ON);
    assert_int_equal(cm_commit_batch(commits, &placed, 1, NULL, NULL, NULL),
                     CM_OK);
    set(CM_KIND_RULE, "last", ON);
    assert_int_equal(
        cm_commit_get(commits, CM_KIND_RULE, "given", &given, NULL), CM_OK);
    assert_int_equal(cm_commit_get(commits, CM_KIND_RULE, "last", &last, NULL),
                     CM_OK);
    assert_int_equal(given.ord, 5000);
    assert_true(last.ord > 5000);
    cm_doc_fini(&given);
    cm_doc_fini(&last);
}

#define CASE(test) cmocka_unit_test_setup(test, fresh)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_audit_tells_before_and_after_and_who),
        CASE(test_audit_of_what_was_refused_is_none),
        CASE(test_audit_of_inboxes_is_apart_and_bounded),
        CASE(test_audit_pages_back_through_all),
        CASE(test_audit_of_large_documents_keeps_their_size),
        CASE(test_audit_of_a_move_and_of_a_halt),
        CASE(test_place_of_a_new_rule_is_the_end),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
