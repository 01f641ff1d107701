/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is asked of the MTA at the end of a message, call by call and byte by
 * byte: who is taken out and put in, what is held, dropped, added and written.
 */
#include "milter/filter/terms.h"
#include "t/unit/verdict_case.h"

#include <stdio.h>
#include <string.h>

#define BODY "Hello.\r\nSecond line.\r\n"
#define DUPLICATE(inbox)                                                       \
    "{\"inbox\":\"" inbox "\",\"fault\":{\"kind\":\"duplicate\"}}"
#define MISDELIVER(inbox, to)                                                  \
    "{\"inbox\":\"" inbox "\",\"fault\":{\"kind\":\"misdeliver\",\"to\":\"" to \
    "\"}}"
#define ONE_MUTATION(how)                                                      \
    "{\"maxHits\":1,\"fault\":{\"kind\":\"mutate\"," how "}}"
#define MUTATE(how) "{\"fault\":{\"kind\":\"mutate\"," how "}}"
#define HOLD        "{\"fault\":{\"kind\":\"quarantine\",\"reason\":\"look at it\"}}"

/* A message to these, up to a NULL, with its headers and body told; returns
 * what the MTA is told at its end. */
static int
message(struct fixture *f, const char *const *rcpts)
{
    f->session->terms.headers = f->session->terms.body = true;
    mail_from(f, "<s@example.net>");
    for (; *rcpts; rcpts++)
        assert_int_equal(cm_verdict_rcpt(f->session, CTX, *rcpts),
                         SMFIS_CONTINUE);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_DATA),
                     SMFIS_CONTINUE);
    cm_session_header(f->session, "X-A", "one");
    cm_session_header(f->session, "Subject", "test");
    cm_session_header(f->session, "x-a", "two");
    cm_session_body(f->session, (const unsigned char *)BODY, 10);
    cm_session_body(f->session, (const unsigned char *)BODY + 10,
                    strlen(BODY) - 10);
    return cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE);
}

static int
message_to(struct fixture *f, const char *rcpt)
{
    const char *const rcpts[] = {rcpt, NULL};
    return message(f, rcpts);
}

/* One was recorded, as unavailable, and this is why; nothing was asked for. */
static void
assert_only_unavailable(const char *why)
{
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(only_incident()->detail, why);
    assert_string_equal(mock_smfi.edits, "");
}

static void
assert_only_applied(enum cm_fault_kind kind, const char *detail)
{
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(only_incident()->kind, kind);
    assert_string_equal(only_incident()->detail, detail);
}

/* --- recipients --- */

static void
test_duplicate_adds_that_recipient_again_as_typed(void **state)
{
    struct fixture *f = *state;
    const char *const rcpts[] = {"<b@example.com>", "<@r:A@Example.com>", NULL};
    add_rule(DUPLICATE("a@example.com"));
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "addrcpt <A@Example.com>\n");
    assert_only_applied(CM_FAULT_DUPLICATE, "");
    assert_string_equal(only_incident()->inbox, "a@example.com");
    assert_int_equal(only_incident()->others, 0);
}

static void
test_duplicate_is_not_to_be_had_from_sendmail(void **state)
{
    struct fixture *f = *state;
    add_rule(DUPLICATE("a@example.com"));
    f->session->mta = CM_MTA_SENDMAIL;
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_only_unavailable(
        "Sendmail delivers once to a recipient named twice");
}

static void
test_misdeliver_moves_one_recipient(void **state)
{
    struct fixture *f = *state;
    const char *const rcpts[] = {"<A@example.com>", "<b@example.com>", NULL};
    add_rule(MISDELIVER("a@example.com", "x@example.org"));
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "delrcpt <A@example.com>\n"
                                         "addrcpt <x@example.org>\n");
    assert_only_applied(CM_FAULT_MISDELIVER, "to x@example.org");
    assert_int_equal(only_incident()->others, 0);
}

