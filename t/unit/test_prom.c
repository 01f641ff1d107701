/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Metrics as text: labels that came from outside, and histograms. H26.
 */
#include "milter/buf.h"
#include "milter/histogram.h"
#include "milter/prom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

static struct cm_buf buf;

static int
set_up(void **state)
{
    (void)state;
    cm_buf_init(&buf, 65536);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    cm_buf_fini(&buf);
    return 0;
}

static void
test_sample_with_and_without_labels(void **state)
{
    (void)state;
    cm_prom_family(&buf, "a_total", "counter", "How many.");
    cm_prom_sample(&buf, "a_total", NULL, INT64_MAX);
    cm_prom_sample(&buf, "a_total", CM_PROM_LABELS({"x", "1"}), -1);
    cm_prom_sample(&buf, "a_total", CM_PROM_LABELS({"x", "1"}, {"y", ""}), 0);
    cm_prom_seconds(&buf, "b_seconds", NULL, 1500, 1000);
    cm_prom_seconds(&buf, "b_seconds", CM_PROM_LABELS({"x", "2"}),
                    1700000000123, 1000);
    assert_string_equal(buf.data, "# HELP a_total How many.\n"
                                  "# TYPE a_total counter\n"
                                  "a_total 9223372036854775807\n"
                                  "a_total{x=\"1\"} -1\n"
                                  "a_total{x=\"1\",y=\"\"} 0\n"
                                  "b_seconds 1.5\n"
                                  "b_seconds{x=\"2\"} 1700000000.123\n");
}

static void
test_label_cannot_leave_its_quotes(void **state)
{
    (void)state;
    cm_prom_sample(
        &buf, "a",
        CM_PROM_LABELS({"host", "\\\"\n\r\t\x01\x7f\xff\xc3\xbc} 1\na 2"}), 3);
    assert_string_equal(buf.data, "a{host=\"\\\\\\\"\\n????"
                                  "???} 1\\na 2\"} 3\n");
}

static const int64_t bounds[] = {1000, 2000000, 1500000000};

static void
test_histogram_counts_each_into_one_range(void **state)
{
    struct cm_histogram histogram;
    struct cm_histogram_view view;
    (void)state;
    cm_histogram_init(&histogram, bounds, 3);
    static const int64_t values[] = {0,       -5,         1000,      1001,
                                     2000000, 1500000000, 1500000001};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        cm_histogram_add(&histogram, values[i]);
    cm_histogram_look(&histogram, &view);
    assert_int_equal(view.counts[0], 3);
    assert_int_equal(view.counts[1], 2);
    assert_int_equal(view.counts[2], 1);
    assert_int_equal(view.counts[3], 1);
    cm_prom_histogram(&buf, "t_seconds", CM_PROM_LABELS({"h", "x"}), &view);
    assert_string_equal(buf.data, "t_seconds_bucket{h=\"x\",le=\"1e-06\"} 3\n"
                                  "t_seconds_bucket{h=\"x\",le=\"0.002\"} 5\n"
                                  "t_seconds_bucket{h=\"x\",le=\"1.5\"} 6\n"
                                  "t_seconds_bucket{h=\"x\",le=\"+Inf\"} 7\n"
                                  "t_seconds_sum{h=\"x\"} 3.002001997\n"
                                  "t_seconds_count{h=\"x\"} 7\n");
    cm_buf_reset(&buf);
    cm_prom_histogram(&buf, "t", NULL, &view);
    assert_non_null(strstr(buf.data, "t_bucket{le=\"+Inf\"} 7\n"));
    assert_non_null(strstr(buf.data, "\nt_count 7\n"));
}

static void *
add_many(void *arg)
{
    for (int i = 0; i < 100000; i++)
        cm_histogram_add(arg, i % 3 * 1000000);
    return NULL;
}

static void
test_histogram_loses_nothing_under_threads(void **state)
{
    struct cm_histogram histogram;
    struct cm_histogram_view view;
    pthread_t threads[4];
    (void)state;
    cm_histogram_init(&histogram, bounds, 3);
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, add_many, &histogram), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cm_histogram_look(&histogram, &view);
    assert_int_equal(view.counts[0] + view.counts[1], 400000);
    assert_int_equal(view.counts[0], 4 * 33334);
    assert_int_equal(view.sum_ns, 4 * ((int64_t)33333 * 3000000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sample_with_and_without_labels),
        TEST(test_label_cannot_leave_its_quotes),
        TEST(test_histogram_counts_each_into_one_range),
        TEST(test_histogram_loses_nothing_under_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
