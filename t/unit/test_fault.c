/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/model/fault.h"
#include "milter/model/mta.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum cm_fault_kind kind;
    const char *stages, *default_stage;
} kinds[] = {
    {"error", CM_FAULT_ERROR,
     "connect, helo, starttls, auth, mail, rcpt, data, message, noop, rset, "
     "vrfy, quit",
     "rcpt"},
    {"latency", CM_FAULT_LATENCY,
     "connect, helo, starttls, auth, mail, rcpt, data, message, noop, rset, "
     "vrfy, quit",
     "rcpt"},
    {"drop", CM_FAULT_DROP, "mail, rcpt, data, message", "message"},
    {"greylist", CM_FAULT_GREYLIST, "rcpt, message", "rcpt"},
    {"blackhole", CM_FAULT_BLACKHOLE, "message", "message"},
    {"throttle", CM_FAULT_THROTTLE, "mail, rcpt, message", "rcpt"},
    {"sequence", CM_FAULT_SEQUENCE, "rcpt, message", "rcpt"},
    {"quarantine", CM_FAULT_QUARANTINE, "message", "message"},
    {"duplicate", CM_FAULT_DUPLICATE, "message", "message"},
    {"misdeliver", CM_FAULT_MISDELIVER, "message", "message"},
    {"mutate", CM_FAULT_MUTATE, "message", "message"},
    {"hide", CM_FAULT_HIDE, "helo", "helo"},
};

static void
test_fault_kinds_table(void **state)
{
    (void)state;
    assert_int_equal(sizeof kinds / sizeof *kinds, CM_FAULT_COUNT);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct cm_fault fault = {.kind = kinds[i].kind};
        enum cm_fault_kind kind;
        char list[128];
        cm_stage_list(cm_fault_stages(&fault), list, sizeof list);
        if (strcmp(cm_fault_name(kinds[i].kind), kinds[i].name) != 0 ||
            cm_fault_parse_kind(kinds[i].name, &kind) != CM_OK ||
            kind != kinds[i].kind || strcmp(list, kinds[i].stages) != 0 ||
            strcmp(cm_stage_name(cm_fault_default_stage(&fault)),
                   kinds[i].default_stage) != 0)
            fail_msg("%s: %s", kinds[i].name, list);
    }
}

static void
test_fault_parse_kind_unknown_is_not_found(void **state)
{
    enum cm_fault_kind kind = CM_FAULT_DROP;
    (void)state;
    assert_int_equal(cm_fault_parse_kind("Error", &kind), CM_NOTFOUND);
    assert_int_equal(cm_fault_parse_kind("", &kind), CM_NOTFOUND);
    assert_int_equal(kind, CM_FAULT_DROP);
    assert_string_equal(cm_fault_name(CM_FAULT_COUNT), "unknown");
}

static void
test_stage_parse_takes_any_case(void **state)
{
    enum cm_stage stage;
    (void)state;
    assert_int_equal(cm_stage_parse("RCPT", &stage), CM_OK);
    assert_int_equal(stage, CM_STAGE_RCPT);
    assert_int_equal(cm_stage_parse("quit", &stage), CM_OK);
    assert_int_equal(stage, CM_STAGE_QUIT);
    assert_int_equal(cm_stage_parse("rcp", &stage), CM_NOTFOUND);
    assert_int_equal(cm_stage_parse("rcptx", &stage), CM_NOTFOUND);
    assert_string_equal(cm_stage_name(CM_STAGE_COUNT), "unknown");
}

static void
test_fault_stages_ack_lost_only_at_message(void **state)
{
    struct cm_fault fault = {
        .kind = CM_FAULT_DROP,
        .u.drop = {CM_DROP_RST, CM_DROP_ACK_LOST},
    };
    (void)state;
    assert_int_equal(cm_fault_stages(&fault), CM_STAGE_BIT(CM_STAGE_MESSAGE));
}

