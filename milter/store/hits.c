/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/hits.h"
#include "milter/store/hash.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char others[] = "(others)";

void
cm_hits_init(struct cm_hits *hits)
{
    memset(hits, 0, sizeof *hits);
    pthread_mutex_init(&hits->lock, NULL);
}

void
cm_hits_fini(struct cm_hits *hits)
{
    pthread_mutex_destroy(&hits->lock);
}

/* Counts under this name; false: it is new, and there is no more room. The last
 * place is kept for the others. */
static bool
count(struct cm_hits *hits, const char *name, size_t room)
{
    const size_t mask = sizeof hits->slots / sizeof *hits->slots - 1;
    size_t slot = cm_hash(name, strlen(name), 0) & mask;
    while (hits->slots[slot] != 0 &&
           strcmp(hits->at[hits->slots[slot] - 1].name, name) != 0)
        slot = (slot + 1) & mask;
    if (hits->slots[slot] == 0) {
        if (hits->n >= room)
            return false;
        struct cm_hit *hit = &hits->at[hits->n++];
        snprintf(hit->name, sizeof hit->name, "%s", name);
        hit->n = 0;
        hits->slots[slot] = (uint16_t)hits->n;
    }
    hits->at[hits->slots[slot] - 1].n++;
    return true;
}

void
cm_hits_add(struct cm_hits *hits, const struct cm_incident *incident)
{
    char name[CM_HITS_NAME_BYTES];
    bool shadow = incident->outcome == CM_INCIDENT_SHADOW;
    if (!shadow && incident->outcome != CM_INCIDENT_APPLIED)
        return;
    snprintf(name, sizeof name, "%s%s", incident->rule,
             shadow ? " shadow" : "");
    pthread_mutex_lock(&hits->lock);
    if (!count(hits, name, CM_HITS_MAX - 1))
        (void)count(hits, others, CM_HITS_MAX);
    pthread_mutex_unlock(&hits->lock);
}

size_t
cm_hits_take(struct cm_hits *hits, struct cm_hit hits_r[CM_HITS_MAX])
{
    pthread_mutex_lock(&hits->lock);
    size_t n = hits->n;
    if (n > 0) {
        memcpy(hits_r, hits->at, n * sizeof *hits_r);
        memset(hits->slots, 0, sizeof hits->slots);
        hits->n = 0;
    }
    pthread_mutex_unlock(&hits->lock);
    return n;
}
