/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The manual page of rules against the code: its examples are rules, it names
 * every kind of fault and every condition, and it knows at which stages.
 */
#include "milter/model/rule_json.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char page[64 * 1024];

static int
read_page(void **state)
{
    const char *srcdir = getenv("srcdir");
    char path[4096];
    (void)state;
    snprintf(path, sizeof path, "%s/conf/chaosmilter-rules.5",
             srcdir ? srcdir : ".");
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    size_t n = fread(page, 1, sizeof page - 1, f);
    fclose(f);
    page[n] = '\0';
    return n > 0 && n < sizeof page - 1 ? 0 : -1;
}

/* Takes ownership of doc; out gets the complaints. */
static enum cm_status
compile(json_t *doc, char out[1024])
{
    struct cm_rule rule;
    struct cm_problems problems;
    size_t n = 0;
    assert_non_null(doc);
    cm_problems_init(&problems);
    enum cm_status status = cm_rule_compile(&rule, "r1", doc, 0, &problems);
    if (status == CM_OK)
        cm_rule_fini(&rule);
    out[0] = '\0';
    for (size_t i = 0; i < problems.n && n < 1024; i++)
        n += (size_t)snprintf(out + n, 1024 - n, "%s; ", problems.at[i].text);
    json_decref(doc);
    return status;
}

/* The stages after ".It Cm <name>", without the parentheses. */
static void
stages_in_page(const char *name, char out[256])
{
    char item[64];
    size_t n;
    snprintf(item, sizeof item, "\n.It Cm %s\n(", name);
    const char *at = strstr(page, item);
    if (!at)
        fail_msg("the page has no %s", name);
    at += strlen(item);
    n = strcspn(at, ")");
    assert_true(n < 256);
    memcpy(out, at, n);
    out[n] = '\0';
}

static void
test_page_examples_are_rules(void **state)
{
    static const char begin[] = ".Bd -literal -offset indent\n{", end[] = ".Ed";
    int n = 0;
    (void)state;
    for (const char *at = page; (at = strstr(at, begin)); n++) {
        char problems[1024];
        at += strlen(begin) - 1;
        const char *stop = strstr(at, end);
        assert_non_null(stop);
        json_t *doc = json_loadb(at, (size_t)(stop - at), 0, NULL);
        if (compile(doc, problems) != CM_OK)
            fail_msg("example %d: %s", n, problems);
    }
    assert_true(n >= 5);
}

/* "rcpt, message": the default, then the others in order; "rcpt, or any". */
static void
stages_of(enum cm_fault_kind kind, char out[256])
{
    struct cm_fault fault = {.kind = kind};
    unsigned stages = cm_fault_stages(&fault);
    enum cm_stage first = cm_fault_default_stage(&fault);
    unsigned others = stages & ~CM_STAGE_BIT(first);
    char list[128] = "or any";
    if (stages != CM_STAGES_ALL)
        cm_stage_list(others, list, sizeof list);
    snprintf(out, 256, "%s%s%s", cm_stage_name(first), others ? ", " : "",
             others ? list : "");
}

static void
test_page_knows_where_faults_act(void **state)
{
    (void)state;
    for (int kind = 0; kind < CM_FAULT_COUNT; kind++) {
        char told[256], so[256];
        stages_in_page(cm_fault_name((enum cm_fault_kind)kind), told);
        stages_of((enum cm_fault_kind)kind, so);
        if (strcmp(told, so) != 0)
            fail_msg("%s: %s, not %s", cm_fault_name((enum cm_fault_kind)kind),
                     so, told);
    }
}

static void
test_page_knows_where_conditions_are_known(void **state)
{
    static const struct {
        const char *name, *value;
    } conditions[] = {
        {"inbox", "\"a@x\""},    {"domain", "\"x\""},
        {"sender", "\"<>\""},    {"client", "\"::1\""},
        {"helo", "\"x\""},       {"user", "\"u\""},
        {"mechanism", "\"X\""},  {"header", "{\"A\":\"b\"}"},
        {"size", "{\"gte\":1}"}, {"attempt", "{\"gte\":1}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof conditions / sizeof *conditions; i++) {
        char told[256], problems[1024];
        unsigned known = 0;
        for (int stage = 0; stage < CM_STAGE_COUNT; stage++) {
            char doc[256];
            snprintf(doc, sizeof doc,
                     "{\"%s\":%s,\"stage\":\"%s\",\"fault\":{\"kind\":"
                     "\"error\"}}",
                     conditions[i].name, conditions[i].value,
                     cm_stage_name((enum cm_stage)stage));
            if (compile(json_loads(doc, 0, NULL), problems) == CM_OK)
                known |= CM_STAGE_BIT(stage);
        }
        char so[256];
        cm_stage_list(known, so, sizeof so);
        stages_in_page(conditions[i].name, told);
        if (strcmp(told, so) != 0)
            fail_msg("%s: %s, not %s", conditions[i].name, so, told);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_examples_are_rules),
        cmocka_unit_test(test_page_knows_where_faults_act),
        cmocka_unit_test(test_page_knows_where_conditions_are_known),
    };
    return cmocka_run_group_tests(tests, read_page, NULL);
}
