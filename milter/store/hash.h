/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HASH_H
#define CM_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A fast 64-bit hash, the same on every machine. Not for keeping secrets, nor
 * against somebody who looks for collisions on purpose. */
uint64_t cm_hash(const void *data, size_t len, uint64_t seed);

/* cm_hash_mix - spread every bit of n over all 64 (a bijection). */
uint64_t cm_hash_mix(uint64_t n);

#endif
