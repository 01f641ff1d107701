/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults that depend on what was before, with a Redis that answers as told, or
 * does not.
 */
#include "t/unit/verdict_case.h"

#include <stdio.h>

static void
test_rcpt_greylist_asks_with_its_keys_and_refuses(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", GREYLIST);
    mock_store.greylist_refuses = true;
    mock_store.attempt = 1;
    mail_from(f, "<S@Example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a+tag@example.com>"),
                     SMFIS_TEMPFAIL);
    assert_string_equal(mock_smfi.code, "451");
    assert_string_equal(mock_smfi.enhanced, "4.7.1");
    assert_string_equal(mock_smfi.lines[0],
                        "Greylisting in operation, try again later");
    assert_string_equal(mock_store.asked_inbox, "a@example.com");
    assert_string_equal(mock_store.asked_sender, "s@example.net");
    assert_string_equal(mock_store.asked_client, "192.0.2.1");
    assert_string_equal(only_incident()->detail, "attempt 1/2, retry in 300s");
}

static void
test_rcpt_greylist_pass_goes_on_to_the_next_fault(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com",
                     "{\"enabled\":true,\"greylist\":{\"enabled\":true},"
                     "\"randomError\":{\"enabled\":true,\"errorRate\":1,"
                     "\"errorTypes\":[\"permanent\"]}}");
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_REJECT);
    assert_int_equal(mock_smfi.code[0], '5');
    assert_string_equal(only_incident()->rule, "inbox:randomError");
}

static void
test_rcpt_greylist_without_redis_lets_the_mail_through(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", GREYLIST);
    mock_store.greylist_refuses = true;
    mock_store.state_fails = true;
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_store.nincidents, 0);
    assert_int_equal(f->filter.counts[CM_FILTER_STATE_FAILED], 1);
}

static void
test_rule_for_the_message_takes_one_hit_and_one_shadow_record(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"stage\":\"message\",\"mode\":\"shadow\","
        "\"fault\":{\"kind\":\"error\"}}",
        "{\"stage\":\"message\",\"maxHits\":2,\"fault\":{\"kind\":\"error\"}}"};
    add_rules(rules, 2);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<c@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_TEMPFAIL);
    assert_int_equal(mock_store.asked, 1);
    assert_int_equal(mock_store.nincidents, 2);
    assert_int_equal(mock_store.incidents[0].outcome, CM_INCIDENT_SHADOW);
    assert_int_equal(mock_store.incidents[1].outcome, CM_INCIDENT_APPLIED);
}

static void
test_rule_that_cannot_be_done_uses_up_no_hit(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"maxHits\":1,\"fault\":{\"kind\":\"drop\"}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE);
    assert_int_equal(mock_store.asked, 0);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
}

static void
test_rule_in_shadow_is_recorded_and_does_not_hurt(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"mode\":\"shadow\",\"fault\":{\"kind\":\"error\"}}");
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_SHADOW);
}

static void
test_rule_with_seed_and_no_redis_has_no_coin(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"seed\":7,\"probability\":0.999999999,"
             "\"fault\":{\"kind\":\"error\"}}");
    mock_store.state_fails = true;
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(f->filter.counts[CM_FILTER_STATE_FAILED], 1);
    mock_store.state_fails = false;
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_TEMPFAIL);
}

static void
test_rule_with_max_hits_used_up_lets_pass(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"maxHits\":1,\"fault\":{\"kind\":\"error\"}}");
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_TEMPFAIL);
    mock_store.hit_allowed = false;
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
}

