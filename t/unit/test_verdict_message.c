/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the MTA is told at DATA and at the end of a message. A delay shows as
 * "unable to hold" here, so latency is tried in test_hold and against real
 * MTAs.
 */
#include "t/unit/verdict_case.h"
#include "milter/model/reply.h"

#include <stdio.h>
#include <string.h>

static void
test_message_blackhole_deletes_that_recipient_as_typed(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", BLACKHOLE);
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<A@Example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<b@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<@r,@q:a@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_DATA),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_store.nincidents, 0);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 2);
    assert_string_equal(mock_smfi.deleted[0], "<A@Example.com>");
    assert_string_equal(mock_smfi.deleted[1], "<a@example.com>");
    assert_int_equal(mock_store.nincidents, 2);
}

static void
test_message_blackhole_of_all_recipients_discards(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", BLACKHOLE);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_DISCARD);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_APPLIED);
}

static void
test_message_blackhole_that_cannot_delete_delivers_and_says_so(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", BLACKHOLE);
    mock_smfi.refuse_delete = true;
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 0);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
}

/* The first fault was done, and this other one, which lost to it, was not. */
static void
assert_forgone(size_t first, size_t lost, enum cm_fault_kind kind,
               const char *inbox)
{
    const struct cm_incident *in = mock_store.incidents;
    assert_int_equal(mock_store.nincidents, lost + 1);
    assert_int_equal(in[first].outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(in[lost].outcome, CM_INCIDENT_UNAVAILABLE);
    assert_int_equal(in[lost].kind, kind);
    assert_string_equal(in[lost].inbox, inbox);
    assert_string_equal(in[lost].detail, "another fault came before it");
}

static void
test_message_error_names_how_many_others_it_touched(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", ALWAYS_ERROR_AT("message"));
    mock_store_inbox("b@example.com", BLACKHOLE);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<c@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_TEMPFAIL);
    /* The message was refused: no recipient was blackholed, none is claimed. */
    assert_int_equal(mock_smfi.ndeleted, 0);
    assert_forgone(0, 1, CM_FAULT_BLACKHOLE, "b@example.com");
    assert_int_equal(mock_store.incidents[0].others, 2);
    assert_int_equal(mock_store.incidents[0].stage, CM_STAGE_MESSAGE);
}

static void
test_message_error_that_lost_to_another_is_not_replaced_silently(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"stage\":\"message\",\"inbox\":\"*@a.example\",\"fault\":"
        "{\"kind\":\"error\",\"code\":451}}",
        "{\"stage\":\"message\",\"inbox\":\"*@b.example\",\"fault\":"
        "{\"kind\":\"error\",\"code\":550}}"};
    add_rules(rules, 2);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<1@a.example>");
    cm_verdict_rcpt(f->session, CTX, "<2@a.example>");
    cm_verdict_rcpt(f->session, CTX, "<3@b.example>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_TEMPFAIL);
    assert_forgone(0, 1, CM_FAULT_ERROR, "3@b.example");
    assert_string_equal(mock_store.incidents[1].rule, "r2");
    assert_int_equal(mock_store.incidents[0].others, 2);
}

static void
test_message_drop_is_recorded_as_unavailable_not_faked(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", DROP);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(mock_store.nincidents, 0);
    int verdict = cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE);
    assert_int_equal(verdict, SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.nlines, 0);
    assert_int_equal(only_incident()->kind, CM_FAULT_DROP);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
}

/* A filter that can cut, and a session whose client it knows. */
static void
give_dropper(struct fixture *f)
{
    f->filter.dropper = (struct cm_dropper *)&mock_dropper;
    f->session->tuple_known = true;
}

static void
test_message_drop_lost_cuts_first_and_keeps_nothing(void **state)
{
    struct fixture *f = *state;
    give_dropper(f);
    mock_store_inbox("a@example.com", DROP);
    mock_store_inbox("b@example.com", BLACKHOLE);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(mock_dropper.drops, 0);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_TEMPFAIL);
    assert_int_equal(mock_dropper.drops, 1);
    assert_int_equal(mock_dropper.how, CM_DROP_FIN);
    assert_int_equal(mock_smfi.nlines, 0);
    assert_int_equal(mock_smfi.ndeleted, 0);
    assert_forgone(0, 1, CM_FAULT_BLACKHOLE, "b@example.com");
    assert_int_equal(mock_store.incidents[0].others, 1);
    assert_string_equal(mock_store.incidents[0].detail, "FIN, message lost");
}

static void
test_message_drop_ack_lost_delivers_and_still_blackholes(void **state)
{
    struct fixture *f = *state;
    give_dropper(f);
    mock_store_inbox("b@example.com", BLACKHOLE);
    mock_store_inbox("l@example.com", LATENCY);
    add_rule("{\"stage\":\"message\",\"inbox\":\"a@example.com\",\"fault\":"
             "{\"kind\":\"drop\",\"outcome\":\"ackLost\"}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<l@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_dropper.how, CM_DROP_RST);
    assert_int_equal(mock_smfi.ndeleted, 1);
    /* Nobody is left to wait for a late reply: none is claimed. */
    assert_forgone(1, 2, CM_FAULT_LATENCY, "l@example.com");
    assert_int_equal(mock_store.incidents[0].kind, CM_FAULT_DROP);
    assert_int_equal(mock_store.incidents[1].kind, CM_FAULT_BLACKHOLE);
}

static void
test_drop_that_fails_is_unavailable_and_the_settings_say_what_then(void **state)
{
    static const struct {
        const char *name;
        int instead; /* 0: the mail passes */
        int verdict;
    } cases[] = {{"skip", 0, SMFIS_CONTINUE},
                 {"tempfail", 451, SMFIS_TEMPFAIL},
                 {"close421", 421, SMFIS_TEMPFAIL}};
    struct fixture *f = *state;
    static const char *const text[] = {"no"};
    give_dropper(f);
    mock_dropper.drop_status = CM_NOTFOUND;
    mock_store_inbox("a@example.com", DROP);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].instead)
            assert_int_equal(cm_reply_new(&f->filter.drop_instead,
                                          cases[i].instead, NULL, text, 1,
                                          NULL),
                             CM_OK);
        mock_store.nincidents = 0;
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        if (cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE) !=
            cases[i].verdict)
            fail_msg("%s", cases[i].name);
        assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
        assert_int_equal(only_incident()->kind, CM_FAULT_DROP);
        assert_non_null(
            strstr(only_incident()->detail, "there is no such connection"));
        cm_reply_free(&f->filter.drop_instead);
    }
}

