/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TARGET_H
#define CM_TARGET_H

#include "milter/err.h"

#include <stddef.h>

/*
 * A request target (RFC 9112 3.2.1), taken apart once and for all: split at
 * "/", and only then each segment percent-decoded, once. So an inbox named
 * "a/b@x", sent as a%2Fb%40x, stays one segment, "%252e" stays "%2e", and "+"
 * stays "+". Nothing is normalised: "." and ".." are names like any other.
 */
#define CM_TARGET_SEGMENTS_MAX 8
#define CM_TARGET_PARAMS_MAX   16

struct cm_param {
    const char *name, *value; /* decoded, NUL-terminated */
};

struct cm_target {
    char *raw;       /* owned: the path as it was sent, without the query */
    char *decoded;   /* owned: what segments and parameters point into */
    size_t nsegment; /* "/a/b" has 2, "/" has 1 (empty), "/a/" has 2 */
    const char *segment[CM_TARGET_SEGMENTS_MAX];
    size_t nparam;
    struct cm_param param[CM_TARGET_PARAMS_MAX];
};

/*
 * cm_target_parse - take raw apart; target_r owns copies and is written in any
 * case (cm_target_fini it).
 *
 * raw  the target as sent, starting with "/" (the absolute form, meant for
 *      proxies, is refused); NUL-terminated
 *
 * CM_OK; CM_EINVAL: err says what is wrong with it: a "%" without two hex
 * digits, %00, a byte that must be percent-encoded, "#", more than
 * CM_TARGET_SEGMENTS_MAX segments or CM_TARGET_PARAMS_MAX parameters, a
 * parameter given twice; CM_ENOMEM. In a query "+" is a space, as forms and
 * URL libraries write it.
 */
enum cm_status cm_target_parse(struct cm_target *target_r, const char *raw,
                               struct cm_err *err) CM_MUST_CHECK;
void cm_target_fini(struct cm_target *target);

/* cm_target_param - the decoded value of a query parameter, NULL if absent. */
const char *cm_target_param(const struct cm_target *target, const char *name);

#endif
