/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MAP_H
#define CM_MAP_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Text to value for millions of entries: one writer, many readers. Keys and
 * entries are one allocation; the table is cut into stripes, each with a lock
 * of its own that the writer holds for a few pointer operations or for growing
 * one stripe (a few thousand entries), never for the whole.
 *
 * The map keeps a digest: an order-free sum over key, rev and seq of all
 * entries, begun with the seed given.
 */
struct cm_map;

struct cm_map_entry {
    struct cm_map_entry *next; /* private */
    void *value;
    int64_t rev, seq;
    uint16_t key_len;
    char key[]; /* NUL-terminated */
};

#define CM_MAP_KEY_MAX 1024

/* free_value is called by the writer for values that were replaced or removed,
 * and by cm_map_free. */
typedef void cm_map_free_value(void *arg, void *value);
enum cm_status cm_map_new(struct cm_map **map_r, uint64_t seed,
                          cm_map_free_value *free_value,
                          void *arg) CM_MUST_CHECK;
void cm_map_free(struct cm_map **map);

/* cm_map_put - takes value on CM_OK. CM_ENOMEM: nothing changed, value is still
 * the caller's. Writer. */
enum cm_status cm_map_put(struct cm_map *map, const char *key, size_t len,
                          int64_t rev, int64_t seq, void *value) CM_MUST_CHECK;
/* cm_map_remove - false when it was not there. Writer. */
bool cm_map_remove(struct cm_map *map, const char *key, size_t len);

/* cm_map_wipe - remove every entry whose key begins so (len 0: all); returns
 * how many. Writer. */
size_t cm_map_wipe(struct cm_map *map, const char *begin, size_t len);

/* cm_map_get - what take makes of the value while the entry is locked (a
 * reference, say), or NULL when there is none. Any thread. */
typedef void *cm_map_take(void *value);
void *cm_map_get(struct cm_map *map, const char *key, size_t len,
                 cm_map_take *take);

/* cm_map_each - every entry in no order, stripe by stripe; false from fn ends
 * it. Meanwhile readers go on; the writer may wait for one stripe. Returns
 * false when ended. Any thread. */
typedef bool cm_map_visit(void *arg, const struct cm_map_entry *entry);
bool cm_map_each(struct cm_map *map, cm_map_visit *fn, void *arg);

size_t cm_map_count(const struct cm_map *map);    /* any thread */
uint64_t cm_map_digest(const struct cm_map *map); /* any thread */

#endif
