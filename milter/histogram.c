/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counts are kept per range and not cumulated, as Prometheus wants to read
 * them: cumulating is for who reads, four times a minute, and not for a mail.
 * Ranges are found from the lowest up, where nearly all are.
 */
#include "milter/histogram.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

void
cm_histogram_init(struct cm_histogram *histogram, const int64_t *bounds_ns,
                  size_t n)
{
    assert(n <= CM_HISTOGRAM_BOUNDS_MAX);
    memset(histogram, 0, sizeof *histogram);
    histogram->bounds_ns = bounds_ns;
    histogram->nbounds = n;
}

void
cm_histogram_add(struct cm_histogram *histogram, int64_t ns)
{
    size_t at = 0;
    while (at < histogram->nbounds && ns > histogram->bounds_ns[at])
        at++;
    atomic_fetch_add_explicit(&histogram->counts[at], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
}

void
cm_histogram_look(const struct cm_histogram *histogram,
                  struct cm_histogram_view *view_r)
{
    memset(view_r, 0, sizeof *view_r);
    view_r->nbounds = histogram->nbounds;
    for (size_t i = 0; i <= histogram->nbounds; i++) {
        if (i < histogram->nbounds)
            view_r->bounds_ns[i] = histogram->bounds_ns[i];
        view_r->counts[i] = atomic_load(&histogram->counts[i]);
    }
    view_r->sum_ns = atomic_load(&histogram->sum_ns);
}
