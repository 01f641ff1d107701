/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LATE_H
#define CM_LATE_H

#include "milter/filter/attendance.h"
#include "milter/filter/presence.h"
#include "milter/store/incident.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct cm_filter;

/*
 * One answer that is held back: until when, whether the client still waits for
 * it, and the record of it. Zeroed, there is none. For one thread.
 */
struct cm_late {
    bool on;
    int64_t since_us, due_us; /* of cm_clock_mono_us */
    struct cm_presence client;
    int64_t closed_by_ms; /* the client had closed its side; -1: it had not */
    struct cm_incident incident;
    atomic_size_t *count; /* of all that are on; borrowed */
};

/* cm_late_begin - for the incident's asked delay, from now on. */
void cm_late_begin(struct cm_late *late, const struct cm_incident *incident,
                   const struct cm_guest *guest, atomic_size_t *count);

/* cm_late_look - is it due, or has the client gone? Then 0, otherwise in how
 * many microseconds to ask again. Only while it is on. */
int64_t cm_late_look(struct cm_late *late);

/* cm_late_end - record it, with the time that it took; also when there is none.
 * how: why it ended before it was due, NULL when by itself. */
void cm_late_end(struct cm_late *late, struct cm_filter *filter,
                 const char *how);

#endif
