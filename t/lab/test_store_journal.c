/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What happened, on its way to a real Redis: every event whole, every total
 * counted once, and nobody kept waiting.
 */
#include "milter/clock.h"
#include "milter/store/journal.h"
#include "milter/store/redis.h"
#include "t/lab/commit_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

static struct cm_journal *
start_journal(size_t ring)
{
    struct cm_journal_opts opts = {.link = redis_server_opts(&rig.server),
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
    assert_int_equal(cm_commit_totals(rig.commits, &one, 1, NULL), CM_OK);
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
    WAIT_UNTIL(redis_say(&rig.server, "XLEN", "{cm}:ev", NULL)->integer == 1,
               1000);
    const struct redisReply *entry =
        redis_say(&rig.server, "XRANGE", "{cm}:ev", "-", "+", NULL)
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
    assert_int_equal(redis_say(&rig.server, "XLEN", "{cm}:ev", NULL)->integer,
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
    redis_server_freeze(&rig.server);
    int64_t start = cm_clock_mono_us();
    for (int i = 0; i < 1000; i++)
        cm_journal_record(journal, &one);
    int64_t took = cm_clock_mono_us() - start;
    assert_true(took < 50000); /* the mail path does not wait */
    usleep(700000);            /* a command runs into its deadline */
    assert_int_equal(cm_journal_dropped(journal), 900);
    redis_server_thaw(&rig.server);
    WAIT_UNTIL(cm_pool_retry_ms(rig.pool) <= 1 &&
                   redis_try(&rig.server, "PING", NULL) == CM_REDIS_OK,
               3000);
    WAIT_UNTIL(total("chaos.events_total") >= 1001, 5000);
    usleep(400000);
    /* Redis ran the frozen command when it woke up, and the same batch came
     * once more: counted once. */
    assert_int_equal(total("chaos.events_total"), 1001);
    assert_int_equal(total("chaos.errors_returned_total"), 1001);
    assert_true(redis_say(&rig.server, "XLEN", "{cm}:ev", NULL)->integer >=
                101);
    cm_journal_stop(journal);
    cm_journal_free(&journal);
}

static void
test_journal_out_of_memory_keeps_all(void **state)
{
    struct cm_journal *journal = start_journal(100);
    struct cm_incident one = incident(CM_FAULT_BLACKHOLE);
    (void)state;
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "1", NULL);
    for (int i = 0; i < 10; i++)
        cm_journal_record(journal, &one);
    usleep(300000);
    assert_int_equal(redis_say(&rig.server, "XLEN", "{cm}:ev", NULL)->integer,
                     0);
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "0", NULL);
    WAIT_UNTIL(redis_say(&rig.server, "XLEN", "{cm}:ev", NULL)->integer == 10,
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
    redis_server_freeze(&rig.server);
    cm_journal_record(journal, &one);
    usleep(20000);
    int64_t start = cm_clock_mono_ms();
    cm_journal_stop(journal);
    assert_true(cm_clock_mono_ms() - start < 260);
    cm_journal_record(journal, &one); /* not heard, not harmful */
    cm_journal_stop(journal);
    cm_journal_free(&journal);
    redis_server_thaw(&rig.server);
    WAIT_UNTIL(redis_try(&rig.server, "PING", NULL) == CM_REDIS_OK, 3000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_journal_event_holds_every_field),
        RIG_TEST(test_journal_totals_by_kind),
        RIG_TEST(test_journal_out_of_memory_keeps_all),
        RIG_TEST(test_journal_outage_keeps_totals_and_bounds_events),
        RIG_TEST(test_journal_stop_is_prompt),
    };
    return cmocka_run_group_tests_name("store_journal", tests, rig_start_server,
                                       rig_end_server);
}
