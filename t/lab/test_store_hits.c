/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hits of each rule, from the journal to a real Redis and back: none lost when
 * Redis is away or there are more rules than can be told apart, and forgotten
 * with their rule.
 */
#include "milter/clock.h"
#include "milter/store/commit.h"
#include "milter/store/journal.h"
#include "milter/store/hits.h"
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

#define ON "{\"enabled\":true}"

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
    redis_server_end(&server);
    return 0;
}

static int
fresh(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    return 0;
}

static struct cm_journal *
start_journal(void)
{
    struct cm_journal *journal = NULL;
    struct cm_journal_opts opts = {.link = redis_server_opts(&server),
                                   .prefix = "{cm}",
                                   .host_id = "h1",
                                   .stream_max = 10,
                                   .ring = 16};
    assert_int_equal(cm_journal_start(&journal, &opts, NULL), CM_OK);
    return journal;
}

static void
record(struct cm_journal *journal, const char *rule,
       enum cm_incident_outcome outcome)
{
    struct cm_incident one = {.kind = CM_FAULT_ERROR, .outcome = outcome};
    snprintf(one.rule, sizeof one.rule, "%s", rule);
    cm_journal_record(journal, &one);
}

static int64_t
hits(const char *rule, int64_t *shadowed_r)
{
    int64_t n = -1, shadowed = -1;
    assert_int_equal(cm_commit_hits(commits, &rule, 1, &n, &shadowed, NULL),
                     CM_OK);
    if (shadowed_r)
        *shadowed_r = shadowed;
    return n;
}

static void
test_hits_are_counted_by_rule_and_forgotten_with_it(void **state)
{
    struct cm_journal *journal = start_journal();
    int64_t shadowed = 0;
    (void)state;
    assert_int_equal(cm_commit_set(commits, CM_KIND_RULE, "r1", ON, strlen(ON),
                                   CM_REV_ANY, NULL, NULL),
                     CM_OK);
    for (int i = 0; i < 5; i++)
        record(journal, "r1", CM_INCIDENT_APPLIED);
    for (int i = 0; i < 3; i++)
        record(journal, "r1", CM_INCIDENT_SHADOW);
    record(journal, "r1", CM_INCIDENT_UNAVAILABLE);
    record(journal, "r1", CM_INCIDENT_SHED);
    record(journal, "R1", CM_INCIDENT_APPLIED);
    record(journal, "inbox:greylist", CM_INCIDENT_APPLIED);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
    assert_int_equal(hits("r1", &shadowed), 5);
    assert_int_equal(shadowed, 3);
    assert_int_equal(hits("R1", NULL), 1);
    assert_int_equal(hits("inbox:greylist", NULL), 1);
    redis_say(&server, "SET", "{cm}:st:hits:r1", "5", NULL);
    assert_int_equal(
        cm_commit_del(commits, CM_KIND_RULE, "r1", CM_REV_ANY, NULL), CM_OK);
    assert_int_equal(hits("r1", &shadowed), 0);
    assert_int_equal(shadowed, 0);
    assert_int_equal(hits("R1", NULL), 1);
    assert_int_equal(
        redis_say(&server, "EXISTS", "{cm}:st:hits:r1", NULL)->integer, 0);
}

static void
test_hits_of_an_outage_arrive_once(void **state)
{
    struct cm_journal *journal = start_journal();
    (void)state;
    record(journal, "r1", CM_INCIDENT_APPLIED);
    WAIT_UNTIL(hits("r1", NULL) == 1, 2000);
    redis_server_freeze(&server);
    for (int i = 0; i < 1000; i++)
        record(journal, "r1", CM_INCIDENT_APPLIED);
    usleep(800000); /* a flush was sent, and had no answer in time */
    redis_server_thaw(&server);
    usleep(200000);
    WAIT_UNTIL(redis_try(&server, "PING", NULL) == CM_REDIS_OK, 3000);
    WAIT_UNTIL(cm_pool_retry_ms(pool) <= 1 && hits("r1", NULL) >= 1001, 8000);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
    assert_int_equal(hits("r1", NULL), 1001);
}

static void
test_hits_of_too_many_rules_are_counted_as_others(void **state)
{
    static struct cm_hits gathered;
    static struct cm_hit taken[CM_HITS_MAX];
    struct cm_incident one = {.kind = CM_FAULT_ERROR,
                              .outcome = CM_INCIDENT_APPLIED};
    int64_t sum = 0;
    (void)state;
    cm_hits_init(&gathered);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 3000; i++) {
            snprintf(one.rule, sizeof one.rule, "rule-%d", i);
            cm_hits_add(&gathered, &one);
        }
    size_t n = cm_hits_take(&gathered, taken);
    assert_int_equal(n, CM_HITS_MAX);
    for (size_t i = 0; i < n; i++)
        sum += taken[i].n;
    assert_int_equal(sum, 9000);
    assert_string_equal(taken[n - 1].name, "(others)");
    assert_int_equal(taken[n - 1].n, 9000 - 3 * (CM_HITS_MAX - 1));
    assert_int_equal(cm_hits_take(&gathered, taken), 0);
    cm_hits_fini(&gathered);
}

#define CASE(test) cmocka_unit_test_setup(test, fresh)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_hits_are_counted_by_rule_and_forgotten_with_it),
        CASE(test_hits_of_an_outage_arrive_once),
        CASE(test_hits_of_too_many_rules_are_counted_as_others),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
