/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/saver.h"
#include "milter/clock.h"
#include "milter/store/snapshot.h"
#include "milter/store/thread.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CM_SAVER_EVERY_MS 5000

struct cm_saver {
    int dir_fd; /* borrowed */
    char *name;
    struct cm_replica *replica;
    pthread_t thread;
    bool running; /* the thread is to be joined; the owner's */
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool changed, stopping; /* lock */
    char problem[256];      /* lock */
};

static void
save(struct cm_saver *saver)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status st =
        cm_snapshot_write(saver->dir_fd, saver->name, saver->replica, &err);
    pthread_mutex_lock(&saver->lock);
    snprintf(saver->problem, sizeof saver->problem, "%s",
             st == CM_OK ? "" : err.msg);
    if (st != CM_OK)
        saver->changed = true; /* try again */
    pthread_mutex_unlock(&saver->lock);
}

static void *
saver_main(void *arg)
{
    struct cm_saver *saver = arg;
    int64_t due_ms = 0; /* not before */
    pthread_mutex_lock(&saver->lock);
    for (;;) {
        while (!saver->stopping && !saver->changed)
            pthread_cond_wait(&saver->woken, &saver->lock);
        struct timespec until = {.tv_sec = due_ms / 1000,
                                 .tv_nsec = due_ms % 1000 * 1000000};
        while (!saver->stopping && cm_clock_mono_ms() < due_ms)
            pthread_cond_timedwait(&saver->woken, &saver->lock, &until);
        bool last = saver->stopping, changed = saver->changed;
        saver->changed = false;
        pthread_mutex_unlock(&saver->lock);
        if (changed)
            save(saver);
        if (last)
            return NULL;
        due_ms = cm_clock_mono_ms() + CM_SAVER_EVERY_MS;
        pthread_mutex_lock(&saver->lock);
    }
}

void
cm_saver_free(struct cm_saver **saver_p)
{
    struct cm_saver *saver = *saver_p;
    if (!saver)
        return;
    cm_saver_stop(saver);
    pthread_cond_destroy(&saver->woken);
    pthread_mutex_destroy(&saver->lock);
    free(saver->name);
    free(saver);
    *saver_p = NULL;
}

enum cm_status
cm_saver_start(struct cm_saver **saver_r, int dir_fd, const char *name,
               struct cm_replica *replica, struct cm_err *err)
{
    struct cm_saver *saver = calloc(1, sizeof *saver);
    if (saver)
        saver->name = strdup(name);
    if (!saver || !saver->name) {
        free(saver);
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    saver->dir_fd = dir_fd;
    saver->replica = replica;
    pthread_mutex_init(&saver->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&saver->woken, &attr);
    pthread_condattr_destroy(&attr);
    enum cm_status st = cm_thread_start(&saver->thread, saver_main, saver, err);
    saver->running = st == CM_OK;
    if (st != CM_OK)
        cm_saver_free(&saver);
    *saver_r = saver;
    return st;
}

void
cm_saver_stop(struct cm_saver *saver)
{
    if (!saver || !saver->running)
        return;
    pthread_mutex_lock(&saver->lock);
    saver->stopping = true;
    pthread_cond_signal(&saver->woken);
    pthread_mutex_unlock(&saver->lock);
    pthread_join(saver->thread, NULL);
    saver->running = false;
}

void
cm_saver_poke(struct cm_saver *saver)
{
    if (!saver)
        return;
    pthread_mutex_lock(&saver->lock);
    saver->changed = true;
    pthread_cond_signal(&saver->woken);
    pthread_mutex_unlock(&saver->lock);
}

void
cm_saver_problem(struct cm_saver *saver, char *out, size_t cap)
{
    out[0] = '\0';
    if (!saver)
        return;
    pthread_mutex_lock(&saver->lock);
    snprintf(out, cap, "%s", saver->problem);
    pthread_mutex_unlock(&saver->lock);
}
