/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/timers.h"

#include <assert.h>
#include <stdlib.h>

void
cm_timers_fini(struct cm_timers *timers)
{
    free(timers->heap);
    *timers = (struct cm_timers){NULL, 0, 0};
}

bool
cm_timers_reserve(struct cm_timers *timers, size_t n)
{
    if (n <= timers->cap)
        return true;
    size_t cap = timers->cap ? timers->cap : 16;
    while (cap < n)
        cap *= 2;
    struct cm_timer **heap = realloc(timers->heap, cap * sizeof *heap);
    if (!heap)
        return false;
    timers->heap = heap;
    timers->cap = cap;
    return true;
}

/* Slots count from 1: the parent of i is i / 2. */
static void
put(struct cm_timers *timers, size_t slot, struct cm_timer *timer)
{
    timers->heap[slot - 1] = timer;
    timer->slot = slot;
}

static void
rise(struct cm_timers *timers, struct cm_timer *timer)
{
    size_t slot = timer->slot;
    while (slot > 1 && timers->heap[slot / 2 - 1]->due_us > timer->due_us) {
        put(timers, slot, timers->heap[slot / 2 - 1]);
        slot /= 2;
    }
    put(timers, slot, timer);
}

static void
sink(struct cm_timers *timers, struct cm_timer *timer)
{
    size_t slot = timer->slot;
    for (size_t child; (child = slot * 2) <= timers->n; slot = child) {
        if (child < timers->n &&
            timers->heap[child]->due_us < timers->heap[child - 1]->due_us)
            child++;
        if (timers->heap[child - 1]->due_us >= timer->due_us)
            break;
        put(timers, slot, timers->heap[child - 1]);
    }
    put(timers, slot, timer);
}

void
cm_timers_set(struct cm_timers *timers, struct cm_timer *timer, int64_t due_us)
{
    assert(timer->slot == 0 && timers->n < timers->cap);
    timer->due_us = due_us;
    put(timers, ++timers->n, timer);
    rise(timers, timer);
}

void
cm_timers_cancel(struct cm_timers *timers, struct cm_timer *timer)
{
    if (timer->slot == 0)
        return;
    struct cm_timer *last = timers->heap[timers->n - 1];
    timers->n--;
    if (last != timer) {
        put(timers, timer->slot, last);
        rise(timers, last);
        sink(timers, last);
    }
    timer->slot = 0;
}

struct cm_timer *
cm_timers_first(const struct cm_timers *timers)
{
    return timers->n > 0 ? timers->heap[0] : NULL;
}
