/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the MTA is told for one mail after another, without an MTA: libmilter
 * and the store are stand-ins, the model is the real one. A delay shows as
 * "unable to hold" here, so latency is tried in test_hold and against real
 * MTAs.
 */
#include "milter/filter/verdict.h"
#include "milter/model/protect.h"
#include "milter/model/reply.h"
#include "milter/model/rule_json.h"
#include "t/unit/mock_dropper.h"
#include "t/unit/mock_smfi.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <jansson.h>
#include <libmilter/mfapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CTX ((struct smfi_str *)&mock_smfi)
#define ALWAYS_ERROR                                                           \
    "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":1}}"
#define ALWAYS_ERROR_AT(stage)                                                 \
    "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":1,"     \
    "\"stage\":\"" stage "\"}}"
#define GREYLIST  "{\"enabled\":true,\"greylist\":{\"enabled\":true}}"
#define BLACKHOLE "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define DROP      "{\"enabled\":true,\"connectionDrop\":{\"enabled\":true}}"
#define LATENCY                                                                \
    "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0,"        \
    "\"maxDelayMs\":1}}"

struct fixture {
    struct cm_filter filter;
    struct cm_session *session;
};

static int
set_up(void **state)
{
    static struct fixture f;
    struct cm_protect *protect = NULL;
    char *extra[] = {(char *)"ops@example.com"};
    memset(&f, 0, sizeof f);
    memset(&mock_smfi, 0, sizeof mock_smfi);
    memset(&mock_dropper, 0, sizeof mock_dropper);
    mock_store_reset();
    if (cm_protect_new(&protect, extra, 1, 0, NULL) != CM_OK)
        return -1;
    f.filter.armed = true;
    f.filter.recipient_delimiter = "+";
    cm_patience_init(&f.filter.patience, 10, 300);
    pthread_rwlock_init(&f.filter.protect_lock, NULL);
    cm_filter_protect(&f.filter, protect);
    f.session = cm_session_new(&f.filter, -1);
    f.session->client.family = 2;
    f.session->client.port = 1;
    snprintf(f.session->client_text, sizeof f.session->client_text,
             "192.0.2.1");
    *state = &f;
    return 0;
}

static int
tear_down(void **state)
{
    struct fixture *f = *state;
    cm_session_free(&f->session);
    cm_protect_free(&f->filter.protect);
    pthread_rwlock_destroy(&f->filter.protect_lock);
    mock_store_reset();
    return 0;
}

static void
mail_from(struct fixture *f, const char *sender)
{
    cm_session_begin(f->session);
    f->session->msg.sender_known =
        cm_address_parse(&f->session->msg.sender, sender, strlen(sender), 0,
                         NULL) == CM_OK;
}

static const struct cm_incident *
only_incident(void)
{
    assert_int_equal(mock_store.nincidents, 1);
    return &mock_store.incidents[0];
}

static void
add_rules(const char *const *texts, size_t n)
{
    struct cm_rule *rules = calloc(n, sizeof *rules);
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        struct cm_problems problems;
        struct cm_err err;
        char id[24];
        json_t *doc = NULL;
        cm_problems_init(&problems);
        snprintf(id, sizeof id, "r%zu", i + 1);
        assert_int_equal(cm_json_parse(&doc, texts[i], strlen(texts[i]), &err),
                         CM_OK);
        if (cm_rule_compile(&rules[i], id, doc, 0, &problems) != CM_OK)
            fail_msg("%s: %s", texts[i], cm_problems_first(&problems));
        json_decref(doc);
    }
    assert_int_equal(cm_ruleset_new(&mock_store.rules, rules, n), CM_OK);
}

static void
add_rule(const char *text)
{
    add_rules(&text, 1);
}

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
    assert_int_equal(only_incident()->others, 2);
    assert_int_equal(only_incident()->stage, CM_STAGE_MESSAGE);
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
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(only_incident()->others, 1);
    assert_string_equal(only_incident()->detail, "FIN, message lost");
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
    assert_int_equal(mock_store.nincidents, 2);
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

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rcpt_error_touches_only_that_inbox),
        CASE(test_rcpt_drawn_error_ends_no_session_that_others_share),
        CASE(test_rcpt_sub_address_meets_the_inbox_of_its_base),
        CASE(test_rcpt_protected_or_invalid_recipient_meets_nothing),
        CASE(test_rcpt_refused_reply_lets_the_mail_through_and_says_so),
        CASE(test_rcpt_greylist_asks_with_its_keys_and_refuses),
        CASE(test_rcpt_greylist_pass_goes_on_to_the_next_fault),
        CASE(test_rcpt_greylist_without_redis_lets_the_mail_through),
        CASE(test_message_blackhole_deletes_that_recipient_as_typed),
        CASE(test_message_blackhole_of_all_recipients_discards),
        CASE(test_message_blackhole_that_cannot_delete_delivers_and_says_so),
        CASE(test_message_error_names_how_many_others_it_touched),
        CASE(test_message_drop_is_recorded_as_unavailable_not_faked),
        CASE(test_message_drop_lost_cuts_first_and_keeps_nothing),
        CASE(test_message_drop_ack_lost_delivers_and_still_blackholes),
        CASE(
            test_drop_that_fails_is_unavailable_and_the_settings_say_what_then),
        CASE(test_drop_without_the_tuple_or_the_right_is_never_tried),
        CASE(test_message_latency_is_recorded_as_measured),
        CASE(test_message_fault_spares_a_message_to_a_protected_recipient),
        CASE(test_reset_forgets_what_was_decided),
        CASE(test_rule_at_message_matches_once_however_many_recipients),
        CASE(test_rule_for_the_message_takes_one_hit_and_one_shadow_record),
        CASE(test_rules_at_message_do_not_depend_on_the_order_of_recipients),
        CASE(test_rule_blackhole_takes_out_each_recipient_it_matches),
        CASE(test_recipient_with_a_fate_of_its_inbox_meets_no_rule_too),
        CASE(test_reply_that_ends_the_session_spares_protected_recipients),
        CASE(test_rule_that_cannot_be_done_uses_up_no_hit),
        CASE(test_rule_in_shadow_is_recorded_and_does_not_hurt),
        CASE(test_rule_with_seed_and_no_redis_has_no_coin),
        CASE(test_rule_with_max_hits_used_up_lets_pass),
        CASE(test_rule_at_mail_answers_before_any_recipient),
        CASE(test_many_clean_recipients_take_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
