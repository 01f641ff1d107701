/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TIMERS_H
#define CM_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What is due when: a binary heap of timers that live inside what they are for,
 * so that the earliest is at hand and any can be taken back at once. For one
 * thread.
 */
struct cm_timer {
    int64_t due_us; /* of cm_clock_mono_us */
    size_t slot;    /* 0: not set; else its place in the heap, from 1 */
};

struct cm_timers {
    struct cm_timer **heap; /* owned */
    size_t n, cap;
};

/* Zeroed timers are ready to use; cm_timers_fini frees the heap, not what is in
 * it. */
void cm_timers_fini(struct cm_timers *timers);

/* cm_timers_reserve - room for n timers set at once, so that setting one cannot
 * fail. false when out of memory. */
bool cm_timers_reserve(struct cm_timers *timers, size_t n);

/* cm_timers_set - the timer must not be set already, and there must be room. */
void cm_timers_set(struct cm_timers *timers, struct cm_timer *timer,
                   int64_t due_us);
/* cm_timers_cancel - also one that is not set. */
void cm_timers_cancel(struct cm_timers *timers, struct cm_timer *timer);

/* cm_timers_first - the earliest, NULL when none is set. */
struct cm_timer *cm_timers_first(const struct cm_timers *timers);

#endif