/* A deletion takes every recipient of that name, also one just added. */
static void
test_misdeliver_of_two_to_each_other_loses_neither(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        MISDELIVER("a@example.com", "b@example.com"),
        MISDELIVER("b@example.com", "a@example.com"),
        "{\"inbox\":\"c@example.com\",\"fault\":{\"kind\":\"blackhole\"}}",
        MISDELIVER("d@example.com", "c@example.com")};
    const char *const rcpts[] = {"<a@example.com>", "<b@example.com>",
                                 "<d@example.com>", "<c@example.com>", NULL};
    add_rules(rules, 4);
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "delrcpt <c@example.com>\n"
                                         "delrcpt <a@example.com>\n"
                                         "delrcpt <b@example.com>\n"
                                         "delrcpt <d@example.com>\n"
                                         "addrcpt <b@example.com>\n"
                                         "addrcpt <a@example.com>\n"
                                         "addrcpt <c@example.com>\n");
    assert_int_equal(mock_store.nincidents, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(mock_store.incidents[i].outcome, CM_INCIDENT_APPLIED);
}

static void
test_misdeliver_that_cannot_add_puts_the_recipient_back(void **state)
{
    struct fixture *f = *state;
    add_rule(MISDELIVER("a@example.com", "x@example.org"));
    mock_smfi.refuse_adding = "<x@example.org>";
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "delrcpt <a@example.com>\n"
                                         "addrcpt <a@example.com>\n");
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(only_incident()->detail,
                        "the MTA does not let recipients be added");
}

static void
test_misdeliver_that_cannot_delete_adds_nothing(void **state)
{
    struct fixture *f = *state;
    add_rule(MISDELIVER("a@example.com", "x@example.org"));
    mock_smfi.refuse_delete = true;
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_only_unavailable("the MTA does not let recipients be deleted");
}

/* The mail must not vanish: the client is told to come again. */
static void
test_misdeliver_that_can_neither_add_nor_undo_accepts_nothing(void **state)
{
    struct fixture *f = *state;
    add_rule(MISDELIVER("a@example.com", "x@example.org"));
    mock_smfi.refuse_adding = "*";
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_TEMPFAIL);
    assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(only_incident()->detail,
                        "the recipient could be put neither there nor back");
}

static void
test_misdeliver_never_to_who_is_protected_nor_to_itself(void **state)
{
    static const struct {
        const char *rule, *why;
    } cases[] = {
        {MISDELIVER("a@example.com", "postmaster@example.org"),
         "the recipient to deliver to is protected"},
        {MISDELIVER("a@example.com", "Abuse+x@example.org"),
         "the recipient to deliver to is protected"},
        {MISDELIVER("a@example.com", "ops@example.com"),
         "the recipient to deliver to is protected"},
        {MISDELIVER("a@example.com", "A@example.com"),
         "the mail is for that recipient anyway"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cm_ruleset_release(&mock_store.rules);
        mock_store.nincidents = 0;
        add_rule(cases[i].rule);
        assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
        assert_only_unavailable(cases[i].why);
    }
}

/* --- the message --- */

static void
test_quarantine_holds_the_message_and_counts_the_others(void **state)
{
    struct fixture *f = *state;
    const char *const rcpts[] = {"<a@example.com>", "<b@example.com>",
                                 "<c@example.com>", NULL};
    add_rule(HOLD);
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "quarantine look at it\n");
    assert_only_applied(CM_FAULT_QUARANTINE, "look at it");
    assert_int_equal(only_incident()->others, 2);
}

static void
test_protected_recipient_spares_the_message_and_not_the_copies(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        DUPLICATE("d@example.com"),
        MISDELIVER("m@example.com", "x@example.org"),
        "{\"inbox\":\"q@example.com\",\"fault\":{\"kind\":\"quarantine\"}}",
        MUTATE("\"truncateBody\":0")};
    const char *const rcpts[] = {"<d@example.com>", "<postmaster@example.com>",
                                 "<m@example.com>", "<q@example.com>",
                                 "<t@example.com>", NULL};
    add_rules(rules, 4);
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "delrcpt <m@example.com>\n"
                                         "addrcpt <x@example.org>\n"
                                         "addrcpt <d@example.com>\n");
    assert_int_equal(mock_store.nincidents, 4);
    for (size_t i = 0; i < 4; i++) {
        const struct cm_incident *in = &mock_store.incidents[i];
        bool whole =
            in->kind == CM_FAULT_QUARANTINE || in->kind == CM_FAULT_MUTATE;
        assert_int_equal(in->outcome,
                         whole ? CM_INCIDENT_UNAVAILABLE : CM_INCIDENT_APPLIED);
    }
}

