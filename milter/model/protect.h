/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PROTECT_H
#define CM_PROTECT_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

struct cm_address;

/*
 * Recipients that no rule may touch. RFC 5321 4.5.1 and RFC 2142 make
 * postmaster and abuse the way to reach whoever runs a host, so these two are
 * always on the list, in any case and with any domain or none. Immutable;
 * thread-safe.
 *
 * An entry is "local@" (that local part at any domain), "@domain" (a whole
 * domain) or "local@domain".
 */
struct cm_protect;

/* cm_protect_new - entries are n strings, borrowed for the call. CM_OK,
 * CM_EINVAL (err names the entry), CM_ENOMEM. flags as in cm_address_parse. */
enum cm_status cm_protect_new(struct cm_protect **protect_r,
                              char *const *entries, size_t n, unsigned flags,
                              struct cm_err *err) CM_MUST_CHECK;
void cm_protect_free(struct cm_protect **protect);

bool cm_protect_covers(const struct cm_protect *protect,
                       const struct cm_address *recipient);

#endif