static void
test_throttle_asks_for_its_bucket_and_refuses_when_it_is_empty(void **state)
{
    static const struct {
        const char *per, *whose, *detail;
    } cases[] = {
        {"inbox", "a@example.com", "bucket of inbox a@example.com"},
        {"domain", "example.com", "bucket of domain example.com"},
        {"sender", "s@example.net", "bucket of sender s@example.net"},
        {"client", "192.0.2.1", "bucket of client 192.0.2.1"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char rule[128];
        snprintf(
            rule, sizeof rule,
            "{\"fault\":{\"kind\":\"throttle\",\"rate\":1,\"per\":\"%s\"}}",
            cases[i].per);
        cm_ruleset_release(&mock_store.rules);
        add_rule(rule);
        mock_store.nincidents = 0;
        mail_from(f, "<S@Example.net>");
        mock_store.throttle_empty = false;
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<A@example.com>"),
                         SMFIS_CONTINUE);
        assert_int_equal(mock_store.nincidents, 0);
        mock_store.throttle_empty = true;
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<A@example.com>"),
                         SMFIS_TEMPFAIL);
        assert_string_equal(mock_store.asked_rule, "r1");
        assert_string_equal(mock_store.asked_whose, cases[i].whose);
        assert_string_equal(mock_smfi.code, "450");
        assert_string_equal(mock_smfi.enhanced, "4.2.1");
        assert_int_equal(only_incident()->kind, CM_FAULT_THROTTLE);
        assert_string_equal(only_incident()->detail, cases[i].detail);
    }
}

static void
test_throttle_that_lets_pass_goes_on_to_the_next_rule(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"fault\":{\"kind\":\"throttle\",\"rate\":1}}",
        "{\"fault\":{\"kind\":\"error\",\"code\":550}}"};
    add_rules(rules, 2);
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_REJECT);
    assert_string_equal(only_incident()->rule, "r2");
}

static void
test_throttle_at_mail_and_at_the_end_of_the_message(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"stage\":\"mail\",\"fault\":"
        "{\"kind\":\"throttle\",\"rate\":1,\"per\":\"client\",\"code\":421}}",
        "{\"stage\":\"message\",\"fault\":"
        "{\"kind\":\"throttle\",\"rate\":1,\"per\":\"sender\"}}"};
    add_rules(rules, 2);
    mock_store.throttle_empty = true;
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_command(f->session, CTX, CM_STAGE_MAIL),
                     SMFIS_TEMPFAIL);
    assert_string_equal(mock_smfi.code, "421");
    mock_store.nincidents = 0;
    mock_store.asked = 0;
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_TEMPFAIL);
    assert_int_equal(mock_store.asked, 1); /* one token for the message */
    assert_int_equal(only_incident()->others, 1);
}

static void
test_throttle_of_who_is_not_known_lets_pass(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"fault\":{\"kind\":\"throttle\",\"rate\":1,"
             "\"per\":\"sender\"}}");
    mock_store.throttle_empty = true;
    mail_from(f, "<no address>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_store.asked, 0);
    mail_from(f, "<>"); /* the null sender is known */
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_TEMPFAIL);
    assert_string_equal(only_incident()->detail, "bucket of sender <>");
}

static void
test_throttle_in_shadow_is_recorded_only_when_empty(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"mode\":\"shadow\",\"fault\":{\"kind\":\"throttle\","
             "\"rate\":1}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(mock_store.nincidents, 0);
    mock_store.throttle_empty = true;
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_SHADOW);
}

