/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HISTOGRAM_H
#define CM_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

/*
 * How long things took, as counts per range. Adding is two relaxed atomic adds
 * (the count and the sum), so it may stand in the mail path. Any thread.
 */
#define CM_HISTOGRAM_BOUNDS_MAX 16

struct cm_histogram {
    const int64_t *bounds_ns; /* upper, inclusive, growing; borrowed */
    size_t nbounds;           /* at most CM_HISTOGRAM_BOUNDS_MAX */
    _Atomic uint64_t counts[CM_HISTOGRAM_BOUNDS_MAX + 1]; /* last: beyond */
    _Atomic int64_t sum_ns;
};

/* cm_histogram_init - of n bounds, which must outlive it. */
void cm_histogram_init(struct cm_histogram *histogram, const int64_t *bounds_ns,
                       size_t n);
void cm_histogram_add(struct cm_histogram *histogram, int64_t ns);

/* What it held at one moment: the sum may be of a moment later. */
struct cm_histogram_view {
    size_t nbounds;
    int64_t bounds_ns[CM_HISTOGRAM_BOUNDS_MAX];
    uint64_t counts[CM_HISTOGRAM_BOUNDS_MAX + 1];
    int64_t sum_ns;
};
void cm_histogram_look(const struct cm_histogram *histogram,
                       struct cm_histogram_view *view_r);

#endif
