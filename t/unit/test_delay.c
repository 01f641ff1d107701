/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Latency from the rule to the record, on a milter connection whose replies are
 * really held. libmilter and the store are stand-ins; what a real MTA does with
 * a late reply is tried in t/lab.
 */
#include "milter/filter/delay.h"
#include "milter/filter/hold.h"
#include "milter/filter/verdict.h"
#include "milter/model/localstack_json.h"
#include "milter/model/protect.h"
#include "milter/model/rule_json.h"
#include "t/unit/milter_pair.h"
#include "t/unit/mock_smfi.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <jansson.h>
#include <libmilter/mfapi.h>
#include <string.h>
#include <unistd.h>

#define CTX         ((struct smfi_str *)&mock_smfi)
#define PROGRESS_MS 40
#define LATENCY(ms, stage)                                                     \
    "{\"enabled\":true,\"latency\":{\"enabled\":true,\"jitter\":false,"        \
    "\"maxDelayMs\":" ms ",\"stage\":\"" stage "\"}}"

struct fixture {
    struct cm_filter filter;
    struct cm_session *session;
    struct milter_pair pair;
};

static int
start_holding(void **state)
{
    struct cm_hold_opts opts = {.max_held = 10, .tick_ms = PROGRESS_MS};
    struct cm_err err;
    (void)state;
    return cm_hold_start(&opts, &err) == CM_OK ? 0 : -1;
}

static int
stop_holding(void **state)
{
    (void)state;
    cm_hold_stop();
    return 0;
}

static int
set_up(void **state)
{
    static struct fixture f;
    struct cm_protect *protect = NULL;
    memset(&f, 0, sizeof f);
    memset(&mock_smfi, 0, sizeof mock_smfi);
    mock_store_reset();
    if (cm_protect_new(&protect, NULL, 0, 0, NULL) != CM_OK)
        return -1;
    f.filter.armed = true;
    f.filter.recipient_delimiter = "+";
    cm_patience_init(&f.filter.patience, 10, 30);
    pthread_rwlock_init(&f.filter.protect_lock, NULL);
    cm_filter_protect(&f.filter, protect);
    milter_pair_open(&f.pair);
    f.session = cm_session_new(&f.filter, f.pair.milter);
    f.session->mta = CM_MTA_SENDMAIL;
    cm_session_begin(f.session);
    *state = &f;
    return 0;
}

static int
tear_down(void **state)
{
    struct fixture *f = *state;
    milter_pair_close(&f->pair);
    cm_session_free(&f->session);
    cm_protect_free(&f->filter.protect);
    pthread_rwlock_destroy(&f->filter.protect_lock);
    mock_store_reset();
    return 0;
}

/* One RCPT, up to the reply that libmilter writes. */
static void
rcpt(struct fixture *f, const char *typed)
{
    int fd = milter_pair_command(&f->pair);
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, typed), SMFIS_CONTINUE);
    milter_pair_reply(fd, "cont");
}

static void
message(struct fixture *f)
{
    int fd = milter_pair_command(&f->pair);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    milter_pair_reply(fd, "cont");
}

static const struct cm_incident *
wait_for_incident(size_t n)
{
    for (int i = 0; i < 5000 && atomic_load(&mock_store.nincidents) < n; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&mock_store.nincidents), n);
    return &mock_store.incidents[n - 1];
}

static void
add_rule(struct fixture *f, const char *text)
{
    struct cm_rule *rule = calloc(1, sizeof *rule);
    struct cm_problems problems;
    struct cm_err err;
    json_t *doc = NULL;
    assert_non_null(rule);
    cm_problems_init(&problems);
    assert_int_equal(cm_json_parse(&doc, text, strlen(text), &err), CM_OK);
    if (cm_rule_compile(rule, "r1", doc, 0, &problems) != CM_OK)
        fail_msg("%s: %s", text, cm_problems_first(&problems));
    json_decref(doc);
    assert_int_equal(cm_ruleset_new(&mock_store.rules, rule, 1), CM_OK);
    cm_session_begin(f->session);
}

