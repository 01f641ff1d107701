/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Known answers: xoshiro256** from state 1,2,3,4 as its authors' code gives
 * them; the seeded coin from another HMAC-SHA256 (Python's hmac module) over
 * the bytes that coin.c describes. Uniformity by chi-square with fixed seeds,
 * so a run that passes once passes always.
 */
#include "milter/model/coin.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static const struct {
    const char *name;
    double probability;
    uint32_t ppb;
} probabilities[] = {
    {"M29 zero", 0.0, CM_COIN_NEVER},
    {"M29 minus zero", -0.0, CM_COIN_NEVER},
    {"M29 one", 1.0, CM_COIN_ALWAYS},
    {"M29 1e-9", 1e-9, 1},
    {"M29 1e-300 is more than never", 1e-300, 1},
    {"M29 0.9999999999 is less than always", 0.9999999999, CM_COIN_ALWAYS - 1},
    {"half", 0.5, 500000000},
    {"a tenth", 0.1, 100000000},
    {"a third", 1.0 / 3, 333333333},
    {"below", -1.0, CM_COIN_NEVER},
    {"above", 1.0000001, CM_COIN_ALWAYS},
    {"infinite", INFINITY, CM_COIN_ALWAYS},
    {"not a number", NAN, CM_COIN_NEVER},
};

static void
test_coin_ppb_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof probabilities / sizeof *probabilities; i++) {
        uint32_t ppb = cm_coin_ppb(probabilities[i].probability);
        if (ppb != probabilities[i].ppb)
            fail_msg("%s: %u", probabilities[i].name, ppb);
    }
}

static void
test_coin_toss_is_exact_at_the_ends(void **state)
{
    static const uint64_t draws[] = {0, 1, UINT64_MAX / 2, UINT64_MAX - 1,
                                     UINT64_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof draws / sizeof *draws; i++) {
        assert_false(cm_coin_toss(draws[i], CM_COIN_NEVER));
        assert_true(cm_coin_toss(draws[i], CM_COIN_ALWAYS));
    }
    /* 1e-9 is the first 2^64 / 10^9 = 18446744073.7 draws. */
    assert_true(cm_coin_toss(0, 1));
    assert_true(cm_coin_toss(18446744073u, 1));
    assert_false(cm_coin_toss(18446744074u, 1));
    assert_false(cm_coin_toss(UINT64_MAX, CM_COIN_ALWAYS - 1));
    assert_true(cm_coin_toss(UINT64_MAX - 18446744074u, CM_COIN_ALWAYS - 1));
}

static void
test_coin_toss_million_draws_keep_the_rate(void **state)
{
    static const double rates[] = {0.001, 0.1, 0.3, 0.5, 0.999};
    (void)state;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct cm_coin coin;
        const int n = 1000000;
        int heads = 0;
        cm_coin_init(&coin, 29, i);
        for (int k = 0; k < n; k++)
            heads += cm_coin_toss(cm_coin_draw(&coin), cm_coin_ppb(rates[i]));
        double sd = sqrt(n * rates[i] * (1 - rates[i]));
        if (fabs(heads - n * rates[i]) > 4 * sd)
            fail_msg("rate %g: %d heads", rates[i], heads);
    }
}

static void
test_coin_between_stays_in_range(void **state)
{
    (void)state;
    assert_int_equal(cm_coin_between(0, 500, 10000), 500);
    assert_int_equal(cm_coin_between(UINT64_MAX, 500, 10000), 10000);
    assert_int_equal(cm_coin_between(UINT64_MAX, 7, 7), 7);
    assert_int_equal(cm_coin_between(0, 9, 3), 3);
    assert_int_equal(cm_coin_between(0, -2, 2), -2);
    assert_int_equal(cm_coin_between(UINT64_MAX, -2, 2), 2);
    assert_true(cm_coin_between(0, INT64_MIN, INT64_MAX) == INT64_MIN);
    assert_true(cm_coin_between(UINT64_MAX, INT64_MIN, INT64_MAX) == INT64_MAX);
}

/* Chi-square with 99 degrees of freedom: 148.2 is its 0.999 quantile. */
static double
chi_square(const int count[100], double expected)
{
    double sum = 0;
    for (int i = 0; i < 100; i++)
        sum += (count[i] - expected) * (count[i] - expected) / expected;
    return sum;
}

static void
test_coin_between_is_uniform(void **state)
{
    struct cm_coin coin;
    int count[100] = {0};
    (void)state;
    cm_coin_init(&coin, 1, 2);
    for (int i = 0; i < 1000000; i++)
        count[cm_coin_between(cm_coin_draw(&coin), 0, 99)]++;
    double chi = chi_square(count, 10000);
    if (chi > 148.2 || chi < 60)
        fail_msg("chi-square %f", chi);
}

