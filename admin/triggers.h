/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TRIGGERS_H
#define CM_TRIGGERS_H

#include "milter/err.h"

#include <stdint.h>

struct cm_commits;
struct cm_triggers;

/*
 * Mailpit's triggers in Redis: a document each, changed and read together.
 *
 * at  number of their last change, see listing.h
 */

/* cm_triggers_load - those in force; what is not stored, or cannot be read, has
 * its default. As cm_commit_read. */
enum cm_status cm_triggers_load(struct cm_commits *commits,
                                struct cm_triggers *triggers_r, int64_t *at_r,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_triggers_store - all three in one batch. at: the state that they must
 * replace, CM_REV_ANY for any; out: the new one. As cm_commit_batch. */
enum cm_status cm_triggers_store(struct cm_commits *commits,
                                 const struct cm_triggers *triggers,
                                 int64_t *at, struct cm_err *err) CM_MUST_CHECK;

#endif
