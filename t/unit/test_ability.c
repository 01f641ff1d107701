/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of what the mail servers can do, against README.md, against the lab
 * tests that it names, and against what the filter goes by.
 */
#include "milter/model/ability.h"
#include "milter/model/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char text[256 * 1024];

/* A file of the sources, whole, in text; false: there is none. */
static bool
read_file(const char *name)
{
    const char *srcdir = getenv("srcdir");
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", srcdir ? srcdir : ".", name);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return n > 0 && n < sizeof text - 1;
}

static void
test_abilities_each_say_yes_partly_or_no(void **state)
{
    size_t n;
    const struct cm_ability *table = cm_abilities(&n);
    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_null(table[i].can[CM_MTA_UNKNOWN]);
        for (int mta = CM_MTA_UNKNOWN + 1; mta < CM_MTA_COUNT; mta++) {
            const char *can = table[i].can[mta];
            if (strcmp(can, "yes") != 0 && strncmp(can, "yes: ", 5) != 0 &&
                strncmp(can, "partly: ", 8) != 0 &&
                strncmp(can, "no: ", 4) != 0)
                fail_msg("%s: %s", table[i].name, can);
        }
    }
}

static void
test_readme_shows_the_table(void **state)
{
    static char want[32 * 1024];
    size_t n, at = 0;
    const struct cm_ability *table = cm_abilities(&n);
    (void)state;
    at += (size_t)snprintf(want, sizeof want,
                           "| | Postfix 3.7 | Sendmail 8.17 | held by |\n"
                           "|---|---|---|---|\n");
    for (size_t i = 0; i < n && at < sizeof want; i++)
        at += (size_t)snprintf(want + at, sizeof want - at,
                               "| %s | %s | %s | `%s` |\n", table[i].what,
                               table[i].can[CM_MTA_POSTFIX],
                               table[i].can[CM_MTA_SENDMAIL], table[i].test);
    assert_true(at < sizeof want - 1);
    assert_true(read_file("README.md"));
    strcat(want, "\n"); /* and nothing more */
    if (!strstr(text, want))
        fail_msg("README.md must have this table:\n%s", want);
}

static void
test_each_row_names_lab_tests_that_exist(void **state)
{
    size_t n;
    const struct cm_ability *table = cm_abilities(&n);
    (void)state;
    for (size_t i = 0; i < n; i++) {
        for (const char *at = table[i].test, *end; at; at = end) {
            char path[128], class[128];
            const char *dot = strchr(at, '.');
            assert_non_null(dot);
            size_t len = strcspn(dot + 1, ",");
            snprintf(path, sizeof path, "t/lab/%.*s.py", (int)(dot - at), at);
            snprintf(class, sizeof class, "\nclass %.*s(", (int)len, dot + 1);
            if (!read_file(path) || !strstr(text, class))
                fail_msg("%s: no %s", table[i].name, at);
            end = dot[1 + len] ? dot + 1 + len + strlen(", ") : NULL;
        }
    }
}

/* What the filter does not even try is a "no" in the table. */
static void
test_cannot_is_what_the_table_says(void **state)
{
    size_t n;
    const struct cm_ability *table = cm_abilities(&n);
    (void)state;
    for (int kind = 0; kind < CM_FAULT_COUNT; kind++) {
        struct cm_fault fault = {.kind = (enum cm_fault_kind)kind};
        enum cm_stage stage = cm_fault_default_stage(&fault);
        for (int mta = CM_MTA_UNKNOWN + 1; mta < CM_MTA_COUNT; mta++)
            for (size_t i = 0; i < n; i++) {
                if (strcmp(table[i].name, cm_fault_name(fault.kind)) != 0)
                    continue;
                const char *why =
                    cm_mta_cannot((enum cm_mta)mta, &fault, stage);
                if ((strncmp(table[i].can[mta], "no", 2) == 0) != !!why)
                    fail_msg("%s on %s: %s", table[i].name,
                             cm_mta_name((enum cm_mta)mta), why ? why : "can");
            }
    }
}

