/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_POOL_H
#define CM_POOL_H

#include "milter/store/link.h"

/*
 * Links for callers that need an answer now (the admin's requests, the filter's
 * stateful faults), behind one circuit breaker: after a failure nobody tries
 * again until the back-off (100 ms doubling to 5 s, with jitter) is over, then
 * one caller probes; meanwhile everybody else is told CM_EIO at once. So a hung
 * Redis costs the first caller its deadline and the others nothing.
 * Thread-safe.
 */
struct cm_pool;

/*
 * cm_pool_new - opts is deep-copied. max_links 1..64 at once; a caller beyond
 * that waits for at most its timeout. Connects lazily.
 */
enum cm_status cm_pool_new(struct cm_pool **pool_r,
                           const struct cm_link_opts *opts, int max_links,
                           struct cm_err *err) CM_MUST_CHECK;
void cm_pool_free(struct cm_pool **pool);

/* cm_pool_get - borrow a live link for one exchange. CM_OK, CM_EIO,
 * CM_ETIMEOUT. */
enum cm_status cm_pool_get(struct cm_pool *pool, struct cm_link **link_r,
                           int timeout_ms, struct cm_err *err) CM_MUST_CHECK;
/* cm_pool_put - give it back; a dead link trips the breaker and is closed. */
void cm_pool_put(struct cm_pool *pool, struct cm_link **link);
/* cm_pool_retire - give it back to be closed, with all that rest: it works, but
 * leads to the wrong server (READONLY, MOVED). The breaker stays closed. */
void cm_pool_retire(struct cm_pool *pool, struct cm_link **link);

/* cm_pool_retry_ms - 0 while the breaker is closed, else when the next probe is
 * due, from now; for Retry-After. */
int cm_pool_retry_ms(struct cm_pool *pool);

#endif
