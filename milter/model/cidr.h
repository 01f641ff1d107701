/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CIDR_H
#define CM_CIDR_H

#include "milter/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A block of client addresses, "192.0.2.0/24". Like a client's own address, an
 * IPv4-mapped IPv6 one is held as IPv4. */
struct cm_cidr {
    int family; /* AF_INET, AF_INET6; 0: not given */
    uint8_t addr[16];
    unsigned bits;
};

/* cm_cidr_parse - "192.0.2.0/24", "2001:db8::1"; host bits must be zero. CM_OK
 * or CM_EINVAL (err says why, as a sentence without a subject). */
enum cm_status cm_cidr_parse(struct cm_cidr *cidr_r, const char *text,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_cidr_common_bits - how many leading bits two addresses share, at most
 * limit (0..128). Only the bytes that limit reaches are read. */
unsigned cm_cidr_common_bits(const uint8_t *a, const uint8_t *b,
                             unsigned limit);

/* cm_cidr_contains - is this address of that family within the block? */
bool cm_cidr_contains(const struct cm_cidr *cidr, int family,
                      const uint8_t *addr);

#endif