static void
test_fault_stages_sequence_follows_its_steps(void **state)
{
    struct cm_fault steps[] = {{.kind = CM_FAULT_COUNT},
                               {.kind = CM_FAULT_ERROR},
                               {.kind = CM_FAULT_BLACKHOLE}};
    struct cm_fault fault = {
        .kind = CM_FAULT_SEQUENCE,
        .u.sequence = {.steps = steps, .nsteps = 2},
    };
    (void)state;
    assert_int_equal(cm_fault_stages(&fault),
                     CM_STAGE_BIT(CM_STAGE_RCPT) |
                         CM_STAGE_BIT(CM_STAGE_MESSAGE));
    fault.u.sequence.nsteps = 3;
    assert_int_equal(cm_fault_stages(&fault), CM_STAGE_BIT(CM_STAGE_MESSAGE));
    assert_int_equal(cm_fault_default_stage(&fault), CM_STAGE_MESSAGE);
}

static void
test_fault_stages_limit_is_of_one_stage(void **state)
{
    struct cm_fault fault = {
        .kind = CM_FAULT_LATENCY,
        .u.latency.stages = CM_STAGE_BIT(CM_STAGE_DATA),
    };
    (void)state;
    assert_int_equal(cm_fault_stages(&fault), CM_STAGE_BIT(CM_STAGE_DATA));
    assert_int_equal(cm_fault_default_stage(&fault), CM_STAGE_DATA);
}

/* "e" an error, "l" a latency, "-" ok: what attempts 1 to 8 meet. */
static const struct {
    const char *name, *steps;
    bool repeat;
    const char *met;
} sequences[] = {
    {"two, then ok", "el", false, "el------"},
    {"two, over and over", "el", true, "elelelel"},
    {"one, then ok", "e", false, "e-------"},
    {"one, for ever", "e", true, "eeeeeeee"},
    {"ok in between", "e-l", false, "e-l-----"},
    {"ok in between, over and over", "e-l", true, "e-le-le-"},
    {"nothing but ok", "-", true, "--------"},
};

static void
test_fault_step_table(void **state)
{
    struct cm_fault steps[3];
    (void)state;
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) {
        struct cm_fault_sequence sequence = {
            .steps = steps,
            .nsteps = strlen(sequences[i].steps),
            .repeat = sequences[i].repeat,
        };
        char met[9] = "";
        for (size_t k = 0; k < sequence.nsteps; k++) {
            char c = sequences[i].steps[k];
            steps[k].kind = c == 'e'   ? CM_FAULT_ERROR
                            : c == 'l' ? CM_FAULT_LATENCY
                                       : CM_FAULT_COUNT;
        }
        for (int n = 1; n <= 8; n++) {
            const struct cm_fault *step = cm_fault_step(&sequence, n);
            met[n - 1] = !step                            ? '-'
                         : step->kind == CM_FAULT_ERROR   ? 'e'
                         : step->kind == CM_FAULT_LATENCY ? 'l'
                                                          : '?';
        }
        if (strcmp(met, sequences[i].met) != 0)
            fail_msg("%s: %s", sequences[i].name, met);
    }
}

static void
test_fault_step_of_any_attempt(void **state)
{
    struct cm_fault steps[] = {{.kind = CM_FAULT_ERROR},
                               {.kind = CM_FAULT_DROP},
                               {.kind = CM_FAULT_LATENCY}};
    struct cm_fault_sequence sequence = {
        .steps = steps, .nsteps = 3, .repeat = true};
    (void)state;
    /* 2^63 - 1 is 3 x 3074457345618258602 + 1. */
    assert_ptr_equal(cm_fault_step(&sequence, INT64_MAX), &steps[0]);
    assert_ptr_equal(cm_fault_step(&sequence, INT64_MAX - 1), &steps[2]);
    sequence.repeat = false;
    assert_null(cm_fault_step(&sequence, INT64_MAX));
    assert_ptr_equal(cm_fault_step(&sequence, 3), &steps[2]);
    assert_null(cm_fault_step(&sequence, 4));
}

static void
test_fault_delay_fixed_and_uniform(void **state)
{
    struct cm_fault_latency fixed = {.kind = CM_DELAY_FIXED, .max_ms = 1234};
    struct cm_fault_latency uniform = {
        .kind = CM_DELAY_UNIFORM, .min_ms = 100, .max_ms = 199};
    (void)state;
    assert_int_equal(cm_fault_delay(&fixed, 77, 88), 1234);
    assert_int_equal(cm_fault_delay(&uniform, 0, 0), 100);
    assert_int_equal(cm_fault_delay(&uniform, UINT64_MAX, 0), 199);
    assert_int_equal(cm_fault_delay(&uniform, UINT64_MAX / 2, 0), 149);
}

