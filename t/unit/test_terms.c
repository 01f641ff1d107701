/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is asked of an MTA when its connection begins, for the rules of that
 * moment; and what a session can do under the terms it got.
 */
#include "milter/filter/terms.h"
#include "t/unit/verdict_case.h"

#include <string.h>

#define ALL_STEPS   SMFI_CURR_PROT
#define ALL_ACTIONS 0x1ffUL
/* What an armed filter without rules leaves out, bit for bit. */
#define QUIET                                                                  \
    (SMFIP_NOHELO | SMFIP_NOHDRS | SMFIP_NOEOH | SMFIP_NOBODY | SMFIP_NOUNKNOWN)

static unsigned long
agree(struct fixture *f, unsigned long actions, unsigned long steps)
{
    cm_terms_agree(&f->session->terms, &f->filter, &actions, &steps);
    assert_int_equal(f->session->terms.actions, actions);
    return steps;
}

static void
test_agree_without_rules_asks_for_no_content(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(agree(f, ALL_ACTIONS, ALL_STEPS), QUIET);
    assert_int_equal(f->session->terms.actions, cm_terms_actions());
    assert_false(f->session->terms.headers);
    assert_false(f->session->terms.body);
    mock_store_inbox("a@example.com", BLACKHOLE);
    assert_int_equal(agree(f, ALL_ACTIONS, ALL_STEPS), QUIET);
}

static void
test_agree_asks_for_what_a_rule_wants(void **state)
{
    static const struct {
        const char *rule;
        unsigned long wanted; /* taken from QUIET */
        bool skip;
    } cases[] = {
        {"{\"stage\":\"message\",\"header\":{\"X-A\":\"*\"},"
         "\"fault\":{\"kind\":\"error\"}}",
         SMFIP_NOHDRS, false},
        {"{\"fault\":{\"kind\":\"mutate\",\"dropHeader\":\"X-A\"}}",
         SMFIP_NOHDRS, false},
        {"{\"fault\":{\"kind\":\"mutate\",\"truncateBody\":5}}", SMFIP_NOBODY,
         true},
        {"{\"fault\":{\"kind\":\"mutate\",\"flipBits\":5}}", SMFIP_NOBODY,
         true},
        {"{\"stage\":\"message\",\"size\":{\"gte\":1},"
         "\"fault\":{\"kind\":\"error\"}}",
         SMFIP_NOHDRS | SMFIP_NOBODY, true},
        {"{\"stage\":\"rcpt\",\"size\":{\"gte\":1},"
         "\"fault\":{\"kind\":\"error\"}}",
         0, false},
        {"{\"fault\":{\"kind\":\"mutate\",\"addHeader\":{\"X-A\":\"b\"}}}", 0,
         false},
        {"{\"fault\":{\"kind\":\"quarantine\"}}", 0, false},
        {"{\"stage\":\"helo\",\"fault\":{\"kind\":\"error\"}}", SMFIP_NOHELO,
         false},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cm_ruleset_release(&mock_store.rules);
        add_rule(cases[i].rule);
        unsigned long steps = agree(f, ALL_ACTIONS, ALL_STEPS);
        unsigned long expected =
            (QUIET & ~cases[i].wanted) | (cases[i].skip ? SMFIP_SKIP : 0);
        if (steps != expected)
            fail_msg("%s: %lx", cases[i].rule, steps);
        assert_int_equal(f->session->terms.body,
                         (cases[i].wanted & SMFIP_NOBODY) != 0);
        assert_int_equal(f->session->terms.headers,
                         (cases[i].wanted & SMFIP_NOHDRS) != 0);
        f->filter.armed = false;
        agree(f, ALL_ACTIONS, ALL_STEPS);
        assert_false(f->session->terms.body || f->session->terms.headers);
        f->filter.armed = true;
    }
}

/* An MTA that cannot leave an event out tells it, and may know no skipping. */
static void
test_agree_takes_an_old_mta_as_it_is(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(agree(f, SMFIF_DELRCPT | SMFIF_CHGFROM, SMFIP_NOHDRS),
                     SMFIP_NOHDRS);
    assert_int_equal(f->session->terms.actions, SMFIF_DELRCPT);
    assert_true(f->session->terms.body);
    assert_false(f->session->terms.skip);
}

static void
test_lack_names_what_was_not_granted(void **state)
{
    static const struct {
        struct cm_fault fault;
        unsigned long action;
        bool headers, body; /* needed too */
    } cases[] = {
        {{.kind = CM_FAULT_QUARANTINE}, SMFIF_QUARANTINE, false, false},
        {{.kind = CM_FAULT_DUPLICATE}, SMFIF_ADDRCPT, false, false},
        {{.kind = CM_FAULT_MISDELIVER}, SMFIF_ADDRCPT, false, false},
        {{.kind = CM_FAULT_MISDELIVER}, SMFIF_DELRCPT, false, false},
        {{.kind = CM_FAULT_MUTATE, .u.mutate.how = CM_MUTATE_ADD_HEADER},
         SMFIF_ADDHDRS,
         false,
         false},
        {{.kind = CM_FAULT_MUTATE, .u.mutate.how = CM_MUTATE_DROP_HEADER},
         SMFIF_CHGHDRS,
         true,
         false},
        {{.kind = CM_FAULT_MUTATE, .u.mutate.how = CM_MUTATE_TRUNCATE_BODY},
         SMFIF_CHGBODY,
         false,
         true},
        {{.kind = CM_FAULT_MUTATE, .u.mutate.how = CM_MUTATE_FLIP_BITS},
         SMFIF_CHGBODY,
         false,
         true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_terms terms;
        cm_terms_assume(&terms);
        terms.headers = cases[i].headers;
        terms.body = cases[i].body;
        assert_null(cm_terms_lack(&terms, &cases[i].fault));
        terms.actions &= ~cases[i].action;
        assert_non_null(cm_terms_lack(&terms, &cases[i].fault));
        if (!cases[i].headers && !cases[i].body)
            continue;
        cm_terms_assume(&terms);
        assert_non_null(strstr(cm_terms_lack(&terms, &cases[i].fault),
                               "the session began before any rule wanted"));
    }
    struct cm_terms none = {.actions = 0};
    for (int kind = 0; kind < CM_FAULT_QUARANTINE; kind++)
        assert_null(cm_terms_lack(&none, &(struct cm_fault){.kind = kind}));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_agree_without_rules_asks_for_no_content),
        CASE(test_agree_asks_for_what_a_rule_wants),
        CASE(test_agree_takes_an_old_mta_as_it_is),
        CASE(test_lack_names_what_was_not_granted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