static void
test_sequence_meets_one_step_after_the_other(void **state)
{
    static const struct {
        int verdict;
        const char *code, *detail;
    } steps[] = {{SMFIS_TEMPFAIL, "451", "step 1 of 3"},
                 {SMFIS_REJECT, "550", "step 2 of 3"},
                 {SMFIS_CONTINUE, "", ""},
                 {SMFIS_CONTINUE, "", ""}};
    struct fixture *f = *state;
    add_rule("{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 4.7.1 wait\","
             "{\"kind\":\"error\",\"code\":550},\"ok\"]}}");
    for (size_t i = 0; i < 4; i++) {
        mock_store.nincidents = 0;
        mock_smfi_reset();
        mail_from(f, "<s@example.net>");
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<A@example.com>"),
                         steps[i].verdict);
        assert_string_equal(mock_smfi.code, steps[i].code);
        if (steps[i].verdict == SMFIS_CONTINUE) {
            assert_int_equal(mock_store.nincidents, 0);
            continue;
        }
        assert_int_equal(only_incident()->kind, CM_FAULT_ERROR);
        assert_string_equal(only_incident()->rule, "r1");
        assert_string_equal(only_incident()->detail, steps[i].detail);
    }
    assert_string_equal(mock_store.asked_rule, "r1");
    assert_string_equal(mock_store.asked_client, "192.0.2.1");
    assert_string_equal(mock_store.asked_sender, "s@example.net");
    assert_string_equal(mock_store.asked_recipient, "a@example.com");
}

static void
test_sequence_at_message_drops_delays_and_blackholes(void **state)
{
    struct fixture *f = *state;
    f->filter.dropper = (struct cm_dropper *)&mock_dropper;
    f->session->tuple_known = true;
    add_rule("{\"stage\":\"message\",\"fault\":{\"kind\":\"sequence\","
             "\"steps\":[{\"kind\":\"drop\"},{\"kind\":\"latency\",\"ms\":1},"
             "{\"kind\":\"blackhole\"},\"421 4.3.2 bye\"]}}");
    static const struct {
        int verdict;
        enum cm_fault_kind kind;
    } steps[] = {{SMFIS_TEMPFAIL, CM_FAULT_DROP},
                 {SMFIS_CONTINUE, CM_FAULT_LATENCY},
                 {SMFIS_DISCARD, CM_FAULT_BLACKHOLE},
                 {SMFIS_TEMPFAIL, CM_FAULT_ERROR}};
    for (size_t i = 0; i < 4; i++) {
        mock_store.nincidents = 0;
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                         steps[i].verdict);
        assert_int_equal(only_incident()->outcome, CM_INCIDENT_APPLIED);
        assert_int_equal(only_incident()->kind, steps[i].kind);
    }
    assert_int_equal(mock_dropper.drops, 1);
}

static void
test_state_without_redis_hurts_nobody(void **state)
{
    static const char *const rules[] = {
        "{\"fault\":{\"kind\":\"throttle\",\"rate\":1}}",
        "{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451\"]}}",
        "{\"attempt\":{\"gte\":1},\"fault\":{\"kind\":\"error\"}}",
        "{\"maxHits\":1,\"fault\":{\"kind\":\"error\"}}"};
    struct fixture *f = *state;
    mock_store.throttle_empty = true;
    mock_store.state_fails = true;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        cm_ruleset_release(&mock_store.rules);
        add_rule(rules[i]);
        mail_from(f, "<s@example.net>");
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                         SMFIS_CONTINUE);
        assert_int_equal(mock_store.nincidents, 0);
        assert_int_equal(f->filter.counts[CM_FILTER_STATE_FAILED], i + 1);
    }
}

/* --- which attempt it is --- */

static void
test_attempt_is_counted_once_for_a_recipient_of_a_message(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"attempt\":{\"lte\":2},\"inbox\":\"a@example.com\","
        "\"fault\":{\"kind\":\"error\"}}",
        "{\"stage\":\"message\",\"attempt\":{\"lte\":4},"
        "\"inbox\":\"a@example.com\",\"fault\":{\"kind\":\"error\"}}"};
    add_rules(rules, 2);
    for (int n = 1; n <= 2; n++) {
        mail_from(f, "<S@example.net>");
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<A@example.com>"),
                         SMFIS_TEMPFAIL);
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                         SMFIS_TEMPFAIL);
        assert_int_equal(mock_store.asked, n);
    }
    assert_string_equal(mock_store.asked_client, "192.0.2.1");
    assert_string_equal(mock_store.asked_sender, "s@example.net");
    assert_string_equal(mock_store.asked_recipient, "a@example.com");
    for (int n = 3; n <= 5; n++) {
        mail_from(f, "<s@example.net>");
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<b@example.com>"),
                         SMFIS_CONTINUE);
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                         SMFIS_CONTINUE);
        assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                         n <= 4 ? SMFIS_TEMPFAIL : SMFIS_CONTINUE);
        assert_int_equal(mock_store.attempts_done, n <= 4 ? 0 : 1);
    }
    assert_int_equal(mock_store.attempts, 5);
}

