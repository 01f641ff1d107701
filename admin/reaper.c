/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A doubly linked list under one mutex, walked whenever the earliest deadline
 * is due. There are at most a few hundred connections, so a heap would save
 * nothing. shutdown() is called under the mutex: a watch found in the list has
 * its socket still open.
 */
#include "admin/reaper.h"
#include "milter/clock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

struct cm_watch {
    int fd;
    int64_t due_ms; /* monotonic */
    bool shut;
    struct cm_watch *prev, *next;
};

struct cm_reaper {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool stop;
    int64_t wake_ms; /* what the thread sleeps until */
    struct cm_watch *first;
};

/* Shuts down what is due; returns when the next is. Called with the lock. */
static int64_t
reap(struct cm_reaper *reaper)
{
    int64_t now = cm_clock_mono_ms(), next = INT64_MAX;
    for (struct cm_watch *w = reaper->first; w; w = w->next) {
        if (w->shut)
            continue;
        if (w->due_ms <= now) {
            shutdown(w->fd, SHUT_RDWR);
            w->shut = true;
        } else if (w->due_ms < next) {
            next = w->due_ms;
        }
    }
    return next;
}

static void *
reaper_main(void *arg)
{
    struct cm_reaper *reaper = arg;
    pthread_mutex_lock(&reaper->lock);
    while (!reaper->stop) {
        reaper->wake_ms = reap(reaper);
        if (reaper->wake_ms == INT64_MAX) {
            pthread_cond_wait(&reaper->changed, &reaper->lock);
            continue;
        }
        struct timespec until = {
            .tv_sec = (time_t)(reaper->wake_ms / 1000),
            .tv_nsec = (long)(reaper->wake_ms % 1000) * 1000000 + 999999};
        pthread_cond_timedwait(&reaper->changed, &reaper->lock, &until);
    }
    pthread_mutex_unlock(&reaper->lock);
    return NULL;
}

static void
init_sync(struct cm_reaper *reaper)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&reaper->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&reaper->lock, NULL);
}

enum cm_status
cm_reaper_start(struct cm_reaper **reaper_r, struct cm_err *err)
{
    struct cm_reaper *reaper = calloc(1, sizeof *reaper);
    if (!reaper)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    init_sync(reaper);
    if (pthread_create(&reaper->thread, NULL, reaper_main, reaper) != 0) {
        pthread_cond_destroy(&reaper->changed);
        pthread_mutex_destroy(&reaper->lock);
        free(reaper);
        return cm_err_set(err, CM_EIO, "cannot start a thread");
    }
    *reaper_r = reaper;
    return CM_OK;
}

void
cm_reaper_stop(struct cm_reaper **reaper_p)
{
    struct cm_reaper *reaper = *reaper_p;
    if (!reaper)
        return;
    pthread_mutex_lock(&reaper->lock);
    reaper->stop = true;
    pthread_cond_signal(&reaper->changed);
    pthread_mutex_unlock(&reaper->lock);
    pthread_join(reaper->thread, NULL);
    pthread_cond_destroy(&reaper->changed);
    pthread_mutex_destroy(&reaper->lock);
    free(reaper);
    *reaper_p = NULL;
}

/* Called with the lock. Only an earlier deadline needs the thread awake. */
static void
set_due(struct cm_reaper *reaper, struct cm_watch *watch, int64_t ms)
{
    watch->due_ms = cm_clock_mono_ms() + ms;
    if (watch->due_ms < reaper->wake_ms)
        pthread_cond_signal(&reaper->changed);
}

struct cm_watch *
cm_reaper_watch(struct cm_reaper *reaper, int fd, int64_t ms)
{
    struct cm_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return NULL;
    watch->fd = fd;
    pthread_mutex_lock(&reaper->lock);
    watch->next = reaper->first;
    if (watch->next)
        watch->next->prev = watch;
    reaper->first = watch;
    set_due(reaper, watch, ms);
    pthread_mutex_unlock(&reaper->lock);
    return watch;
}

void
cm_reaper_rearm(struct cm_reaper *reaper, struct cm_watch *watch, int64_t ms)
{
    pthread_mutex_lock(&reaper->lock);
    set_due(reaper, watch, ms);
    pthread_mutex_unlock(&reaper->lock);
}

void
cm_reaper_unwatch(struct cm_reaper *reaper, struct cm_watch **watch_p)
{
    struct cm_watch *watch = *watch_p;
    if (!watch)
        return;
    pthread_mutex_lock(&reaper->lock);
    if (watch->prev)
        watch->prev->next = watch->next;
    else
        reaper->first = watch->next;
    if (watch->next)
        watch->next->prev = watch->prev;
    pthread_mutex_unlock(&reaper->lock);
    free(watch);
    *watch_p = NULL;
}
