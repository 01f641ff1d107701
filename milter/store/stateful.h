/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_STATEFUL_H
#define CM_STATEFUL_H

#include "milter/err.h"
#include "milter/model/fault.h"
#include "milter/store/pool.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The faults that must remember: each question is one atomic script in Redis,
 * under one deadline and behind the pool's breaker. No answer means no fault.
 * Thread-safe.
 */
struct cm_stateful;

enum cm_status cm_stateful_new(struct cm_stateful **stateful_r,
                               struct cm_pool *pool, const char *prefix,
                               int deadline_ms,
                               struct cm_err *err) CM_MUST_CHECK;
void cm_stateful_free(struct cm_stateful **stateful);

/*
 * cm_stateful_greylist - count one attempt and judge it.
 *
 * inbox, sender, client  canonical texts; those that config->track does not
 * name are not part of the key. "" is the null sender. refused_r  out: answer
 * 451 4.7.1 attempt_r  out: 1 for the first attempt of a window
 *
 * Attempt n is refused while n < max_attempts, or while it comes sooner than
 * min_delay_ms after the first; when it passes, the entry is removed. An
 * attempt later than window_ms after the first is the first of a new window.
 * Redis's clock counts. CM_OK, CM_EIO, CM_ETIMEOUT, CM_EPROTO, CM_ENOMEM.
 */
enum cm_status cm_stateful_greylist(struct cm_stateful *stateful,
                                    const struct cm_fault_greylist *config,
                                    const char *inbox, const char *sender,
                                    const char *client, bool *refused_r,
                                    int64_t *attempt_r,
                                    struct cm_err *err) CM_MUST_CHECK;

/* cm_stateful_occurrence - the number of this mail for (rule, sender,
 * recipient), 1 for the first; forgotten a day after the last. */
enum cm_status cm_stateful_occurrence(struct cm_stateful *stateful,
                                      const char *rule, const char *sender,
                                      const char *recipient, int64_t *n_r,
                                      struct cm_err *err) CM_MUST_CHECK;

/* cm_stateful_hit - take one hit of a rule with maxHits; *allowed_r is false
 * when all are used up. Forgotten a year after the last. */
enum cm_status cm_stateful_hit(struct cm_stateful *stateful, const char *rule,
                               uint64_t max_hits, bool *allowed_r,
                               struct cm_err *err) CM_MUST_CHECK;

#endif
