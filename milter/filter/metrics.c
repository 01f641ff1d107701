/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bounds: most verdicts are there in microseconds; one that waits for Redis
 * takes up to its deadline, and a cut connection up to the dropper's. Delays
 * are measured in whole milliseconds, so the first bound holds the exact ones.
 */
#include "milter/filter/metrics.h"
#include "milter/buf.h"
#include "milter/clock.h"

#include <inttypes.h>

#define US(n) ((int64_t)(n)*1000)
#define MS(n) ((int64_t)(n)*1000000)

static const int64_t decision_bounds[] = {
    US(1), US(5), US(10), US(25), US(50), US(100), US(250), US(500),
    MS(1), MS(5), MS(10), MS(25), MS(50), MS(100), MS(250), MS(1000)};
static const int64_t delay_error_bounds[] = {
    MS(1), MS(2), MS(5), MS(10), MS(25), MS(50), MS(100), MS(250), MS(1000)};

void
cm_metrics_init(struct cm_metrics *metrics)
{
    metrics->started_ms = cm_clock_wall_ms();
    cm_histogram_init(&metrics->decision, decision_bounds,
                      sizeof decision_bounds / sizeof decision_bounds[0]);
    cm_histogram_init(&metrics->delay_error, delay_error_bounds,
                      sizeof delay_error_bounds / sizeof delay_error_bounds[0]);
}

void
cm_metrics_delay(struct cm_metrics *metrics, int64_t asked_ms,
                 int64_t measured_ms)
{
    int64_t error_ms = measured_ms > asked_ms ? measured_ms - asked_ms : 0;
    cm_histogram_add(&metrics->delay_error, MS(error_ms));
}

static void
report(struct cm_buf *json, const char *name,
       const struct cm_histogram *histogram)
{
    struct cm_histogram_view view;
    cm_histogram_look(histogram, &view);
    cm_buf_printf(json, "\"%s\":{\"bounds_ns\":[", name);
    for (size_t i = 0; i < view.nbounds; i++)
        cm_buf_printf(json, "%s%" PRId64, i ? "," : "", view.bounds_ns[i]);
    cm_buf_puts(json, "],\"counts\":[");
    for (size_t i = 0; i <= view.nbounds; i++)
        cm_buf_printf(json, "%s%" PRIu64, i ? "," : "", view.counts[i]);
    cm_buf_printf(json, "],\"sum_ns\":%" PRId64 "}", view.sum_ns);
}

void
cm_metrics_report(const struct cm_metrics *metrics, struct cm_buf *json)
{
    cm_buf_puts(json, ",\"histograms\":{");
    report(json, "decision_seconds", &metrics->decision);
    cm_buf_puts(json, ",");
    report(json, "delay_error_seconds", &metrics->delay_error);
    cm_buf_puts(json, "}");
}