static void
test_delay_within_the_servers_patience_is_done_and_measured(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", LATENCY("120", "rcpt"));
    rcpt(f, "<a@example.com>");
    assert_int_equal(cm_hold_count(), 1);
    /* Sendmail would take a progress packet for an error here. */
    assert_int_equal(milter_pair_expect_late(&f->pair, "cont", 5000), 0);
    const struct cm_incident *in = wait_for_incident(1);
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(in->delay_asked_ms, 120);
    assert_true(in->delay_measured_ms >= 120);
    assert_string_equal(in->detail, "");
}

static void
test_delay_beyond_the_servers_patience_is_unavailable_and_none(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", LATENCY("40000", "rcpt"));
    rcpt(f, "<a@example.com>");
    milter_pair_expect(&f->pair, "cont", 1000);
    const struct cm_incident *in = wait_for_incident(1);
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_int_equal(in->delay_asked_ms, 40000);
    assert_int_equal(in->delay_measured_ms, -1);
    assert_non_null(strstr(in->detail, "10 s"));
    assert_non_null(strstr(in->detail, "milter.sendmail_reply_timeout_s"));
    assert_int_equal(cm_hold_count(), 0);
}

static void
test_delay_of_unknown_server_is_bounded_as_sendmails(void **state)
{
    struct fixture *f = *state;
    f->session->mta = CM_MTA_UNKNOWN;
    mock_store_inbox("a@example.com", LATENCY("9001", "rcpt"));
    rcpt(f, "<a@example.com>");
    milter_pair_expect(&f->pair, "cont", 1000);
    assert_int_equal(wait_for_incident(1)->outcome, CM_INCIDENT_UNAVAILABLE);
}

static void
test_delay_after_the_message_has_a_bound_of_its_own(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", LATENCY("40000", "message"));
    mock_store_inbox("b@example.com", LATENCY("200", "message"));
    rcpt(f, "<a@example.com>");
    rcpt(f, "<b@example.com>");
    milter_pair_expect(&f->pair, "contcont", 1000);
    message(f);
    /* The one that cannot be had is told at once; the other is done, with
     * progress packets. */
    const struct cm_incident *in = wait_for_incident(1);
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(in->inbox, "a@example.com");
    assert_non_null(strstr(in->detail, "milter.sendmail_message_timeout_s"));
    assert_in_range(milter_pair_expect_late(&f->pair, "cont", 5000), 1, 4);
    in = wait_for_incident(2);
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_string_equal(in->inbox, "b@example.com");
    assert_in_range(in->delay_measured_ms, 200, 10000);
}

static void
test_delay_on_postfix_is_kept_alive_at_every_stage(void **state)
{
    struct fixture *f = *state;
    f->session->mta = CM_MTA_POSTFIX;
    mock_store_inbox("a@example.com", LATENCY("200", "rcpt"));
    rcpt(f, "<a@example.com>");
    assert_in_range(milter_pair_expect_late(&f->pair, "cont", 5000), 1, 4);
    wait_for_incident(1);
}

static void
test_delay_just_over_a_limit_is_held_as_long(void **state)
{
    struct fixture *f = *state;
    f->session->mta = CM_MTA_POSTFIX;
    add_rule(f, "{\"fault\":{\"kind\":\"latency\",\"limit\":\"justOver\","
                "\"of\":\"rcpt\"}}");
    rcpt(f, "<a@example.com>");
    assert_int_equal(cm_hold_count(), 1);
    close(f->pair.milter);
    f->pair.milter = -1;
    const struct cm_incident *in = wait_for_incident(1);
    assert_int_equal(in->delay_asked_ms, 301000);
    assert_in_range(in->delay_measured_ms, 0, 10000);
    assert_string_equal(in->detail,
                        "the session ended before the reply was due");
}