static void
test_truncate_writes_the_first_bytes(void **state)
{
    static const struct {
        const char *rule, *edits, *body, *detail;
    } cases[] = {
        {MUTATE("\"truncateBody\":8"), "replacebody 8\n", "Hello.\r\n",
         "cut to 8 bytes"},
        {MUTATE("\"truncateBody\":11"), "replacebody 11\n", "Hello.\r\nSec",
         "cut to 11 bytes"},
        {MUTATE("\"truncateBody\":0"), "replacebody 0\n", "", "cut to 0 bytes"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cm_ruleset_release(&mock_store.rules);
        mock_store.nincidents = 0;
        mock_smfi_reset();
        add_rule(cases[i].rule);
        assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
        assert_string_equal(mock_smfi.edits, cases[i].edits);
        assert_memory_equal(mock_smfi.body, cases[i].body,
                            strlen(cases[i].body));
        assert_only_applied(CM_FAULT_MUTATE, cases[i].detail);
    }
}

static void
test_truncate_beyond_the_body_is_not_claimed(void **state)
{
    struct fixture *f = *state;
    add_rule(MUTATE("\"truncateBody\":22"));
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_only_unavailable("the body is not longer than that");
}

static void
test_drop_header_takes_each_occurrence_from_the_last(void **state)
{
    struct fixture *f = *state;
    add_rule(MUTATE("\"dropHeader\":\"X-A\""));
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "chgheader X-A 2 (gone)\n"
                                         "chgheader X-A 1 (gone)\n");
    assert_only_applied(CM_FAULT_MUTATE, "dropped 2 of X-A");
}

static void
test_drop_header_that_is_not_there_is_not_claimed(void **state)
{
    struct fixture *f = *state;
    add_rule(MUTATE("\"dropHeader\":\"DKIM-Signature\""));
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_only_unavailable("the message has no such header");
}

static void
test_add_header_adds_it(void **state)
{
    struct fixture *f = *state;
    add_rule(MUTATE("\"addHeader\":{\"X-Rot\":\"100% rotten\"}"));
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "addheader X-Rot: 100% rotten\n");
    assert_only_applied(CM_FAULT_MUTATE, "added X-Rot");
}

static size_t
differing(const unsigned char *body)
{
    size_t n = 0;
    for (size_t i = 0; i < strlen(BODY); i++)
        n += body[i] != (unsigned char)BODY[i];
    return n;
}

static void
test_flip_with_a_seed_flips_the_same(void **state)
{
    struct fixture *f = *state;
    unsigned char first[sizeof BODY];
    add_rule("{\"seed\":7,\"fault\":{\"kind\":\"mutate\",\"flipBits\":5}}");
    for (int i = 0; i < 2; i++) {
        mock_store.nincidents = 0;
        mock_store.occurrence = 0; /* the same mail, on another host */
        mock_smfi_reset();
        assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
        assert_string_equal(mock_smfi.edits, "replacebody 22\n");
        assert_int_equal(differing(mock_smfi.body), 5);
        assert_only_applied(CM_FAULT_MUTATE, "5 bits flipped");
        if (i == 0)
            memcpy(first, mock_smfi.body, sizeof first);
    }
    assert_memory_equal(mock_smfi.body, first, strlen(BODY));
    mock_smfi_reset(); /* the next mail of these two */
    assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
    assert_memory_not_equal(mock_smfi.body, first, strlen(BODY));
}

