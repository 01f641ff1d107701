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

/*
 * cm_stateful_throttle - take one token from a rule's bucket.
 *
 * rule     the rule's name: each has buckets of its own
 * whose    canonical text of what config->per names: the inbox (recipient), its
 *          domain, the sender or the client
 * empty_r  out: there was none, so the throttle's reply is due
 *
 * A bucket holds config->burst tokens at first and gains config->rate a second
 * by Redis's clock, up to burst. Who finds it empty takes nothing and makes
 * nobody wait longer. A full bucket is forgotten.
 */
enum cm_status cm_stateful_throttle(struct cm_stateful *stateful,
                                    const char *rule,
                                    const struct cm_fault_throttle *config,
                                    const char *whose, bool *empty_r,
                                    struct cm_err *err) CM_MUST_CHECK;

/* cm_stateful_sequence - the number of this attempt, 1 for the first, for the
 * parts that config->key names (the others are not looked at and may be NULL);
 * forgotten config->ttl_ms after the last. cm_fault_step says what it meets. */
enum cm_status cm_stateful_sequence(struct cm_stateful *stateful,
                                    const char *rule,
                                    const struct cm_fault_sequence *config,
                                    const char *client, const char *sender,
                                    const char *recipient, int64_t *attempt_r,
                                    struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_stateful_attempt - count one attempt to deliver, whatever becomes of it; 1
 * is the first. Forgotten a day after the last, and by cm_stateful_attempt_done
 * when the message was accepted and the client was told so: then the next mail
 * of these three begins at 1. Canonical texts; "" is the null sender.
 */
enum cm_status cm_stateful_attempt(struct cm_stateful *stateful,
                                   const char *client, const char *sender,
                                   const char *recipient, int64_t *n_r,
                                   struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_stateful_attempt_done(struct cm_stateful *stateful,
                                        const char *client, const char *sender,
                                        const char *recipient,
                                        struct cm_err *err) CM_MUST_CHECK;

#endif
