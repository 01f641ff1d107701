/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chained buckets: an open-addressed table of pointers was no smaller at the
 * fill it needs, and deletion is simple here. Hashes are not kept; growing a
 * stripe computes them again. A stripe that cannot grow for want of memory goes
 * on with longer chains.
 */
#include "milter/store/map.h"
#include "milter/store/hash.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CM_MAP_STRIPES  256u /* a power of two */
#define CM_MAP_FIRST    4u   /* buckets of a new stripe */
#define CM_MAP_STRIPE_0 56   /* the stripe is the hash's highest 8 bits */

struct stripe {
    pthread_rwlock_t lock;
    struct cm_map_entry **buckets; /* NULL while empty */
    size_t nbuckets, nentries;
};

struct cm_map {
    uint64_t seed;
    cm_map_free_value *free_value;
    void *arg;
    atomic_size_t count;
    _Atomic uint64_t digest;
    struct stripe stripes[CM_MAP_STRIPES];
};

enum cm_status
cm_map_new(struct cm_map **map_r, uint64_t seed, cm_map_free_value *free_value,
           void *arg)
{
    struct cm_map *map = calloc(1, sizeof *map);
    if (!map)
        return CM_ENOMEM;
    map->seed = seed;
    map->free_value = free_value;
    map->arg = arg;
    for (size_t i = 0; i < CM_MAP_STRIPES; i++)
        pthread_rwlock_init(&map->stripes[i].lock, NULL);
    *map_r = map;
    return CM_OK;
}

void
cm_map_free(struct cm_map **map_p)
{
    struct cm_map *map = *map_p;
    if (!map)
        return;
    for (size_t i = 0; i < CM_MAP_STRIPES; i++) {
        struct stripe *stripe = &map->stripes[i];
        for (size_t b = 0; b < stripe->nbuckets; b++) {
            struct cm_map_entry *next;
            for (struct cm_map_entry *at = stripe->buckets[b]; at; at = next) {
                next = at->next;
                map->free_value(map->arg, at->value);
                free(at);
            }
        }
        free(stripe->buckets);
        pthread_rwlock_destroy(&stripe->lock);
    }
    free(map);
    *map_p = NULL;
}

static struct stripe *
stripe_of(struct cm_map *map, uint64_t hash)
{
    return &map->stripes[hash >> CM_MAP_STRIPE_0];
}

/* Where the pointer to the entry is, or would be; NULL without buckets. */
static struct cm_map_entry **
find(struct stripe *stripe, uint64_t hash, const char *key, size_t len)
{
    if (!stripe->buckets)
        return NULL;
    struct cm_map_entry **at = &stripe->buckets[hash & (stripe->nbuckets - 1)];
    while (*at && ((*at)->key_len != len || memcmp((*at)->key, key, len) != 0))
        at = &(*at)->next;
    return at;
}

/* With the write lock held. False only when there is no bucket at all. */
static bool
grow(struct cm_map *map, struct stripe *stripe)
{
    size_t nbuckets = stripe->nbuckets ? stripe->nbuckets * 2 : CM_MAP_FIRST;
    struct cm_map_entry **buckets = calloc(nbuckets, sizeof *buckets);
    if (!buckets)
        return stripe->buckets != NULL;
    for (size_t b = 0; b < stripe->nbuckets; b++) {
        struct cm_map_entry *next;
        for (struct cm_map_entry *at = stripe->buckets[b]; at; at = next) {
            next = at->next;
            uint64_t hash = cm_hash(at->key, at->key_len, map->seed);
            at->next = buckets[hash & (nbuckets - 1)];
            buckets[hash & (nbuckets - 1)] = at;
        }
    }
    free(stripe->buckets);
    stripe->buckets = buckets;
    stripe->nbuckets = nbuckets;
    return true;
}

static uint64_t
entry_digest(uint64_t hash, int64_t rev, int64_t seq)
{
    return cm_hash_mix(cm_hash_mix(hash + (uint64_t)rev * 0x9e3779b97f4a7c15u) +
                       (uint64_t)seq);
}

static struct cm_map_entry *
entry_new(const char *key, size_t len)
{
    struct cm_map_entry *entry = malloc(sizeof *entry + len + 1);
    if (!entry)
        return NULL;
    entry->key_len = (uint16_t)len;
    memcpy(entry->key, key, len);
    entry->key[len] = '\0';
    return entry;
}

