/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RFC3339_H
#define CM_RFC3339_H

#include "milter/err.h"

#include <stddef.h>
#include <stdint.h>

/* cm_time_parse - RFC 3339 text as milliseconds since the epoch (leap seconds
 * count as the second after; years 1970..9999). Digits beyond the millisecond
 * are dropped. CM_OK or CM_EINVAL. */
enum cm_status cm_time_parse(const char *text, int64_t *ms_r) CM_MUST_CHECK;

/* cm_time_print - "2026-01-31T12:00:00.000Z" into out; cap >= 25. What lies
 * outside the years 1970..9999 is printed as their first or last moment. */
void cm_time_print(int64_t ms, char *out, size_t cap);

#endif