static void
test_delay_that_cannot_be_done_uses_up_no_hit(void **state)
{
    struct fixture *f = *state;
    add_rule(f, "{\"maxHits\":1,\"fault\":{\"kind\":\"latency\",\"ms\":9001}}");
    rcpt(f, "<a@example.com>");
    milter_pair_expect(&f->pair, "cont", 1000);
    assert_int_equal(wait_for_incident(1)->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_int_equal(mock_store.asked, 0);
}

/* --- effects --- */

/* One effect, and before it an error for everybody when error is set. */
static void
set_effect(struct fixture *f, const char *text, bool error)
{
    struct cm_rule *rules = calloc(2, sizeof *rules);
    struct cm_problems problems;
    size_t n = 0;
    assert_non_null(rules);
    cm_problems_init(&problems);
    if (error) {
        json_t *doc = json_loads("{\"fault\":{\"kind\":\"error\"}}", 0, NULL);
        assert_int_equal(cm_rule_compile(&rules[n++], "r1", doc, 0, &problems),
                         CM_OK);
        json_decref(doc);
    }
    json_t *doc = json_loads(text, 0, NULL);
    if (cm_localstack_effect(&rules[n++], doc, &problems) != CM_OK)
        fail_msg("%s: %s", text, cm_problems_first(&problems));
    json_decref(doc);
    assert_int_equal(cm_ruleset_new(&mock_store.rules, rules, n), CM_OK);
    cm_session_begin(f->session);
}

static void
test_effect_delays_every_message_once(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":150}", false);
    rcpt(f, "<a@example.com>");
    rcpt(f, "<b@example.com>");
    milter_pair_expect(&f->pair, "contcont", 1000);
    message(f);
    assert_in_range(milter_pair_expect_late(&f->pair, "cont", 5000), 1, 4);
    const struct cm_incident *in = wait_for_incident(1);
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_string_equal(in->rule, "effect:latency");
    assert_int_equal(in->delay_asked_ms, 150);
    assert_in_range(in->delay_measured_ms, 150, 10000);
    assert_string_equal(in->inbox, "");
    assert_int_equal(in->others, 2);
}

static void
test_effect_adds_to_an_inboxs_latency(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":150}", false);
    mock_store_inbox("a@example.com", LATENCY("200", "message"));
    mock_store_inbox("b@example.com", LATENCY("120", "message"));
    rcpt(f, "<a@example.com>");
    rcpt(f, "<b@example.com>");
    milter_pair_expect(&f->pair, "contcont", 1000);
    message(f);
    milter_pair_expect_late(&f->pair, "cont", 5000);
    (void)wait_for_incident(3);
    const struct cm_incident *in = mock_store.incidents;
    assert_string_equal(in[0].rule, "inbox:latency");
    assert_string_equal(in[1].rule, "inbox:latency");
    assert_string_equal(in[2].rule, "effect:latency");
    assert_int_equal(in[2].delay_asked_ms, 150);
    assert_int_equal(in[2].delay_measured_ms, 150);
    assert_in_range(in[0].delay_measured_ms, 200, 10000);
    assert_int_equal(in[0].delay_measured_ms, in[1].delay_measured_ms);
}

static void
test_effect_is_not_on_top_of_a_refusal(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":150,\"stage\":\"rcpt\"}", true);
    int fd = milter_pair_command(&f->pair);
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_TEMPFAIL);
    milter_pair_reply(fd, "cont");
    milter_pair_expect(&f->pair, "cont", 1000);
    assert_int_equal(cm_hold_count(), 0);
    assert_int_equal(wait_for_incident(1)->kind, CM_FAULT_ERROR);
}

