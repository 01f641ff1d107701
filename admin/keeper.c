/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inboxes are swept a page at a time from where the last sweep ended, each page
 * bounded, so that a million of them is no more work per minute than a
 * thousand. Expiry in Redis (PX) was rejected: it would take the document
 * without a change in the log, and the filters would never hear of it.
 */
#include "admin/keeper.h"
#include "admin/box.h"
#include "admin/triggers.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/model/mailpit.h"
#include "milter/store/commit.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CM_KEEPER_TICK_MS     1000
#define CM_KEEPER_SWEEP_TICKS 60
#define CM_KEEPER_SWEEP_PAGE  500
#define CM_KEEPER_HOST_MS     ((int64_t)24 * 3600 * 1000)

struct cm_keeper {
    struct cm_commits *commits; /* borrowed */
    pthread_t thread;
    pthread_mutex_t lock; /* guards stop, up, why */
    pthread_cond_t changed;
    bool stop, up;
    char why[256];

    pthread_mutex_t triggers_lock; /* held while they are stored */
    bool triggers_due;             /* triggers_lock */
    struct cm_triggers triggers;

    /* the thread's own */
    bool asked, library_loaded;
    unsigned tick;
    char swept[321]; /* the last name looked at */
};

static bool
must_stop(struct cm_keeper *keeper)
{
    pthread_mutex_lock(&keeper->lock);
    bool stop = keeper->stop;
    pthread_mutex_unlock(&keeper->lock);
    return stop;
}

/* True when it was up before or is up now for the first time. */
static void
note_redis(struct cm_keeper *keeper, bool up, const char *why)
{
    pthread_mutex_lock(&keeper->lock);
    bool changed = !keeper->asked || keeper->up != up;
    keeper->up = up;
    snprintf(keeper->why, sizeof keeper->why, "%s", up ? "" : why);
    pthread_mutex_unlock(&keeper->lock);
    keeper->asked = true;
    if (changed && up)
        cm_log_info("what=redis state=up");
    else if (changed)
        cm_log_warn("what=redis state=down error=\"%s\"", why);
    if (!up)
        keeper->library_loaded = false;
}

static void
store_triggers(struct cm_keeper *keeper)
{
    struct cm_err err;
    static struct cm_log_gate gate;
    unsigned long held_back;
    int64_t at = CM_REV_ANY;
    pthread_mutex_lock(&keeper->triggers_lock);
    if (keeper->triggers_due) {
        enum cm_status status =
            cm_triggers_store(keeper->commits, &keeper->triggers, &at, &err);
        keeper->triggers_due = status != CM_OK;
        if (status == CM_OK)
            cm_log_info("what=triggers state=set");
        else if (cm_log_gate_open(&gate, &held_back))
            cm_log_warn("what=triggers state=failed error=\"%s\"", err.msg);
    }
    pthread_mutex_unlock(&keeper->triggers_lock);
}

void
cm_keeper_forget_triggers(struct cm_keeper *keeper)
{
    pthread_mutex_lock(&keeper->triggers_lock);
    keeper->triggers_due = false;
    pthread_mutex_unlock(&keeper->triggers_lock);
}

static void
load_library(struct cm_keeper *keeper)
{
    struct cm_err err;
    static struct cm_log_gate gate;
    unsigned long held_back;
    enum cm_status status = cm_commits_load_library(keeper->commits, &err);
    keeper->library_loaded = status == CM_OK || status == CM_NOTFOUND;
    if (status == CM_OK)
        cm_log_info("what=library state=loaded");
    else if (status == CM_NOTFOUND)
        cm_log_info("what=library state=none reason=\"this Redis has no "
                    "functions; redis-cli can use EVALSHA\"");
    else if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("what=library state=failed error=\"%s\"", err.msg);
}

static void
remove_expired(struct cm_keeper *keeper, const char *address)
{
    struct cm_box box;
    struct cm_err err;
    struct cm_total total = {"inbox.deleted_total", 1};
    enum cm_status status =
        cm_box_get(keeper->commits, address, cm_clock_wall_ms(), &box, &err);
    if (status != CM_NOTFOUND || box.rev == 0)
        return;
    status = cm_box_remove(keeper->commits, address, &box, &err);
    if (status == CM_OK)
        status = cm_commit_add_totals(keeper->commits, &total, 1, &err);
    if (status == CM_OK)
        cm_log_info("what=inbox action=expired address=%s", address);
    else if (status != CM_ECONFLICT)
        cm_log_debug("what=inbox action=expire address=%s error=\"%s\"",
                     address, err.msg);
}