enum cm_status
cm_map_put(struct cm_map *map, const char *key, size_t len, int64_t rev,
           int64_t seq, void *value)
{
    uint64_t hash = cm_hash(key, len, map->seed);
    struct stripe *stripe = stripe_of(map, hash);
    void *old_value = NULL;
    if (len > CM_MAP_KEY_MAX)
        return CM_ENOMEM;
    /* Only the writer changes the stripe, and that is us: no lock to look. */
    struct cm_map_entry **at = find(stripe, hash, key, len);
    struct cm_map_entry *entry = at ? *at : NULL;
    bool is_new = !entry;
    if (is_new && !(entry = entry_new(key, len)))
        return CM_ENOMEM;
    uint64_t change = entry_digest(hash, rev, seq);
    if (!is_new) {
        change -= entry_digest(hash, entry->rev, entry->seq);
        old_value = entry->value;
    }

    pthread_rwlock_wrlock(&stripe->lock);
    if (is_new && stripe->nentries >= stripe->nbuckets && !grow(map, stripe)) {
        pthread_rwlock_unlock(&stripe->lock);
        free(entry);
        return CM_ENOMEM;
    }
    entry->value = value;
    entry->rev = rev;
    entry->seq = seq;
    if (is_new) {
        size_t bucket = hash & (stripe->nbuckets - 1);
        entry->next = stripe->buckets[bucket];
        stripe->buckets[bucket] = entry;
        stripe->nentries++;
    }
    pthread_rwlock_unlock(&stripe->lock);
    if (is_new)
        atomic_fetch_add(&map->count, 1);
    else
        map->free_value(map->arg, old_value);
    atomic_fetch_add(&map->digest, change);
    return CM_OK;
}

bool
cm_map_remove(struct cm_map *map, const char *key, size_t len)
{
    uint64_t hash = cm_hash(key, len, map->seed);
    struct stripe *stripe = stripe_of(map, hash);
    struct cm_map_entry **at = find(stripe, hash, key, len);
    struct cm_map_entry *entry = at ? *at : NULL;
    if (!entry)
        return false;
    pthread_rwlock_wrlock(&stripe->lock);
    *at = entry->next;
    stripe->nentries--;
    pthread_rwlock_unlock(&stripe->lock);
    atomic_fetch_sub(&map->digest, entry_digest(hash, entry->rev, entry->seq));
    atomic_fetch_sub(&map->count, 1);
    map->free_value(map->arg, entry->value);
    free(entry);
    return true;
}

/* Unlinks what begins so and puts it on a list; the lock is held for one
 * stripe, and nothing is freed under it. */
static struct cm_map_entry *
cut_out(struct stripe *stripe, const char *begin, size_t len)
{
    struct cm_map_entry *out = NULL;
    pthread_rwlock_wrlock(&stripe->lock);
    for (size_t b = 0; b < stripe->nbuckets; b++) {
        struct cm_map_entry **at = &stripe->buckets[b];
        while (*at) {
            struct cm_map_entry *entry = *at;
            if (entry->key_len < len || memcmp(entry->key, begin, len) != 0) {
                at = &entry->next;
                continue;
            }
            *at = entry->next;
            entry->next = out;
            out = entry;
            stripe->nentries--;
        }
    }
    pthread_rwlock_unlock(&stripe->lock);
    return out;
}

size_t
cm_map_wipe(struct cm_map *map, const char *begin, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < CM_MAP_STRIPES; i++) {
        struct cm_map_entry *next;
        for (struct cm_map_entry *at = cut_out(&map->stripes[i], begin, len);
             at; at = next, n++) {
            next = at->next;
            uint64_t hash = cm_hash(at->key, at->key_len, map->seed);
            atomic_fetch_sub(&map->digest,
                             entry_digest(hash, at->rev, at->seq));
            atomic_fetch_sub(&map->count, 1);
            map->free_value(map->arg, at->value);
            free(at);
        }
    }
    return n;
}

void *
cm_map_get(struct cm_map *map, const char *key, size_t len, cm_map_take *take)
{
    uint64_t hash = cm_hash(key, len, map->seed);
    struct stripe *stripe = stripe_of(map, hash);
    pthread_rwlock_rdlock(&stripe->lock);
    struct cm_map_entry **at = find(stripe, hash, key, len);
    void *taken = at && *at ? take((*at)->value) : NULL;
    pthread_rwlock_unlock(&stripe->lock);
    return taken;
}

bool
cm_map_each(struct cm_map *map, cm_map_visit *fn, void *arg)
{
    bool go_on = true;
    for (size_t i = 0; go_on && i < CM_MAP_STRIPES; i++) {
        struct stripe *stripe = &map->stripes[i];
        pthread_rwlock_rdlock(&stripe->lock);
        for (size_t b = 0; go_on && b < stripe->nbuckets; b++)
            for (const struct cm_map_entry *at = stripe->buckets[b];
                 go_on && at; at = at->next)
                go_on = fn(arg, at);
        pthread_rwlock_unlock(&stripe->lock);
    }
    return go_on;
}

size_t
cm_map_count(const struct cm_map *map)
{
    return atomic_load(&map->count);
}

uint64_t
cm_map_digest(const struct cm_map *map)
{
    return atomic_load(&map->digest);
}
