/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the MTA is told for one recipient after another, and at the commands
 * before them, without an MTA: libmilter and the store are stand-ins, the model
 * is the real one.
 */
#include "t/unit/verdict_case.h"

#include <stdio.h>
#include <string.h>

static void
test_rcpt_error_touches_only_that_inbox(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", ALWAYS_ERROR);
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<b@example.com>"),
                     SMFIS_CONTINUE);
    int verdict = cm_verdict_rcpt(f->session, CTX, "<A@Example.COM>");
    assert_int_equal(verdict, SMFIS_TEMPFAIL);
    assert_int_equal(mock_smfi.code[0], '4');
    assert_int_equal(mock_smfi.enhanced[0], '4');
    assert_int_equal(mock_smfi.nlines, 1);
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<c@example.com>"),
                     SMFIS_CONTINUE);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    const struct cm_incident *in = only_incident();
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(in->kind, CM_FAULT_ERROR);
    assert_string_equal(in->inbox, "a@example.com");
    assert_string_equal(in->sender, "s@example.net");
    assert_string_equal(in->rule, "inbox:randomError");
    assert_int_equal(mock_store.asked, 0);
}

static void
test_rcpt_drawn_error_ends_no_session_that_others_share(void **state)
{
    struct fixture *f = *state;
    bool alone_421 = false;
    mock_store_inbox("a@example.com", ALWAYS_ERROR);
    for (int i = 0; i < 200; i++) {
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        alone_421 |= strcmp(mock_smfi.code, "421") == 0;
        mock_store.nincidents = 0;
        cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
        cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        assert_string_not_equal(mock_smfi.code, "421");
        assert_int_equal(only_incident()->others, 0);
        mock_store.nincidents = 0;
    }
    assert_true(alone_421);
}

static void
test_rcpt_sub_address_meets_the_inbox_of_its_base(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", ALWAYS_ERROR);
    mock_store_inbox("a+calm@example.com", "{\"enabled\":false}");
    mail_from(f, "<>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a+x@example.com>"),
                     SMFIS_TEMPFAIL);
    /* An exact configuration comes before the base's, also a quiet one. */
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a+calm@example.com>"),
                     SMFIS_CONTINUE);
}

static void
test_rcpt_protected_or_invalid_recipient_meets_nothing(void **state)
{
    struct fixture *f = *state;
    static const char *const calm[] = {"<postmaster@example.com>",
                                       "<PostMaster@example.com>",
                                       "<postmaster>",
                                       "<abuse+x@example.com>",
                                       "<ops@example.com>",
                                       "<a@b@c>",
                                       "<a@b(.evil)>",
                                       "<\xff@example.com>",
                                       "<>"};
    add_rule("{\"stage\":\"rcpt\",\"fault\":{\"kind\":\"error\"}}");
    mail_from(f, "<s@example.net>");
    for (size_t i = 0; i < sizeof calm / sizeof calm[0]; i++)
        if (cm_verdict_rcpt(f->session, CTX, calm[i]) != SMFIS_CONTINUE)
            fail_msg("%s met a fault", calm[i]);
    assert_int_equal(mock_store.nincidents, 0);
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<x@example.com>"),
                     SMFIS_TEMPFAIL);
}

static void
test_rcpt_refused_reply_lets_the_mail_through_and_says_so(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", ALWAYS_ERROR);
    mock_smfi.refuse_reply = true;
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                     SMFIS_CONTINUE);
    const struct cm_incident *in = only_incident();
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(in->reply, "");
    assert_int_equal(f->session->msg.accepted, 1);
}

static void
test_reset_forgets_what_was_decided(void **state)
{
    struct fixture *f = *state;
    mock_store_inbox("a@example.com", BLACKHOLE);
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
    assert_int_equal(mock_store.nincidents, 0);
    assert_int_equal(mock_smfi.ndeleted, 0);
}

static void
test_reply_that_ends_the_session_spares_protected_recipients(void **state)
{
    struct fixture *f = *state;
    static const int codes[] = {421, 521};
    for (size_t i = 0; i < 2; i++) {
        char rule[128];
        snprintf(rule, sizeof rule,
                 "{\"inbox\":\"a@example.com\",\"fault\":"
                 "{\"kind\":\"error\",\"code\":%d}}",
                 codes[i]);
        cm_ruleset_release(&mock_store.rules);
        add_rule(rule);
        mock_store.nincidents = 0;
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<b@example.com>");
        assert_int_not_equal(
            cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
            SMFIS_CONTINUE);
        assert_int_equal(only_incident()->others, 1);
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<ops@example.com>");
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, "<a@example.com>"),
                         SMFIS_CONTINUE);
        assert_int_equal(mock_store.incidents[1].outcome,
                         CM_INCIDENT_UNAVAILABLE);
    }
}

static void
test_rule_at_mail_answers_before_any_recipient(void **state)
{
    struct fixture *f = *state;
    add_rule("{\"stage\":\"mail\",\"sender\":\"*@example.net\",\"fault\":"
             "{\"kind\":\"error\",\"code\":550,\"text\":[\"100% no\",\"x\"]}}");
    mail_from(f, "<s@example.net>");
    assert_int_equal(cm_verdict_command(f->session, CTX, CM_STAGE_MAIL),
                     SMFIS_REJECT);
    assert_string_equal(mock_smfi.code, "550");
    assert_int_equal(mock_smfi.nlines, 2);
    assert_string_equal(mock_smfi.lines[0], "100%% no");
    mail_from(f, "<s@example.org>");
    assert_int_equal(cm_verdict_command(f->session, CTX, CM_STAGE_MAIL),
                     SMFIS_CONTINUE);
}

static void
test_many_clean_recipients_take_no_memory(void **state)
{
    struct fixture *f = *state;
    char typed[64];
    mock_store_inbox("a@example.com", ALWAYS_ERROR);
    mail_from(f, "<s@example.net>");
    for (int i = 0; i < 50000; i++) {
        snprintf(typed, sizeof typed, "<user%d@example.com>", i);
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, typed),
                         SMFIS_CONTINUE);
    }
    assert_int_equal(f->session->msg.accepted, 50000);
    assert_int_equal(f->session->msg.fates_cap, 0);
    assert_int_equal(f->session->msg.rcpts_cap, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rcpt_error_touches_only_that_inbox),
        CASE(test_rcpt_drawn_error_ends_no_session_that_others_share),
        CASE(test_rcpt_sub_address_meets_the_inbox_of_its_base),
        CASE(test_rcpt_protected_or_invalid_recipient_meets_nothing),
        CASE(test_rcpt_refused_reply_lets_the_mail_through_and_says_so),
        CASE(test_reset_forgets_what_was_decided),
        CASE(test_reply_that_ends_the_session_spares_protected_recipients),
        CASE(test_rule_at_mail_answers_before_any_recipient),
        CASE(test_many_clean_recipients_take_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