static void
test_attempt_is_not_counted_where_no_rule_asks(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"attempt\":{\"lte\":2},\"inbox\":\"a@example.com\","
             "\"sender\":\"s@example.net\",\"fault\":{\"kind\":\"error\"}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    mail_from(f, "<t@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    mail_from(f, "<no address>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE);
    assert_int_equal(mock_store.asked, 0);
}

/* Every mail that the client was told is delivered begins anew, and no other.
 */
static void
test_attempt_ends_with_the_message_that_is_accepted(void **state)
{
    static const struct {
        const char *name, *rule;
        int verdict, done;
    } cases[] = {
        {"passes", "{\"kind\":\"quarantine\"}", SMFIS_CONTINUE, 1},
        {"blackholed", "{\"kind\":\"blackhole\"}", SMFIS_DISCARD, 1},
        {"late", "{\"kind\":\"latency\",\"ms\":1}", SMFIS_CONTINUE, 1},
        {"refused", "{\"kind\":\"error\",\"code\":550}", SMFIS_REJECT, 0},
        {"lost", "{\"kind\":\"drop\"}", SMFIS_TEMPFAIL, 0},
        {"acknowledgement lost", "{\"kind\":\"drop\",\"outcome\":\"ackLost\"}",
         SMFIS_CONTINUE, 0},
    };
    struct fixture *f = *state;
    f->filter.dropper = (struct cm_dropper *)&mock_dropper;
    f->session->tuple_known = true;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char rule[256];
        snprintf(rule, sizeof rule,
                 "{\"stage\":\"message\",\"attempt\":{\"gte\":1},\"fault\":%s}",
                 cases[i].rule);
        cm_ruleset_release(&mock_store.rules);
        add_rule(rule);
        mock_store.attempts_done = 0;
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        if (cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE) !=
                cases[i].verdict ||
            mock_store.attempts_done != cases[i].done)
            fail_msg("%s", cases[i].name);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rcpt_greylist_asks_with_its_keys_and_refuses),
        CASE(test_rcpt_greylist_pass_goes_on_to_the_next_fault),
        CASE(test_rcpt_greylist_without_redis_lets_the_mail_through),
        CASE(test_rule_for_the_message_takes_one_hit_and_one_shadow_record),
        CASE(test_rule_that_cannot_be_done_uses_up_no_hit),
        CASE(test_rule_in_shadow_is_recorded_and_does_not_hurt),
        CASE(test_rule_with_seed_and_no_redis_has_no_coin),
        CASE(test_rule_with_max_hits_used_up_lets_pass),
        CASE(test_throttle_asks_for_its_bucket_and_refuses_when_it_is_empty),
        CASE(test_throttle_that_lets_pass_goes_on_to_the_next_rule),
        CASE(test_throttle_at_mail_and_at_the_end_of_the_message),
        CASE(test_throttle_of_who_is_not_known_lets_pass),
        CASE(test_throttle_in_shadow_is_recorded_only_when_empty),
        CASE(test_sequence_meets_one_step_after_the_other),
        CASE(test_sequence_at_message_drops_delays_and_blackholes),
        CASE(test_state_without_redis_hurts_nobody),
        CASE(test_attempt_is_counted_once_for_a_recipient_of_a_message),
        CASE(test_attempt_is_not_counted_where_no_rule_asks),
        CASE(test_attempt_ends_with_the_message_that_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
