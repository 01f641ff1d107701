/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CLAIM_H
#define CM_CLAIM_H

#include "milter/err.h"

#include <stdbool.h>

struct cm_commits;

/*
 * What may be done once by one of several daemons: the key <prefix>:once:<name>
 * is set by whoever comes first, and is gone after a time. name is the
 * caller's: printable ASCII, up to CM_CLAIM_NAME_MAX bytes.
 *
 * CM_OK; else as cm_commit_get, and then nobody knows who was first.
 */
#define CM_CLAIM_NAME_MAX 200

/* cm_claim_take - *first_r: it was free and is ours now, for ttl_ms. */
enum cm_status cm_claim_take(struct cm_commits *commits, const char *name,
                             int ttl_ms, bool *first_r,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_claim_drop - *was_taken_r: it was there until now, and of all who ask
 * that, one is told so. */
enum cm_status cm_claim_drop(struct cm_commits *commits, const char *name,
                             bool *was_taken_r,
                             struct cm_err *err) CM_MUST_CHECK;

#endif
