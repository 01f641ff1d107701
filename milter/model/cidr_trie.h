/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CIDR_TRIE_H
#define CM_CIDR_TRIE_H

#include "milter/err.h"
#include "milter/model/cidr.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Blocks of addresses, found by an address that lies in them: a binary trie
 * over the bits with one-way paths folded, so n blocks take at most 2n nodes
 * and a lookup at most as many steps as there are nested blocks and forks on
 * the way, never more than the address has bits. Each distinct block carries
 * one number of the caller's. IPv4 and IPv6 are two roots.
 *
 * Filled once, then read by any number of threads.
 */
#define CM_CIDR_TRIE_NONE SIZE_MAX

struct cm_cidr_node;
struct cm_cidr_trie {
    struct cm_cidr_node *nodes; /* owned */
    size_t n;
    size_t root[2]; /* IPv4, IPv6 */
};

/* cm_cidr_trie_init - room for at most max_blocks inserts. CM_OK or CM_ENOMEM;
 * cm_cidr_trie_fini may be called either way. */
enum cm_status cm_cidr_trie_init(struct cm_cidr_trie *trie,
                                 size_t max_blocks) CM_MUST_CHECK;
void cm_cidr_trie_fini(struct cm_cidr_trie *trie);

/* cm_cidr_trie_insert - where the block's number is kept; it holds
 * CM_CIDR_TRIE_NONE when the block is new. */
size_t *cm_cidr_trie_insert(struct cm_cidr_trie *trie,
                            const struct cm_cidr *block);

/*
 * A lookup goes from the widest block to the narrowest:
 *
 *     at = cm_cidr_trie_first(trie, family, addr);
 *     for (; at != NONE; at = cm_cidr_trie_next(trie, at, addr))
 *         use(cm_cidr_trie_value(trie, at));
 */
size_t cm_cidr_trie_first(const struct cm_cidr_trie *trie, int family,
                          const uint8_t *addr);
size_t cm_cidr_trie_next(const struct cm_cidr_trie *trie, size_t at,
                         const uint8_t *addr);
size_t cm_cidr_trie_value(const struct cm_cidr_trie *trie, size_t at);

#endif