static int
compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The quantiles of the drawn delays against those of the distribution: for the
 * standard normal 0.1587, 0.5 and 0.8413 lie at -1, 0 and 1. */
static void
test_fault_delay_lognormal_has_its_quantiles(void **state)
{
    enum { N = 100000 };
    struct cm_fault_latency latency = {
        .kind = CM_DELAY_LOGNORMAL, .median_ms = 1000, .sigma = 0.5};
    struct cm_coin coin;
    int64_t *ms = calloc(N, sizeof *ms);
    (void)state;
    assert_non_null(ms);
    cm_coin_init(&coin, 3, 4);
    for (int i = 0; i < N; i++) {
        uint64_t first = cm_coin_draw(&coin);
        ms[i] = cm_fault_delay(&latency, first, cm_coin_draw(&coin));
    }
    qsort(ms, N, sizeof *ms, compare);
    assert_true(fabs((double)ms[15870] - 1000 * exp(-0.5)) < 15);
    assert_true(fabs((double)ms[50000] - 1000) < 15);
    assert_true(fabs((double)ms[84130] - 1000 * exp(0.5)) < 30);
    free(ms);
}

static void
test_fault_delay_lognormal_is_cut(void **state)
{
    static const uint64_t draws[] = {0, 1, UINT64_MAX / 4, UINT64_MAX / 2,
                                     UINT64_MAX};
    struct cm_fault_latency latency = {
        .kind = CM_DELAY_LOGNORMAL, .median_ms = 60000, .sigma = 1000};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 5; j++)
            assert_in_range(cm_fault_delay(&latency, draws[i], draws[j]), 0,
                            CM_FAULT_DELAY_MAX_MS);
    }
    latency.sigma = 0;
    latency.median_ms = 250;
    assert_int_equal(cm_fault_delay(&latency, 5, 6), 250);
}

static void
test_fault_fini_zeroed_and_twice(void **state)
{
    struct cm_fault fault = {.kind = CM_FAULT_ERROR};
    (void)state;
    cm_fault_fini(&fault);
    fault.kind = CM_FAULT_QUARANTINE;
    fault.u.quarantine_reason = strdup("why");
    cm_fault_fini(&fault);
    cm_fault_fini(&fault);
    assert_null(fault.u.quarantine_reason);
}

static void
test_mta_commands_only_temporary_since_postfix_3_10(void **state)
{
    static const struct {
        const char *version;
        bool only;
    } cases[] = {
        {"Postfix 3.7.11", false},
        {"Postfix 3.9.14", false},
        {"Postfix 3.10.0", true},
        {"Postfix 3.11-20250101", true},
        {"Postfix 4.0.0", true},
        {"Postfix 2.11.3", false},
        {"8.17.1.9/Debian", false},
        {"Postfix", false},
        {NULL, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (cm_mta_commands_only_temporary(cases[i].version) != cases[i].only)
            fail_msg("%s", cases[i].version);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fault_kinds_table),
        cmocka_unit_test(test_fault_parse_kind_unknown_is_not_found),
        cmocka_unit_test(test_stage_parse_takes_any_case),
        cmocka_unit_test(test_fault_stages_ack_lost_only_at_message),
        cmocka_unit_test(test_fault_stages_sequence_follows_its_steps),
        cmocka_unit_test(test_fault_step_table),
        cmocka_unit_test(test_fault_step_of_any_attempt),
        cmocka_unit_test(test_fault_stages_limit_is_of_one_stage),
        cmocka_unit_test(test_fault_delay_fixed_and_uniform),
        cmocka_unit_test(test_fault_delay_lognormal_has_its_quantiles),
        cmocka_unit_test(test_fault_delay_lognormal_is_cut),
        cmocka_unit_test(test_fault_fini_zeroed_and_twice),
        cmocka_unit_test(test_mta_commands_only_temporary_since_postfix_3_10),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