static void
test_effect_at_rcpt_delays_each_of_them(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":60,\"stage\":\"rcpt\"}", false);
    mock_store_inbox("b@example.com", LATENCY("100", "rcpt"));
    rcpt(f, "<a@example.com>");
    assert_int_equal(milter_pair_expect_late(&f->pair, "cont", 5000), 0);
    const struct cm_incident *in = wait_for_incident(1);
    assert_string_equal(in->inbox, "a@example.com");
    assert_in_range(in->delay_measured_ms, 60, 10000);
    rcpt(f, "<b@example.com>");
    milter_pair_expect_late(&f->pair, "cont", 5000);
    in = wait_for_incident(3);
    assert_string_equal(in->rule, "effect:latency");
    assert_int_equal(in->delay_measured_ms, 60);
    /* A protected recipient, and one with no valid address, are spared. */
    rcpt(f, "<postmaster@example.com>");
    rcpt(f, "<a@@example.com>");
    milter_pair_expect(&f->pair, "contcont", 1000);
    assert_int_equal(atomic_load(&mock_store.nincidents), 3);
}

/* Whether the rules at a greeting were asked by the hook is nothing to it. */
static void
test_effect_delays_a_greeting_that_was_judged(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":60,\"stage\":\"helo\"}", false);
    int fd = milter_pair_command(&f->pair);
    assert_int_equal(cm_verdict_judged(f->session, CTX, CM_STAGE_HELO),
                     SMFIS_CONTINUE);
    milter_pair_reply(fd, "cont");
    milter_pair_expect_late(&f->pair, "cont", 5000);
    const struct cm_incident *in = wait_for_incident(1);
    assert_string_equal(in->rule, "effect:latency");
    assert_int_equal(in->stage, CM_STAGE_HELO);
    assert_in_range(in->delay_measured_ms, 60, 10000);
}

static void
test_effect_spares_the_message_of_a_protected_recipient(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":150}", false);
    rcpt(f, "<a@example.com>");
    rcpt(f, "<postmaster@example.com>");
    message(f);
    milter_pair_expect(&f->pair, "contcontcont", 1000);
    const struct cm_incident *in = wait_for_incident(1);
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_non_null(strstr(in->detail, "protected"));
}

/* Each is within the server's 9 s, but not both. */
static void
test_effect_beyond_the_servers_patience_leaves_the_rest(void **state)
{
    struct fixture *f = *state;
    set_effect(f, "{\"latency\":9000,\"stage\":\"rcpt\"}", false);
    mock_store_inbox("a@example.com", LATENCY("90", "rcpt"));
    rcpt(f, "<a@example.com>");
    const struct cm_incident *in = wait_for_incident(1);
    assert_string_equal(in->rule, "effect:latency");
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_int_equal(in->delay_asked_ms, 9000);
    milter_pair_expect_late(&f->pair, "cont", 5000);
    in = wait_for_incident(2);
    assert_string_equal(in->rule, "inbox:latency");
    assert_in_range(in->delay_measured_ms, 90, 8000);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(test_delay_within_the_servers_patience_is_done_and_measured),
        CASE(test_delay_beyond_the_servers_patience_is_unavailable_and_none),
        CASE(test_delay_of_unknown_server_is_bounded_as_sendmails),
        CASE(test_delay_after_the_message_has_a_bound_of_its_own),
        CASE(test_delay_on_postfix_is_kept_alive_at_every_stage),
        CASE(test_delay_just_over_a_limit_is_held_as_long),
        CASE(test_delay_that_cannot_be_done_uses_up_no_hit),
        CASE(test_effect_delays_every_message_once),
        CASE(test_effect_adds_to_an_inboxs_latency),
        CASE(test_effect_is_not_on_top_of_a_refusal),
        CASE(test_effect_at_rcpt_delays_each_of_them),
        CASE(test_effect_delays_a_greeting_that_was_judged),
        CASE(test_effect_spares_the_message_of_a_protected_recipient),
        CASE(test_effect_beyond_the_servers_patience_leaves_the_rest),
    };
    return cmocka_run_group_tests(tests, start_holding, stop_holding);
}
