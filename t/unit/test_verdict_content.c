/* SPDX-License-Identifier: BSD-2-Clause */
/* Conditions on what the message is like: its headers and its size. */
#include "t/unit/verdict_case.h"

#include <stdio.h>

#define AT_MESSAGE(condition)                                                  \
    "{\"stage\":\"message\"," condition ",\"fault\":{\"kind\":\"error\"}}"

/* A message of 35 bytes from here on. */
static int
tell_message(struct fixture *f)
{
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    cm_session_header(f->session, "X-Campaign", "\tSpring\n sale");
    cm_session_body(f->session, (const unsigned char *)"Hi.\r\n", 5);
    return cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE);
}

static void
test_conditions_on_the_content(void **state)
{
    static const struct {
        const char *rule;
        bool holds;
    } cases[] = {
        {AT_MESSAGE("\"header\":{\"x-campaign\":\"spring*\"}"), true},
        {AT_MESSAGE("\"header\":{\"x-campaign\":\"spring sale\"}"), true},
        {AT_MESSAGE("\"header\":{\"x-campaign\":\"sale\"}"), false},
        {AT_MESSAGE("\"header\":{\"x-other\":\"*\"}"), false},
        {AT_MESSAGE("\"size\":{\"gte\":35}"), true},
        {AT_MESSAGE("\"size\":{\"gte\":36}"), false},
        {AT_MESSAGE("\"size\":{\"lte\":35}"), true},
        {AT_MESSAGE("\"size\":{\"lte\":34}"), false},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cm_ruleset_release(&mock_store.rules);
        add_rule(cases[i].rule);
        f->session->terms.headers = f->session->terms.body = true;
        if (tell_message(f) !=
            (cases[i].holds ? SMFIS_TEMPFAIL : SMFIS_CONTINUE))
            fail_msg("%s", cases[i].rule);
        /* A session that was never told cannot know. */
        f->session->terms.headers = f->session->terms.body = false;
        if (tell_message(f) != SMFIS_CONTINUE)
            fail_msg("%s: what was not told is not known", cases[i].rule);
    }
}

static void
test_condition_on_a_header_of_too_many_does_not_hold(void **state)
{
    struct fixture *f = *state;
    add_rule(AT_MESSAGE("\"header\":{\"x-a\":\"*\"}"));
    f->session->terms.headers = true;
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    for (int i = 0; i <= CM_CONTENT_HEADERS_MAX + 9; i++)
        cm_session_header(f->session, "X-A", "b");
    assert_int_equal(f->filter.counts[CM_FILTER_HEADERS_LOST], 1);
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
}

static void
test_condition_on_the_declared_size_before_the_message(void **state)
{
    static const char *const stages[] = {"mail", "rcpt", "data"};
    static const struct {
        const char *parameter;
        bool holds;
    } cases[] = {{"SIZE=1000", true}, {"SIZE=999", false}, {NULL, false}};
    struct fixture *f = *state;
    for (size_t i = 0; i < 9; i++) {
        const char *parameters[] = {cases[i % 3].parameter, NULL};
        bool holds = cases[i % 3].holds;
        char rule[128];
        snprintf(rule, sizeof rule,
                 "{\"stage\":\"%s\",\"size\":{\"gte\":1000},"
                 "\"fault\":{\"kind\":\"error\"}}",
                 stages[i / 3]);
        cm_ruleset_release(&mock_store.rules);
        add_rule(rule);
        mail_from(f, "<s@example.net>");
        cm_content_declare(&f->session->msg.content, parameters);
        int verdict = cm_verdict_command(f->session, CTX, CM_STAGE_MAIL);
        if (verdict == SMFIS_CONTINUE)
            verdict = cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
        if (verdict == SMFIS_CONTINUE)
            verdict = cm_verdict_late(f->session, CTX, CM_STAGE_DATA);
        if (verdict != (holds ? SMFIS_TEMPFAIL : SMFIS_CONTINUE))
            fail_msg("%s, %s", stages[i / 3],
                     parameters[0] ? parameters[0] : "no SIZE");
    }
}

/* A body that was declined is not counted, so its size is not known. */
static void
test_condition_on_the_size_of_a_declined_body_does_not_hold(void **state)
{
    struct fixture *f = *state;
    add_rule(AT_MESSAGE("\"size\":{\"gte\":1}"));
    f->session->terms.headers = f->session->terms.body = true;
    mail_from(f, "<s@example.net>");
    cm_verdict_rcpt(f->session, CTX, "<a@example.com>");
    f->session->msg.content.body_skipped = true;
    assert_int_equal(cm_verdict_late(f->session, CTX, CM_STAGE_MESSAGE),
                     SMFIS_CONTINUE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_conditions_on_the_content),
        CASE(test_condition_on_a_header_of_too_many_does_not_hold),
        CASE(test_condition_on_the_declared_size_before_the_message),
        CASE(test_condition_on_the_size_of_a_declined_body_does_not_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
