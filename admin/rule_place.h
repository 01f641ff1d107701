/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULE_PLACE_H
#define CM_RULE_PLACE_H

#include "milter/err.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Room in an ordered list. Each rule has a place, a number, and the list is
 * sorted by it; a rule that is to stand between two others gets a number
 * between theirs. Where there is none, as many neighbours as needed are spread
 * out, and no more: ten thousand rules inserted before the first cost fifty
 * changes each on average, not ten thousand.
 */
#define CM_PLACE_GAP 65536

struct cm_room {
    int64_t place; /* for the new one */
    size_t first;  /* of those that must move; at the same positions as given */
    size_t n;      /* how many must; 0: none */
    int64_t *moved; /* owned: their new places */
};

/*
 * cm_room_make - room before position at (0..n; n: at the end) of a list.
 *
 * places  n of them, ascending; equal ones are allowed
 *
 * room_r is cm_room_fini's after CM_OK. CM_OK or CM_ENOMEM. Pure.
 */
enum cm_status cm_room_make(struct cm_room *room_r, const int64_t *places,
                            size_t n, size_t at) CM_MUST_CHECK;
void cm_room_fini(struct cm_room *room);

#endif
