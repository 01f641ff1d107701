/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_QUANTITY_H
#define CM_QUANTITY_H

#include "milter/err.h"

#include <stdint.h>

/*
 * The short forms in which a person says how long, how much and how likely.
 * Pure; each returns CM_OK, or CM_EINVAL with a sentence in err that quotes the
 * text. Nothing is written then.
 */

/* cm_quantity_duration - "250ms", "1.5s", "15m", "2h", "7d" as milliseconds,
 * 0..366 days. A number without a unit is refused, save 0: people mean seconds
 * as often as milliseconds. */
enum cm_status cm_quantity_duration(const char *text, int64_t *ms_r,
                                    struct cm_err *err) CM_MUST_CHECK;

/* cm_quantity_span - "1s..5s" as two durations, "3s" as twice the same. */
enum cm_status cm_quantity_span(const char *text, int64_t *min_ms_r,
                                int64_t *max_ms_r,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_quantity_share - "30%" or "0.3", 0..1. */
enum cm_status cm_quantity_share(const char *text, double *share_r,
                                 struct cm_err *err) CM_MUST_CHECK;

/* cm_quantity_count - a decimal number, min..max. */
enum cm_status cm_quantity_count(const char *text, int64_t min, int64_t max,
                                 int64_t *n_r,
                                 struct cm_err *err) CM_MUST_CHECK;

/* cm_quantity_bounds - "3", "2..5", "2..", "..5": the ends that are open keep
 * what they were. */
enum cm_status cm_quantity_bounds(const char *text, int64_t *gte_r,
                                  int64_t *lte_r,
                                  struct cm_err *err) CM_MUST_CHECK;

#endif
