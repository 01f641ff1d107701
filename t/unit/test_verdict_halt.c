/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A halt in the middle of everything: between the decision and the act, and
 * between two recipients of one message. The fixture is test_verdict's, cut
 * down to what this needs.
 */
#include "milter/filter/verdict.h"
#include "milter/model/protect.h"
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
#define REFUSE                                                                 \
    "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":1}}"
#define REFUSE_AT_END                                                          \
    "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":1,"     \
    "\"stage\":\"message\"}}"
#define GREYLIST  "{\"enabled\":true,\"greylist\":{\"enabled\":true}}"
#define BLACKHOLE "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define DROP      "{\"enabled\":true,\"connectionDrop\":{\"enabled\":true}}"

static struct cm_filter filter;
static struct cm_session *session;

static int
set_up(void **state)
{
    struct cm_protect *protect = NULL;
    (void)state;
    memset(&filter, 0, sizeof filter);
    memset(&mock_smfi, 0, sizeof mock_smfi);
    memset(&mock_dropper, 0, sizeof mock_dropper);
    mock_store_reset();
    if (cm_protect_new(&protect, NULL, 0, 0, NULL) != CM_OK)
        return -1;
    filter.armed = true;
    filter.recipient_delimiter = "+";
    pthread_rwlock_init(&filter.protect_lock, NULL);
    cm_filter_protect(&filter, protect);
    session = cm_session_new(&filter, -1);
    if (!session)
        return -1;
    session->client.family = 2;
    session->client.port = 1;
    cm_session_begin(session);
    session->msg.sender_known =
        cm_address_parse(&session->msg.sender, "<s@x>", 5, 0, NULL) == CM_OK;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    cm_session_free(&session);
    cm_protect_free(&filter.protect);
    pthread_rwlock_destroy(&filter.protect_lock);
    mock_store_reset();
    return 0;
}

static int
rcpt(const char *typed)
{
    return cm_verdict_rcpt(session, CTX, typed);
}

static int
end_of_message(void)
{
    return cm_verdict_late(session, CTX, CM_STAGE_MESSAGE);
}

static void
expect_unavailable(size_t i, const char *inbox)
{
    assert_true(i < mock_store.nincidents);
    const struct cm_incident *in = &mock_store.incidents[i];
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(in->detail, "halted");
    assert_string_equal(in->inbox, inbox);
    assert_string_equal(in->reply, "");
}

static void
test_rcpt_while_halted_meets_nothing_and_asks_nothing(void **state)
{
    (void)state;
    mock_store_inbox("a@example.com", REFUSE);
    mock_store_inbox("g@example.com", GREYLIST);
    assert_int_equal(rcpt("<a@example.com>"), SMFIS_TEMPFAIL);
    mock_store.nincidents = 0;
    mock_store.halted = true;
    assert_int_equal(rcpt("<a@example.com>"), SMFIS_CONTINUE);
    assert_int_equal(rcpt("<g@example.com>"), SMFIS_CONTINUE);
    assert_int_equal(mock_store.asked, 0);
    assert_int_equal(mock_store.nincidents, 0);
}

static void
test_message_decided_before_a_halt_is_spared_and_recorded(void **state)
{
    (void)state;
    mock_store_inbox("e@example.com", REFUSE_AT_END);
    mock_store_inbox("b@example.com", BLACKHOLE);
    mock_store_inbox("d@example.com", DROP);
    assert_int_equal(rcpt("<e@example.com>"), SMFIS_CONTINUE);
    assert_int_equal(rcpt("<b@example.com>"), SMFIS_CONTINUE);
    assert_int_equal(rcpt("<d@example.com>"), SMFIS_CONTINUE);
    mock_store.halted = true;
    assert_int_equal(end_of_message(), SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 0);
    assert_int_equal(mock_dropper.drops, 0);
    assert_int_equal(mock_store.nincidents, 3);
    expect_unavailable(0, "e@example.com");
    expect_unavailable(1, "b@example.com");
    expect_unavailable(2, "d@example.com");
}

/* A rule of the list, which is asked at the end of the message only. */
static void
set_rule(const char *text)
{
    struct cm_rule *rule = calloc(1, sizeof *rule);
    struct cm_problems problems;
    json_t *doc = json_loads(text, 0, NULL);
    cm_problems_init(&problems);
    assert_non_null(rule);
    assert_int_equal(cm_rule_compile(rule, "r1", doc, 0, &problems), CM_OK);
    json_decref(doc);
    assert_int_equal(cm_ruleset_new(&mock_store.rules, rule, 1), CM_OK);
    cm_session_begin(session);
}

static void
test_message_while_halted_uses_up_no_hit(void **state)
{
    (void)state;
    set_rule("{\"stage\":\"message\",\"maxHits\":1,"
             "\"fault\":{\"kind\":\"error\"}}");
    assert_int_equal(rcpt("<a@example.com>"), SMFIS_CONTINUE);
    mock_store.halted = true;
    assert_int_equal(end_of_message(), SMFIS_CONTINUE);
    assert_int_equal(mock_store.asked, 0);
    assert_int_equal(mock_store.nincidents, 0);
}

/* Otherwise the one recipient that was counted, and blackholed, would be taken
 * for all, and the message discarded. */
static void
test_message_that_met_a_halt_is_spared_also_after_it(void **state)
{
    (void)state;
    mock_store_inbox("b@example.com", BLACKHOLE);
    assert_int_equal(rcpt("<b@example.com>"), SMFIS_CONTINUE);
    mock_store.halted = true;
    assert_int_equal(rcpt("<other@example.com>"), SMFIS_CONTINUE);
    mock_store.halted = false;
    assert_int_equal(end_of_message(), SMFIS_CONTINUE);
    assert_int_equal(mock_smfi.ndeleted, 0);
    assert_int_equal(mock_store.nincidents, 1);
    expect_unavailable(0, "b@example.com");
}

/* The question to Redis may take its deadline, and the halt come meanwhile. */
static void
test_rcpt_halted_while_redis_was_asked_is_spared(void **state)
{
    (void)state;
    mock_store_inbox("g@example.com", GREYLIST);
    mock_store.greylist_refuses = true;
    mock_store.halts_when_asked = true;
    assert_int_equal(rcpt("<g@example.com>"), SMFIS_CONTINUE);
    assert_int_equal(mock_store.asked, 1);
    assert_int_equal(mock_store.nincidents, 1);
    expect_unavailable(0, "g@example.com");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rcpt_while_halted_meets_nothing_and_asks_nothing),
        CASE(test_message_decided_before_a_halt_is_spared_and_recorded),
        CASE(test_message_while_halted_uses_up_no_hit),
        CASE(test_message_that_met_a_halt_is_spared_also_after_it),
        CASE(test_rcpt_halted_while_redis_was_asked_is_spared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
