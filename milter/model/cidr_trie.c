/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A Patricia trie in one array, links being indices: no pointer chasing across
 * the heap, one allocation, one free. A node stands for a prefix; its children
 * are longer prefixes that begin with it and differ in the bit after it. Nodes
 * without a value are mere forks. A plain trie of one node per bit was
 * rejected: ten thousand IPv6 hosts would take a million nodes.
 */
#include "milter/model/cidr_trie.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NONE CM_CIDR_TRIE_NONE

struct cm_cidr_node {
    uint8_t addr[16];
    unsigned bits;
    size_t value;
    size_t child[2];
};

enum cm_status
cm_cidr_trie_init(struct cm_cidr_trie *trie, size_t max_blocks)
{
    memset(trie, 0, sizeof *trie);
    trie->root[0] = trie->root[1] = NONE;
    if (max_blocks == 0)
        return CM_OK;
    trie->nodes = calloc(2 * max_blocks, sizeof *trie->nodes);
    return trie->nodes ? CM_OK : CM_ENOMEM;
}

void
cm_cidr_trie_fini(struct cm_cidr_trie *trie)
{
    free(trie->nodes);
    trie->nodes = NULL;
    trie->n = 0;
}

static unsigned
bit_at(const uint8_t *addr, unsigned i)
{
    return addr[i / 8] >> (7 - i % 8) & 1u;
}

static size_t
add_node(struct cm_cidr_trie *trie, const uint8_t *addr, unsigned bits)
{
    struct cm_cidr_node *node = &trie->nodes[trie->n];
    memcpy(node->addr, addr, sizeof node->addr);
    node->bits = bits;
    node->value = node->child[0] = node->child[1] = NONE;
    return trie->n++;
}

/* Puts a node for the first bits of addr above the one that link leads to. */
static size_t
split(struct cm_cidr_trie *trie, size_t *link, const uint8_t *addr,
      unsigned bits)
{
    size_t below = *link;
    size_t fork = add_node(trie, addr, bits);
    trie->nodes[fork].child[bit_at(trie->nodes[below].addr, bits)] = below;
    *link = fork;
    return fork;
}

size_t *
cm_cidr_trie_insert(struct cm_cidr_trie *trie, const struct cm_cidr *block)
{
    size_t *link = &trie->root[block->family == AF_INET6];
    for (;;) {
        if (*link == NONE)
            *link = add_node(trie, block->addr, block->bits);
        struct cm_cidr_node *node = &trie->nodes[*link];
        unsigned limit = node->bits < block->bits ? node->bits : block->bits;
        unsigned common = cm_cidr_common_bits(node->addr, block->addr, limit);
        if (common < node->bits)
            node = &trie->nodes[split(trie, link, block->addr, common)];
        if (node->bits == block->bits)
            return &node->value;
        link = &node->child[bit_at(block->addr, node->bits)];
    }
}

/* The first node with a value from at downwards, as long as it holds addr. */
static size_t
descend(const struct cm_cidr_trie *trie, size_t at, const uint8_t *addr)
{
    while (at != NONE) {
        const struct cm_cidr_node *node = &trie->nodes[at];
        if (cm_cidr_common_bits(node->addr, addr, node->bits) < node->bits)
            return NONE;
        if (node->value != NONE)
            return at;
        at = node->child[bit_at(addr, node->bits)];
    }
    return NONE;
}

size_t
cm_cidr_trie_first(const struct cm_cidr_trie *trie, int family,
                   const uint8_t *addr)
{
    if (family != AF_INET && family != AF_INET6)
        return NONE;
    return descend(trie, trie->root[family == AF_INET6], addr);
}

size_t
cm_cidr_trie_next(const struct cm_cidr_trie *trie, size_t at,
                  const uint8_t *addr)
{
    const struct cm_cidr_node *node = &trie->nodes[at];
    if (node->child[0] == NONE && node->child[1] == NONE)
        return NONE; /* perhaps a host: there is no bit after it */
    return descend(trie, node->child[bit_at(addr, node->bits)], addr);
}

size_t
cm_cidr_trie_value(const struct cm_cidr_trie *trie, size_t at)
{
    return trie->nodes[at].value;
}
