/* SPDX-License-Identifier: BSD-2-Clause */
/* How long, how much and how likely, as a person types it for chaosctl. */
#include "admin/ctl/quantity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define REFUSED (-1)

static void
test_quantity_duration_needs_a_unit(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"0", 0},
        {"250ms", 250},
        {"1.5s", 1500},
        {"15m", 900000},
        {"2h", 7200000},
        {"7d", 604800000},
        {"366d", 31622400000},
        {"367d", REFUSED},
        {"15", REFUSED},
        {"", REFUSED},
        {"s", REFUSED},
        {"-1s", REFUSED},
        {" 1s", REFUSED},
        {"1 s", REFUSED},
        {"0x10s", REFUSED},
        {"1e3s", REFUSED},
        {"1.2.3s", REFUSED},
        {"infs", REFUSED},
        {"99999999999999999999999999999999999999s", REFUSED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_err err;
        int64_t ms = REFUSED;
        enum cm_status status = cm_quantity_duration(cases[i].text, &ms, &err);
        if (ms != cases[i].ms || (status == CM_OK) != (ms != REFUSED))
            fail_msg("'%s': %lld", cases[i].text, (long long)ms);
        if (status != CM_OK && !strstr(err.msg, cases[i].text))
            fail_msg("'%s' is not quoted: %s", cases[i].text, err.msg);
    }
}

static void
test_quantity_span_takes_one_or_two(void **state)
{
    static const struct {
        const char *text;
        int64_t min_ms, max_ms;
    } cases[] = {
        {"1s..5s", 1000, 5000},        {"3s", 3000, 3000},
        {"0..1m", 0, 60000},           {"5s..1s", REFUSED, REFUSED},
        {"1s..", REFUSED, REFUSED},    {"..1s", REFUSED, REFUSED},
        {"1s...2s", REFUSED, REFUSED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_err err;
        int64_t min_ms = REFUSED, max_ms = REFUSED;
        enum cm_status status =
            cm_quantity_span(cases[i].text, &min_ms, &max_ms, &err);
        if (min_ms != cases[i].min_ms || max_ms != cases[i].max_ms ||
            (status == CM_OK) != (min_ms != REFUSED))
            fail_msg("'%s': %lld..%lld", cases[i].text, (long long)min_ms,
                     (long long)max_ms);
    }
}

static void
test_quantity_share_is_a_part_of_one(void **state)
{
    static const struct {
        const char *text;
        double share;
    } cases[] = {
        {"30%", 0.3},     {"0.3", 0.3},    {"0", 0},          {"1", 1},
        {"100%", 1},      {"0.5%", 0.005}, {"101%", REFUSED}, {"1.1", REFUSED},
        {"-1%", REFUSED}, {"%", REFUSED},  {"30 %", REFUSED}, {"nan", REFUSED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_err err;
        double share = REFUSED;
        enum cm_status status = cm_quantity_share(cases[i].text, &share, &err);
        if (share != cases[i].share || (status == CM_OK) != (share >= 0))
            fail_msg("'%s': %g", cases[i].text, share);
    }
}

static void
test_quantity_bounds_may_be_open(void **state)
{
    static const struct {
        const char *text;
        int64_t gte, lte;
        enum cm_status status;
    } cases[] = {
        {"3", 3, 3, CM_OK},        {"2..5", 2, 5, CM_OK},
        {"2..", 2, 99, CM_OK},     {"..5", -1, 5, CM_OK},
        {"..", -1, 99, CM_EINVAL}, {"5..2", -1, 99, CM_EINVAL},
        {"a", -1, 99, CM_EINVAL},  {"9223372036854775808", -1, 99, CM_EINVAL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_err err;
        int64_t gte = -1, lte = 99;
        enum cm_status status =
            cm_quantity_bounds(cases[i].text, &gte, &lte, &err);
        if (status != cases[i].status || gte != cases[i].gte ||
            lte != cases[i].lte)
            fail_msg("'%s': %lld..%lld", cases[i].text, (long long)gte,
                     (long long)lte);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantity_duration_needs_a_unit),
        cmocka_unit_test(test_quantity_span_takes_one_or_two),
        cmocka_unit_test(test_quantity_share_is_a_part_of_one),
        cmocka_unit_test(test_quantity_bounds_may_be_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