static void
test_coin_seeded_is_uniform_over_occurrences(void **state)
{
    int count[100] = {0};
    (void)state;
    for (uint64_t i = 1; i <= 100000; i++) {
        uint64_t draw;
        assert_true(
            cm_coin_seeded(42, "r7", "a@x", "b@y", i, CM_COIN_FIRES, &draw));
        count[cm_coin_between(draw, 0, 99)]++;
    }
    double chi = chi_square(count, 1000);
    if (chi > 148.2 || chi < 60)
        fail_msg("chi-square %f", chi);
}

static void
test_coin_draw_known_answers(void **state)
{
    struct cm_coin coin = {{1, 2, 3, 4}};
    (void)state;
    assert_true(cm_coin_draw(&coin) == 11520);
    assert_true(cm_coin_draw(&coin) == 0);
    assert_true(cm_coin_draw(&coin) == 1509978240);
    assert_true(cm_coin_draw(&coin) == 1215971899390074240);
}

static void
test_coin_init_same_seed_same_draws_other_stream_others(void **state)
{
    struct cm_coin coin;
    (void)state;
    cm_coin_init(&coin, 1, 0);
    assert_true(cm_coin_draw(&coin) == 0xee127fe613436e33u);
    assert_true(cm_coin_draw(&coin) == 0xd6dad8d34a1874eau);
    cm_coin_init(&coin, 1, 1);
    assert_true(cm_coin_draw(&coin) == 0x309714ec38d33b4cu);
    cm_coin_init(&coin, 1, 0);
    assert_true(cm_coin_draw(&coin) == 0xee127fe613436e33u);
}

static void
test_coin_seeded_known_answers(void **state)
{
    uint64_t draw = 0;
    (void)state;
    assert_true(
        cm_coin_seeded(42, "r7", "a@x", "b@y", 1, CM_COIN_FIRES, &draw));
    assert_true(draw == 0xa46a7eb70362055au);
    assert_true(cm_coin_seeded(0, "", "", "", 0, CM_COIN_REPLY, &draw));
    assert_true(draw == 0xb4b727fabf75711cu);
    assert_true(cm_coin_seeded(UINT64_MAX, "inbox:latency", "",
                               "user@example.com", 12345678901, CM_COIN_DELAY,
                               &draw));
    assert_true(draw == 0x646fa89ce7ba6c35u);
}

static void
test_coin_seeded_every_part_counts(void **state)
{
    static const struct {
        const char *name;
        uint64_t seed;
        const char *rule, *sender, *recipient;
        uint64_t occurrence;
        enum cm_coin_purpose purpose;
    } fates[] = {
        {"base", 1, "r", "ab", "c", 1, CM_COIN_FIRES},
        {"seed", 2, "r", "ab", "c", 1, CM_COIN_FIRES},
        {"rule", 1, "s", "ab", "c", 1, CM_COIN_FIRES},
        {"border between texts", 1, "r", "a", "bc", 1, CM_COIN_FIRES},
        {"texts swapped", 1, "r", "c", "ab", 1, CM_COIN_FIRES},
        {"occurrence", 1, "r", "ab", "c", 2, CM_COIN_FIRES},
        {"purpose", 1, "r", "ab", "c", 1, CM_COIN_DELAY},
        {"other purpose", 1, "r", "ab", "c", 1, CM_COIN_DELAY2},
    };
    enum { N = sizeof fates / sizeof *fates };
    uint64_t draws[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        assert_true(cm_coin_seeded(
            fates[i].seed, fates[i].rule, fates[i].sender, fates[i].recipient,
            fates[i].occurrence, fates[i].purpose, &draws[i]));
        for (size_t j = 0; j < i; j++) {
            if (draws[i] == draws[j])
                fail_msg("%s: the same as %s", fates[i].name, fates[j].name);
        }
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coin_ppb_table),
        cmocka_unit_test(test_coin_toss_is_exact_at_the_ends),
        cmocka_unit_test(test_coin_toss_million_draws_keep_the_rate),
        cmocka_unit_test(test_coin_between_stays_in_range),
        cmocka_unit_test(test_coin_between_is_uniform),
        cmocka_unit_test(test_coin_seeded_is_uniform_over_occurrences),
        cmocka_unit_test(test_coin_draw_known_answers),
        cmocka_unit_test(
            test_coin_init_same_seed_same_draws_other_stream_others),
        cmocka_unit_test(test_coin_seeded_known_answers),
        cmocka_unit_test(test_coin_seeded_every_part_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
