/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The classic of list labelling: look at ever wider windows around the gap that
 * is too narrow until one has room enough to leave steps of CM_STEP_MIN, and
 * spread what is in it evenly. Numbers as fractions or texts, which never need
 * that, grow without bound where somebody inserts at one spot for ever.
 */
#include "admin/rule_place.h"

#include <stdlib.h>
#include <string.h>

#define CM_STEP_MIN 64

/* Positions first..end-1 and the new one, between the places low and high. */
struct window {
    size_t first, end;
    int64_t low, step;
};

static int64_t
place_before(const int64_t *places, size_t at)
{
    return at > 0 ? places[at - 1] : 0;
}

/* The window of width positions on either side of at. */
static struct window
look(const int64_t *places, size_t n, size_t at, size_t width)
{
    struct window w = {.first = at > width ? at - width : 0,
                       .end = n - at > width ? at + width : n};
    int64_t count = (int64_t)(w.end - w.first) + 1;
    w.low = place_before(places, w.first);
    w.step = w.end < n ? (places[w.end] - w.low) / (count + 1) : CM_PLACE_GAP;
    return w;
}

static enum cm_status
spread(struct cm_room *room, const struct window *w, size_t at)
{
    size_t n = w->end - w->first;
    room->first = w->first;
    room->n = n;
    room->moved = n > 0 ? calloc(n, sizeof *room->moved) : NULL;
    if (n > 0 && !room->moved)
        return CM_ENOMEM;
    int64_t place = w->low;
    for (size_t i = w->first; i <= w->end; i++) {
        place += w->step;
        if (i == at) {
            room->place = place;
            place += w->step;
        }
        if (i < w->end)
            room->moved[i - w->first] = place;
    }
    return CM_OK;
}

enum cm_status
cm_room_make(struct cm_room *room_r, const int64_t *places, size_t n, size_t at)
{
    int64_t low = place_before(places, at);
    memset(room_r, 0, sizeof *room_r);
    if (at == n) {
        room_r->place = low + CM_PLACE_GAP;
        return CM_OK;
    }
    if (places[at] - low >= 2) {
        room_r->place = low + (places[at] - low) / 2;
        return CM_OK;
    }
    struct window w = {0};
    size_t width = 1;
    do {
        w = look(places, n, at, width);
        width *= 2;
    } while (w.step < CM_STEP_MIN && (w.first > 0 || w.end < n));
    if (w.first == 0 && w.end == n)
        w.step = CM_PLACE_GAP;
    return spread(room_r, &w, at);
}

void
cm_room_fini(struct cm_room *room)
{
    free(room->moved);
    memset(room, 0, sizeof *room);
}
