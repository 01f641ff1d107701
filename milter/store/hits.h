/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HITS_H
#define CM_HITS_H

#include "milter/store/incident.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How often each rule acted, counted by the mail path and not told to Redis
 * yet. The names are the fields of the hash <prefix>:st:rules: a rule's name as
 * in an incident ("r7", "inbox:greylist"), followed by " shadow" where it only
 * would have acted. Faults that were due and could not be done are none.
 *
 * So many names are told apart between two flushes; further ones count as
 * "(others)", so memory is bounded and no hit is lost.
 */
#define CM_HITS_MAX        1024
#define CM_HITS_NAME_BYTES (CM_RULE_NAME_BYTES + 8)

struct cm_hit {
    char name[CM_HITS_NAME_BYTES];
    int64_t n;
};

struct cm_hits {
    pthread_mutex_t lock;
    size_t n;                        /* lock */
    struct cm_hit at[CM_HITS_MAX];   /* lock */
    uint16_t slots[2 * CM_HITS_MAX]; /* lock: position + 1 by hash; 0: free */
};

void cm_hits_init(struct cm_hits *hits);
void cm_hits_fini(struct cm_hits *hits);

/* cm_hits_add - count it, if it is a hit; any thread. */
void cm_hits_add(struct cm_hits *hits, const struct cm_incident *incident);

/* cm_hits_take - move what has gathered into hits_r; returns how many names. */
size_t cm_hits_take(struct cm_hits *hits, struct cm_hit hits_r[CM_HITS_MAX]);

#endif
