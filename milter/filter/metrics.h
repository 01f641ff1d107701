/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FILTER_METRICS_H
#define CM_FILTER_METRICS_H

#include "milter/histogram.h"

#include <stdint.h>

struct cm_buf;
struct cm_filter;

/*
 * What the filter measures of itself, beside what it counts (filter.h) and what
 * became of mails (store/tally.h).
 */
struct cm_metrics {
    int64_t started_ms;              /* wall clock */
    struct cm_histogram decision;    /* on a recipient, or on a message */
    struct cm_histogram delay_error; /* held longer than asked; shorter is 0 */
};

void cm_metrics_init(struct cm_metrics *metrics);

/* cm_metrics_delay - a delay was carried out: asked for, and measured. */
void cm_metrics_delay(struct cm_metrics *metrics, int64_t asked_ms,
                      int64_t measured_ms);

/* cm_metrics_report - append the heartbeat's member `,"histograms":{...}`: by
 * name, each with bounds_ns, counts (one more than bounds) and sum_ns. */
void cm_metrics_report(const struct cm_metrics *metrics, struct cm_buf *json);

/* cm_metrics_page - append all of it in Prometheus's format. Any thread. */
void cm_metrics_page(struct cm_filter *filter, const char *version,
                     struct cm_buf *buf);

#endif
