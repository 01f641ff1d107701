/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eight bytes at a time by multiply and shift; the finisher is the well-known
 * one of splitmix64. Bytes are read as little-endian on every machine, so that
 * digests of a mixed fleet agree.
 */
#include "milter/store/hash.h"

#include <endian.h>
#include <string.h>

uint64_t
cm_hash_mix(uint64_t n)
{
    n ^= n >> 30;
    n *= 0xbf58476d1ce4e5b9u;
    n ^= n >> 27;
    n *= 0x94d049bb133111ebu;
    n ^= n >> 31;
    return n;
}

uint64_t
cm_hash(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *at = data;
    uint64_t hash = cm_hash_mix(seed + 0x9e3779b97f4a7c15u + len);
    for (; len >= 8; at += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ le64toh(word)) * 0x9fb21c651e98df25u;
        hash ^= hash >> 35;
    }
    uint64_t tail = 0;
    for (size_t i = 0; i < len; i++)
        tail |= (uint64_t)at[i] << (8 * i);
    return cm_hash_mix(hash ^ tail);
}
