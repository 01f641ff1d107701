/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CLOCK_H
#define CM_CLOCK_H

#include <stdint.h>

/*
 * The two clocks. Deadlines and measured delays use the monotonic one, so that
 * a step of the wall clock neither releases nor prolongs anything; expiresAt
 * and the times in events use the wall clock, because people wrote or read
 * them. Both are thread-safe and cannot fail.
 */
int64_t cm_clock_wall_ms(void); /* milliseconds since the Unix epoch */
int64_t cm_clock_mono_ms(void); /* milliseconds since some fixed point */
int64_t cm_clock_mono_us(void); /* microseconds since the same point */
int64_t cm_clock_mono_ns(void); /* nanoseconds since the same point */

#endif
