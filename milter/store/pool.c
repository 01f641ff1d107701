/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stack of resting links and a breaker with three states:
 *
 *   closed   tripped is false: links are handed out and made
 *   open     tripped, and it is not yet retry_at_ms: everybody is told so
 *   probing  tripped, and one caller has the probe: everybody else is told so
 *
 * Only the probe's return closes the breaker or lengthens the back-off: of ten
 * links that die in the same moment nine say nothing new. The link rests on a
 * stack, not in a queue, so that those beyond the need grow cold and are found
 * closed by the server. Opening a link happens outside the lock.
 */
#include "milter/store/pool.h"
#include "milter/clock.h"
#include "milter/store/backoff.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CM_POOL_LINKS_MAX 64

struct cm_pool {
    struct cm_link_opts opts;
    int max_links;
    pthread_mutex_t lock;
    pthread_cond_t returned; /* a link rests, or one may be made */
    struct cm_link *resting[CM_POOL_LINKS_MAX];
    int nresting;
    int nlinks; /* lent, being opened or resting */
    bool tripped;
    bool probing;
    const struct cm_link *probe; /* lent while tripped; compared only */
    struct cm_backoff backoff;
    int64_t retry_at_ms;
};

enum cm_status
cm_pool_new(struct cm_pool **pool_r, const struct cm_link_opts *opts,
            int max_links, struct cm_err *err)
{
    if (max_links < 1 || max_links > CM_POOL_LINKS_MAX)
        return cm_err_set(err, CM_EINVAL, "a pool has 1 to %d links",
                          CM_POOL_LINKS_MAX);
    enum cm_status st = cm_link_check_address(opts->address, err);
    if (st != CM_OK)
        return st;
    struct cm_pool *pool = calloc(1, sizeof *pool);
    if (!pool || cm_link_opts_dup(&pool->opts, opts) != CM_OK) {
        free(pool);
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    pool->max_links = max_links;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->returned, &attr);
    pthread_condattr_destroy(&attr);
    *pool_r = pool;
    return CM_OK;
}

/* With the lock held. */
static void
close_resting(struct cm_pool *pool)
{
    while (pool->nresting > 0) {
        cm_link_close(&pool->resting[--pool->nresting]);
        pool->nlinks--;
    }
}

void
cm_pool_free(struct cm_pool **pool)
{
    if (!*pool)
        return;
    close_resting(*pool);
    pthread_cond_destroy(&(*pool)->returned);
    pthread_mutex_destroy(&(*pool)->lock);
    cm_link_opts_fini(&(*pool)->opts);
    free(*pool);
    *pool = NULL;
}

/* A link died, or could not be opened. With the lock held. */
static void
trip(struct cm_pool *pool, bool was_probe)
{
    if (pool->tripped && !was_probe)
        return;
    pool->tripped = true;
    pool->probing = false;
    pool->probe = NULL;
    pool->retry_at_ms = cm_clock_mono_ms() + cm_backoff_next_ms(&pool->backoff);
    close_resting(pool);
}

static void
mend(struct cm_pool *pool)
{
    pool->tripped = pool->probing = false;
    pool->probe = NULL;
    cm_backoff_reset(&pool->backoff);
}

static int
retry_ms(const struct cm_pool *pool)
{
    if (!pool->tripped)
        return 0;
    int64_t left = pool->retry_at_ms - cm_clock_mono_ms();
    return left < 1 ? 1 : (int)left;
}

/* The newest resting link that is still fit, or NULL. With the lock held. */
static struct cm_link *
take_resting(struct cm_pool *pool)
{
    while (pool->nresting > 0) {
        struct cm_link *link = pool->resting[--pool->nresting];
        if (cm_link_quiet(link))
            return link;
        cm_link_close(&link);
        pool->nlinks--;
    }
    return NULL;
}

/* With the lock held, which it gives up while it connects; nlinks is already
 * counted. */
static enum cm_status
open_link(struct cm_pool *pool, struct cm_link **link_r, int64_t deadline_ms,
          struct cm_err *err)
{
    bool is_probe = pool->tripped;
    pool->probing = is_probe;
    pthread_mutex_unlock(&pool->lock);
    struct cm_link *link = NULL;
    int64_t left = deadline_ms - cm_clock_mono_ms();
    enum cm_status st = cm_link_open_within(&link, &pool->opts,
                                            left < 1 ? 1 : (int)left, -1, err);
    pthread_mutex_lock(&pool->lock);
    if (st != CM_OK) {
        pool->nlinks--;
        trip(pool, is_probe);
        pthread_cond_broadcast(&pool->returned);
        return st == CM_EPROTO ? CM_EIO : st;
    }
    if (is_probe)
        pool->probe = link;
    *link_r = link;
    return CM_OK;
}

static enum cm_status
get_locked(struct cm_pool *pool, struct cm_link **link_r, int64_t deadline_ms,
           struct cm_err *err)
{
    struct timespec until = {.tv_sec = deadline_ms / 1000,
                             .tv_nsec = deadline_ms % 1000 * 1000000};
    for (;;) {
        if (pool->tripped &&
            (pool->probing || pool->retry_at_ms > cm_clock_mono_ms()))
            return cm_err_set(err, CM_EIO, "Redis is away, next try in %d ms",
                              retry_ms(pool));
        struct cm_link *link = pool->tripped ? NULL : take_resting(pool);
        if (link) {
            *link_r = link;
            return CM_OK;
        }
        if (pool->nlinks < pool->max_links) {
            pool->nlinks++;
            return open_link(pool, link_r, deadline_ms, err);
        }
        if (pthread_cond_timedwait(&pool->returned, &pool->lock, &until) ==
            ETIMEDOUT)
            return cm_err_set(err, CM_ETIMEOUT,
                              "all %d links to Redis are in use",
                              pool->max_links);
    }
}

enum cm_status
cm_pool_get(struct cm_pool *pool, struct cm_link **link_r, int timeout_ms,
            struct cm_err *err)
{
    int64_t deadline_ms = cm_clock_mono_ms() + timeout_ms;
    pthread_mutex_lock(&pool->lock);
    enum cm_status st = get_locked(pool, link_r, deadline_ms, err);
    pthread_mutex_unlock(&pool->lock);
    return st;
}

void
cm_pool_put(struct cm_pool *pool, struct cm_link **link)
{
    pthread_mutex_lock(&pool->lock);
    bool was_probe = pool->probe == *link;
    if (cm_link_alive(*link)) {
        if (was_probe)
            mend(pool);
        pool->resting[pool->nresting++] = *link;
    } else {
        cm_link_close(link);
        pool->nlinks--;
        trip(pool, was_probe);
    }
    *link = NULL;
    pthread_cond_broadcast(&pool->returned);
    pthread_mutex_unlock(&pool->lock);
}

void
cm_pool_retire(struct cm_pool *pool, struct cm_link **link)
{
    pthread_mutex_lock(&pool->lock);
    if (pool->probe == *link)
        mend(pool);
    cm_link_close(link);
    pool->nlinks--;
    close_resting(pool);
    pthread_cond_broadcast(&pool->returned);
    pthread_mutex_unlock(&pool->lock);
}

int
cm_pool_retry_ms(struct cm_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    int ms = retry_ms(pool);
    pthread_mutex_unlock(&pool->lock);
    return ms;
}
