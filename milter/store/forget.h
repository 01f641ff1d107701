/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FORGET_H
#define CM_FORGET_H

#include "milter/err.h"

#include <stdint.h>

struct cm_commits;

/*
 * cm_commit_forget_state - drop what faults with a state remember (see
 * stateful.h): greylisting, occurrences of seeded coins, hits taken, tokens,
 * steps and attempts. Totals, events and heartbeats stay. n_r: how many keys
 * there were. As cm_commit_set; walks over all keys of Redis, a thousand at a
 * time, and other commands come in between.
 */
enum cm_status cm_commit_forget_state(struct cm_commits *commits, int64_t *n_r,
                                      struct cm_err *err) CM_MUST_CHECK;

#endif