static void
test_mutations_of_one_body_are_written_once(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"inbox\":\"a@example.com\",\"fault\":"
        "{\"kind\":\"mutate\",\"truncateBody\":8}}",
        "{\"inbox\":\"b@example.com\",\"fault\":"
        "{\"kind\":\"mutate\",\"flipBits\":2}}",
        "{\"inbox\":\"c@example.com\",\"fault\":"
        "{\"kind\":\"mutate\",\"truncateBody\":8}}"};
    const char *const rcpts[] = {"<a@example.com>", "<b@example.com>",
                                 "<c@example.com>", NULL};
    add_rules(rules, 3);
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "replacebody 8\n");
    assert_int_equal(mock_smfi.body_len, 8);
    assert_int_equal(mock_store.nincidents, 3);
    assert_int_equal(mock_store.incidents[0].outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(mock_store.incidents[0].detail,
                        "the body is not longer than that");
    for (int i = 1; i < 3; i++) {
        assert_int_equal(mock_store.incidents[i].outcome, CM_INCIDENT_APPLIED);
        assert_int_equal(mock_store.incidents[i].others, 2);
    }
}

/* --- what the MTA will not do --- */

static void
test_edit_that_was_not_granted_is_never_tried(void **state)
{
    static const struct {
        const char *rule;
        unsigned long action;
    } cases[] = {
        {HOLD, SMFIF_QUARANTINE},
        {DUPLICATE("a@example.com"), SMFIF_ADDRCPT},
        {MISDELIVER("a@example.com", "x@example.org"), SMFIF_DELRCPT},
        {MUTATE("\"truncateBody\":8"), SMFIF_CHGBODY},
        {MUTATE("\"flipBits\":1"), SMFIF_CHGBODY},
        {MUTATE("\"dropHeader\":\"X-A\""), SMFIF_CHGHDRS},
        {MUTATE("\"addHeader\":{\"X-B\":\"c\"}"), SMFIF_ADDHDRS},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cm_ruleset_release(&mock_store.rules);
        mock_store.nincidents = 0;
        mock_smfi_reset();
        add_rule(cases[i].rule);
        f->session->terms.actions = cm_terms_actions() & ~cases[i].action;
        assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
        assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
        assert_int_equal(mock_store.asked, 0);
        assert_string_equal(mock_smfi.edits, "");
        /* And when it was granted, but the MTA will not: */
        mock_store.nincidents = 0;
        cm_terms_assume(&f->session->terms);
        mock_smfi.refuse = cases[i].action;
        assert_int_equal(message_to(f, "<a@example.com>"), SMFIS_CONTINUE);
        assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
        assert_string_equal(mock_smfi.edits, "");
    }
}

static void
test_mutation_of_what_was_not_told_uses_up_no_hit(void **state)
{
    static const char *const rules[] = {ONE_MUTATION("\"flipBits\":1"),
                                        ONE_MUTATION("\"truncateBody\":0"),
                                        ONE_MUTATION("\"dropHeader\":\"X-A\"")};
    struct fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        cm_ruleset_release(&mock_store.rules);
        mock_store.nincidents = 0;
        add_rule(rules[i]);
        mail_from(f, "<s@example.net>");
        cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                         SMFIS_CONTINUE);
        assert_int_equal(only_incident()->outcome, CM_INCIDENT_UNAVAILABLE);
        assert_non_null(strstr(only_incident()->detail,
                               "the session began before any rule wanted its"));
        assert_int_equal(mock_store.asked, 0);
    }
}

/* --- what else may happen to the message --- */

static void
test_refused_message_is_not_edited(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        DUPLICATE("a@example.com"),
        "{\"stage\":\"message\",\"inbox\":\"b@example.com\","
        "\"fault\":{\"kind\":\"error\"}}"};
    const char *const rcpts[] = {"<a@example.com>", "<b@example.com>", NULL};
    add_rules(rules, 2);
    assert_int_equal(message(f, rcpts), SMFIS_TEMPFAIL);
    assert_string_equal(mock_smfi.edits, "");
    assert_int_equal(mock_store.nincidents, 2);
    assert_int_equal(mock_store.incidents[0].kind, CM_FAULT_ERROR);
    assert_int_equal(mock_store.incidents[1].kind, CM_FAULT_DUPLICATE);
    assert_int_equal(mock_store.incidents[1].outcome, CM_INCIDENT_UNAVAILABLE);
}