static void
test_drop_without_the_tuple_or_the_right_is_never_tried(void **state)
{
    struct fixture *f = *state;
    give_dropper(f);
    f->session->tuple_known = false;
    snprintf(f->session->tuple_why, sizeof f->session->tuple_why, "no TCP");
    mock_store_inbox("a@example.com", DROP);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    f->session->tuple_known = true;
    mock_dropper.why_not[CM_DROP_FIN] = "FIN is switched off in the settings";
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    mock_dropper.why_not[CM_DROP_FIN] = NULL;
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<postmaster>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_dropper.drops, 0);
    assert_int_equal(mock_store.nincidents, 3);
    assert_string_equal(mock_store.incidents[0].detail, "no TCP");
    assert_string_equal(mock_store.incidents[1].detail,
                        "FIN is switched off in the settings");
}

static void
test_message_latency_is_recorded_as_measured(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", LATENCY);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    const struct cm_incident *in = only_incident();
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_true(in->delay_measured_ms >= in->delay_asked_ms);
    assert_int_equal(in->others, 1);
}

static void
test_message_fault_spares_a_message_to_a_protected_recipient(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", ALWAYS_ERROR_AT("message"));
    mock_store_inbox("b@example.com", BLACKHOLE);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<postmaster@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_store.nincidents, 2);
    assert_int_equal(mock_store.incidents[0].outcome, CM_INCIDENT_UNAVAILABLE);
    /* What concerns one recipient alone is done. */
    assert_int_equal(mock_store.incidents[1].outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(mock_smfi.ndeleted, 1);
}

static void
test_rule_at_message_matches_once_however_many_recipients(void **state)
{
    struct fixture *f = *state;
    add_rule(
        "{\"stage\":\"message\",\"fault\":{\"kind\":\"latency\",\"ms\":1}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(only_incident()->others, 1);
}

static void
test_rules_at_message_do_not_depend_on_the_order_of_recipients(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"stage\":\"message\",\"inbox\":\"a@example.com\","
        "\"fault\":{\"kind\":\"latency\",\"ms\":1}}",
        "{\"stage\":\"message\",\"fault\":{\"kind\":\"error\"}}"};
    static const char *const orders[][2] = {
        {"<a@example.com>", "<b@example.com>"},
        {"<b@example.com>", "<a@example.com>"}};
    add_rules(rules, 2);
    for (size_t i = 0; i < 2; i++) {
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, orders[i][0]);
        cm_verdict_rcpt(f->session, CTX, orders[i][1]);
        assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                         SMFIS_TEMPFAIL);
    }
}

static void
test_rule_blackhole_takes_out_each_recipient_it_matches(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"fault\":{\"kind\":\"blackhole\"},\"domain\":\"example.com\"}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<c@example.org>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 2);
    mock_smfi_reset();
    cm_ruleset_release(&mock_store.rules);
    add_rule("{\"fault\":{\"kind\":\"blackhole\"}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<postmaster@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 2);
}

static void
test_recipient_with_a_fate_of_its_inbox_meets_no_rule_too(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", BLACKHOLE);
    add_rule("{\"fault\":{\"kind\":\"blackhole\"},"
             "\"inbox\":\"a@example.com\"}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    /* Two fates on one recipient once looked like two recipients: all of them,
     * and b's mail was discarded. */
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 1);
    assert_string_equal(only_incident()->rule, "inbox:blackhole");
    mock_store.nincidents = 0;
    cm_ruleset_release(&mock_store.rules);
    mock_store_inbox("l@example.com", LATENCY);
    add_rule(
        "{\"stage\":\"message\",\"fault\":{\"kind\":\"latency\",\"ms\":1}}");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<l@example.com>");
    cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE);
    assert_int_equal(only_incident()->others, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_message_blackhole_deletes_that_recipient_as_typed),
        CASE(test_message_blackhole_of_all_recipients_discards),
        CASE(test_message_blackhole_that_cannot_delete_delivers_and_says_so),
        CASE(test_message_error_names_how_many_others_it_touched),
        CASE(test_message_error_that_lost_to_another_is_not_replaced_silently),
        CASE(test_message_drop_is_recorded_as_unavailable_not_faked),
        CASE(test_message_drop_lost_cuts_first_and_keeps_nothing),
        CASE(test_message_drop_ack_lost_delivers_and_still_blackholes),
        CASE(
            test_drop_that_fails_is_unavailable_and_the_settings_say_what_then),
        CASE(test_drop_without_the_tuple_or_the_right_is_never_tried),
        CASE(test_message_latency_is_recorded_as_measured),
        CASE(test_message_fault_spares_a_message_to_a_protected_recipient),
        CASE(test_rule_at_message_matches_once_however_many_recipients),
        CASE(test_rules_at_message_do_not_depend_on_the_order_of_recipients),
        CASE(test_rule_blackhole_takes_out_each_recipient_it_matches),
        CASE(test_recipient_with_a_fate_of_its_inbox_meets_no_rule_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