static void
sweep(struct cm_keeper *keeper)
{
    char **names = NULL;
    size_t n = 0;
    struct cm_err err;
    if (cm_commit_list(keeper->commits, CM_KIND_BOX, "", keeper->swept,
                       CM_KEEPER_SWEEP_PAGE, &names, &n, &err) != CM_OK) {
        cm_log_debug("what=sweep error=\"%s\"", err.msg);
        return;
    }
    for (size_t i = 0; i < n && !must_stop(keeper); i++)
        remove_expired(keeper, names[i]);
    snprintf(keeper->swept, sizeof keeper->swept, "%s",
             n == CM_KEEPER_SWEEP_PAGE ? names[n - 1] : "");
    cm_names_free(&names);
    if (cm_commit_forget_hosts(keeper->commits,
                               cm_clock_wall_ms() - CM_KEEPER_HOST_MS,
                               &err) != CM_OK)
        cm_log_debug("what=hosts error=\"%s\"", err.msg);
}

static void
tick(struct cm_keeper *keeper)
{
    char *epoch = NULL;
    int64_t seq;
    struct cm_err err = {CM_OK, ""};
    enum cm_status status = cm_commit_seq(keeper->commits, &epoch, &seq, &err);
    bool up = status == CM_OK || status == CM_NOTFOUND;
    free(epoch);
    if (up)
        store_triggers(keeper); /* before anybody is told that we are ready */
    note_redis(keeper, up, err.msg);
    if (up && !keeper->library_loaded)
        load_library(keeper);
    if (up && keeper->tick++ % CM_KEEPER_SWEEP_TICKS == 0)
        sweep(keeper);
}

static void *
keeper_main(void *arg)
{
    struct cm_keeper *keeper = arg;
    while (!must_stop(keeper)) {
        struct timespec until;
        tick(keeper);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += CM_KEEPER_TICK_MS / 1000;
        pthread_mutex_lock(&keeper->lock);
        int rc = 0;
        while (!keeper->stop && rc == 0)
            rc =
                pthread_cond_timedwait(&keeper->changed, &keeper->lock, &until);
        pthread_mutex_unlock(&keeper->lock);
    }
    return NULL;
}

enum cm_status
cm_keeper_start(struct cm_keeper **keeper_r, struct cm_commits *commits,
                const struct cm_triggers *triggers, struct cm_err *err)
{
    pthread_condattr_t attr;
    struct cm_keeper *keeper = calloc(1, sizeof *keeper);
    if (!keeper)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    keeper->commits = commits;
    snprintf(keeper->why, sizeof keeper->why, "not asked yet");
    keeper->triggers_due = triggers != NULL;
    if (triggers)
        keeper->triggers = *triggers;
    pthread_mutex_init(&keeper->triggers_lock, NULL);
    pthread_mutex_init(&keeper->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&keeper->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&keeper->thread, NULL, keeper_main, keeper) != 0) {
        pthread_cond_destroy(&keeper->changed);
        pthread_mutex_destroy(&keeper->lock);
        pthread_mutex_destroy(&keeper->triggers_lock);
        free(keeper);
        return cm_err_set(err, CM_EIO, "cannot start a thread");
    }
    *keeper_r = keeper;
    return CM_OK;
}

void
cm_keeper_stop(struct cm_keeper **keeper_p)
{
    struct cm_keeper *keeper = *keeper_p;
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->lock);
    keeper->stop = true;
    pthread_cond_signal(&keeper->changed);
    pthread_mutex_unlock(&keeper->lock);
    pthread_join(keeper->thread, NULL);
    pthread_cond_destroy(&keeper->changed);
    pthread_mutex_destroy(&keeper->lock);
    pthread_mutex_destroy(&keeper->triggers_lock);
    free(keeper);
    *keeper_p = NULL;
}

bool
cm_keeper_redis_up(struct cm_keeper *keeper, char why[256])
{
    pthread_mutex_lock(&keeper->lock);
    bool up = keeper->up;
    if (why)
        snprintf(why, 256, "%s", keeper->why);
    pthread_mutex_unlock(&keeper->lock);
    return up;
}