static void
test_edited_message_may_be_late_too(void **state)
{
    struct fixture *f = *state;
    const char *const rcpts[] = {"<a@example.com>", "<l@example.com>", NULL};
    mock_store_inbox("l@example.com", LATENCY);
    add_rule(DUPLICATE("a@example.com"));
    assert_int_equal(message(f, rcpts), SMFIS_CONTINUE);
    assert_string_equal(mock_smfi.edits, "addrcpt <a@example.com>\n");
    assert_int_equal(mock_store.nincidents, 2);
    assert_int_equal(mock_store.incidents[0].kind, CM_FAULT_DUPLICATE);
    assert_int_equal(mock_store.incidents[1].kind, CM_FAULT_LATENCY);
}

/* One inbox's mutation does not make every mail be kept in memory. */
static void
test_body_is_kept_only_for_who_may_meet_a_mutation(void **state)
{
    struct fixture *f = *state;
    static const char *const rules[] = {
        "{\"inbox\":\"a@example.com\",\"header\":{\"X-A\":\"two\"},"
        "\"size\":{\"gte\":1},\"fault\":{\"kind\":\"mutate\",\"flipBits\":1}}",
        "{\"domain\":\"example.org\",\"sender\":\"other@example.net\","
        "\"fault\":{\"kind\":\"mutate\",\"flipBits\":1}}",
        "{\"domain\":\"example.net\","
        "\"fault\":{\"kind\":\"mutate\",\"truncateBody\":3}}"};
    static const struct {
        const char *rcpt;
        size_t kept;
    } cases[] = {
        {"<a@example.com>", sizeof BODY - 1},
        {"<b@example.com>", 0},
        {"<b@example.org>", 0}, /* another sender */
        {"<b@example.net>", 3},
        {"<postmaster@example.net>", 0},
        {"<h@example.net>", 0}, /* its inbox has decided */
    };
    add_rules(rules, 3);
    mock_store_inbox("h@example.net", BLACKHOLE);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        message_to(f, cases[i].rcpt);
        if (f->session->msg.content.body_len != cases[i].kept)
            fail_msg("%s: %zu", cases[i].rcpt,
                     f->session->msg.content.body_len);
        if (cases[i].kept == 0)
            assert_null(f->session->msg.content.body);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_duplicate_adds_that_recipient_again_as_typed),
        CASE(test_duplicate_is_not_to_be_had_from_sendmail),
        CASE(test_misdeliver_moves_one_recipient),
        CASE(test_misdeliver_of_two_to_each_other_loses_neither),
        CASE(test_misdeliver_that_cannot_add_puts_the_recipient_back),
        CASE(test_misdeliver_that_cannot_delete_adds_nothing),
        CASE(test_misdeliver_that_can_neither_add_nor_undo_accepts_nothing),
        CASE(test_misdeliver_never_to_who_is_protected_nor_to_itself),
        CASE(test_quarantine_holds_the_message_and_counts_the_others),
        CASE(test_protected_recipient_spares_the_message_and_not_the_copies),
        CASE(test_truncate_writes_the_first_bytes),
        CASE(test_truncate_beyond_the_body_is_not_claimed),
        CASE(test_drop_header_takes_each_occurrence_from_the_last),
        CASE(test_drop_header_that_is_not_there_is_not_claimed),
        CASE(test_add_header_adds_it),
        CASE(test_flip_with_a_seed_flips_the_same),
        CASE(test_mutations_of_one_body_are_written_once),
        CASE(test_edit_that_was_not_granted_is_never_tried),
        CASE(test_mutation_of_what_was_not_told_uses_up_no_hit),
        CASE(test_refused_message_is_not_edited),
        CASE(test_edited_message_may_be_late_too),
        CASE(test_body_is_kept_only_for_who_may_meet_a_mutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