static void
test_cannot_at_connect_on_sendmail_but_421(void **state)
{
    static const struct {
        int code;
        enum cm_stage stage;
        enum cm_mta mta;
        bool can;
    } rows[] = {
        {421, CM_STAGE_CONNECT, CM_MTA_SENDMAIL, true},
        {450, CM_STAGE_CONNECT, CM_MTA_SENDMAIL, false},
        {554, CM_STAGE_CONNECT, CM_MTA_SENDMAIL, false},
        {554, CM_STAGE_HELO, CM_MTA_SENDMAIL, true},
        {554, CM_STAGE_CONNECT, CM_MTA_POSTFIX, true},
        {554, CM_STAGE_CONNECT, CM_MTA_UNKNOWN, true},
    };
    struct cm_fault fault = {.kind = CM_FAULT_ERROR};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *line = "No";
        assert_int_equal(cm_reply_new(&fault.u.error.reply, rows[i].code, NULL,
                                      &line, 1, NULL),
                         CM_OK);
        assert_int_equal(cm_mta_cannot(rows[i].mta, &fault, rows[i].stage) ==
                             NULL,
                         rows[i].can);
        cm_reply_free(&fault.u.error.reply);
    }
    /* One that is drawn may be any. */
    fault.u.error.types = CM_REPLY_TEMPORARY;
    assert_non_null(cm_mta_cannot(CM_MTA_SENDMAIL, &fault, CM_STAGE_CONNECT));
}

static void
test_cannot_at_auth_on_sendmail_but_535_and_latency(void **state)
{
    static const struct {
        int code;
        enum cm_mta mta;
        bool can;
    } rows[] = {
        {535, CM_MTA_SENDMAIL, true},  {534, CM_MTA_SENDMAIL, false},
        {454, CM_MTA_SENDMAIL, false}, {421, CM_MTA_SENDMAIL, false},
        {454, CM_MTA_POSTFIX, true},
    };
    struct cm_fault fault = {.kind = CM_FAULT_ERROR};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *line = "No";
        assert_int_equal(cm_reply_new(&fault.u.error.reply, rows[i].code, NULL,
                                      &line, 1, NULL),
                         CM_OK);
        assert_int_equal(cm_mta_cannot(rows[i].mta, &fault, CM_STAGE_AUTH) ==
                             NULL,
                         rows[i].can);
        cm_reply_free(&fault.u.error.reply);
    }
    fault.u.error.types = CM_REPLY_PERMANENT; /* 550 to 554 */
    assert_non_null(cm_mta_cannot(CM_MTA_SENDMAIL, &fault, CM_STAGE_AUTH));
    fault.kind = CM_FAULT_LATENCY;
    assert_null(cm_mta_cannot(CM_MTA_SENDMAIL, &fault, CM_STAGE_AUTH));
}

static void
test_mta_is_known_by_its_version(void **state)
{
    (void)state;
    assert_int_equal(cm_mta_of("Postfix 3.7.11"), CM_MTA_POSTFIX);
    assert_int_equal(cm_mta_of("8.17.1.9/Debian"), CM_MTA_SENDMAIL);
    assert_int_equal(cm_mta_of("MeTA1"), CM_MTA_UNKNOWN);
    assert_int_equal(cm_mta_of(NULL), CM_MTA_UNKNOWN);
    assert_string_equal(cm_mta_name(CM_MTA_SENDMAIL), "sendmail");
    assert_string_equal(cm_mta_name((enum cm_mta)99), "unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_abilities_each_say_yes_partly_or_no),
        cmocka_unit_test(test_readme_shows_the_table),
        cmocka_unit_test(test_each_row_names_lab_tests_that_exist),
        cmocka_unit_test(test_cannot_is_what_the_table_says),
        cmocka_unit_test(test_cannot_at_connect_on_sendmail_but_421),
        cmocka_unit_test(test_cannot_at_auth_on_sendmail_but_535_and_latency),
        cmocka_unit_test(test_mta_is_known_by_its_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
