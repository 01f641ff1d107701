/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HOOK_HOLD_H
#define CM_HOOK_HOLD_H

#include "milter/filter/attendance.h"
#include "milter/filter/presence.h"
#include "milter/store/incident.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_filter;

/*
 * One command that is answered late: until when, whether its client still waits
 * for it, and the record of it. Zeroed, there is none. For one thread.
 */
struct cm_hook_hold {
    bool on;
    int64_t since_us, due_us; /* of cm_clock_mono_us */
    struct cm_presence client;
    int64_t closed_by_ms; /* the client had closed its side; -1: it had not */
    struct cm_incident incident;
};

/* cm_hook_hold_begin - for the incident's asked delay, from now on. */
void cm_hook_hold_begin(struct cm_hook_hold *hold,
                        const struct cm_incident *incident,
                        const struct cm_guest *guest);

/* cm_hook_hold_is_over - is it due, or has the client gone? Otherwise next_us_r
 * is when to ask again. Only while it is on. */
bool cm_hook_hold_is_over(struct cm_hook_hold *hold, int64_t *next_us_r);

/* cm_hook_hold_end - record it, with the time that it took. how: why it ended
 * before it was due, NULL when by itself. */
void cm_hook_hold_end(struct cm_hook_hold *hold, struct cm_filter *filter,
                      const char *how);

#endif
