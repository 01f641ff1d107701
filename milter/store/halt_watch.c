/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * XREAD BLOCK is only the bell: what counts is the stream's last entry, read
 * again after every ring and at least once a second, so a stream that was
 * emptied, restored or written on another server can only be late, never
 * missed. Pub/sub was rejected, because it loses what is said while the link is
 * down; polling, because a hundred filters would keep Redis busy with nothing.
 */
#include "milter/store/halt_watch.h"
#include "milter/buf.h"
#include "milter/log.h"
#include "milter/store/backoff.h"
#include "milter/store/halt.h"
#include "milter/store/halt_file.h"
#include "milter/store/keys.h"
#include "milter/store/quote.h"
#include "milter/store/redis.h"
#include "milter/store/thread.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CM_WATCH_BLOCK_MS   1000
#define CM_WATCH_BLOCK_TEXT "1000"
#define CM_WATCH_RETRY_MS   1000 /* after Redis refused to tell */

struct cm_halt_watch {
    struct cm_halt_watch_opts opts; /* link owned */
    char *name;                     /* owned */
    struct cm_keys keys;
    pthread_t thread;
    bool running; /* the thread is to be joined; the owner's */
    int wake_fd;  /* eventfd: stop now */
    atomic_bool stopping;
    atomic_bool on;

    pthread_mutex_t lock;
    struct cm_halt halt; /* lock: the last known */
    char refused[384];   /* lock: why Redis does not tell, "" when it does */
    char not_kept[256];  /* lock: why the file is not as it should be */
    bool asked;          /* lock: Redis has answered, or is away */

    /* the thread's own */
    struct cm_link *link;
    struct cm_backoff backoff;
    char seen[48]; /* id of the entry that is in force */
    bool logged;   /* as which the state was last logged */
};

/* --- the state --- */

/* Takes effect on whoever asks, and calls the filter when that is a change. */
static void
put_in_force(struct cm_halt_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    bool on = watch->halt.halted || *watch->refused || !watch->asked;
    struct cm_halt halt = watch->halt;
    pthread_mutex_unlock(&watch->lock);
    if (atomic_exchange(&watch->on, on) != on && watch->opts.changed)
        watch->opts.changed(watch->opts.arg, on);
    if (watch->logged == on)
        return; /* a start without a halt is nothing to tell */
    watch->logged = on;
    char reason[4 * sizeof halt.reason], by[4 * sizeof halt.by];
    cm_log_warn("halted=%s by=\"%s\" reason=\"%s\"", on ? "yes" : "no",
                cm_log_quote(by, sizeof by, halt.by),
                cm_log_quote(reason, sizeof reason, halt.reason));
}

/* The file is made right after the state is in force: what is known to be
 * halted must not wait for a disk. */
static void
keep(struct cm_halt_watch *watch, const struct cm_halt *halt)
{
    struct cm_err err = {CM_OK, ""};
    if (watch->opts.dir_fd < 0)
        return;
    enum cm_status st =
        cm_halt_file_write(watch->opts.dir_fd, watch->name, halt, &err);
    pthread_mutex_lock(&watch->lock);
    snprintf(watch->not_kept, sizeof watch->not_kept, "%s",
             st == CM_OK ? "" : err.msg);
    pthread_mutex_unlock(&watch->lock);
    if (st != CM_OK)
        cm_log_warn("%s", err.msg);
}

/* Redis told: an entry, or that there is none, which is no news. */
static void
told(struct cm_halt_watch *watch, const struct cm_halt *halt, bool has_entry)
{
    pthread_mutex_lock(&watch->lock);
    bool changed = has_entry && (watch->halt.halted != halt->halted ||
                                 watch->halt.at_ms != halt->at_ms);
    if (has_entry)
        watch->halt = *halt;
    struct cm_halt now = watch->halt;
    bool retry = *watch->not_kept != '\0';
    watch->refused[0] = '\0';
    watch->asked = true;
    pthread_mutex_unlock(&watch->lock);
    put_in_force(watch);
    if (changed || retry)
        keep(watch, &now);
}

/* Redis is away (why NULL), or does not tell why. */
static void
not_told(struct cm_halt_watch *watch, const char *why)
{
    pthread_mutex_lock(&watch->lock);
    watch->asked = true;
    if (why)
        snprintf(watch->refused, sizeof watch->refused, "%s", why);
    pthread_mutex_unlock(&watch->lock);
    put_in_force(watch);
}

bool
cm_halt_watch_on(const struct cm_halt_watch *watch)
{
    return atomic_load_explicit(&watch->on, memory_order_acquire);
}

void
cm_halt_watch_report(struct cm_halt_watch *watch, struct cm_buf *json)
{
    pthread_mutex_lock(&watch->lock);
    cm_buf_printf(json, ",\"halted\":%s,\"halt\":",
                  atomic_load(&watch->on) ? "true" : "false");
    cm_halt_print(json, &watch->halt);
    const char *problem = *watch->refused ? watch->refused : watch->not_kept;
    if (*problem) {
        cm_buf_puts(json, ",\"halt_problem\":");
        cm_quote_json(json, problem, strlen(problem));
    }
    pthread_mutex_unlock(&watch->lock);
}

/* --- asking --- */

/* Does this answer mean that Redis is there and will not say? */
static bool is_refusal(enum cm_redis_class class)
{
    switch (class) {
    case CM_REDIS_DENIED:
    case CM_REDIS_WRONGTYPE:
    case CM_REDIS_REFUSED:
    case CM_REDIS_NOSCRIPT:
    case CM_REDIS_CONFLICT:
    case CM_REDIS_INVALID:
        return true;
    case CM_REDIS_OK:
    case CM_REDIS_GONE:
    case CM_REDIS_LATER:
    case CM_REDIS_READONLY:
    case CM_REDIS_MOVED:
        return false;
    }
    return false;
}

static enum cm_status
ask(struct cm_halt_watch *watch, int argc, const char *const *argv,
    int timeout_ms, struct redisReply **reply_r, struct cm_err *err)
{
    enum cm_redis_class class = CM_REDIS_OK;
    enum cm_status st = cm_link_command(watch->link, reply_r, argc, argv, NULL,
                                        timeout_ms, &class, err);
    if (st == CM_EPROTO && is_refusal(class)) {
        char why[sizeof err->msg + 64];
        snprintf(why, sizeof why,
                 "whether all is halted cannot be read, so "
                 "nothing is hurt: %s",
                 err->msg);
        not_told(watch, why);
    }
    return st;
}

static enum cm_status
look(struct cm_halt_watch *watch, struct cm_err *err)
{
    const char *argv[] = {"XREVRANGE", watch->keys.halt, "+",
                          "-",         "COUNT",          "1"};
    struct redisReply *reply = NULL;
    struct cm_halt halt;
    enum cm_status st = ask(watch, 6, argv, 0, &reply, err);
    if (st == CM_OK)
        st = cm_halt_read(&halt, watch->seen, sizeof watch->seen, reply, err);
    if (st == CM_OK)
        told(watch, &halt, reply->elements > 0);
    cm_link_reply_free(&reply);
    return st;
}

static enum cm_status
wait_for_bell(struct cm_halt_watch *watch, struct cm_err *err)
{
    const char *argv[] = {
        "XREAD",   "COUNT",          "1",        "BLOCK", CM_WATCH_BLOCK_TEXT,
        "STREAMS", watch->keys.halt, watch->seen};
    struct redisReply *reply = NULL;
    enum cm_status st = ask(
        watch, 8, argv, CM_WATCH_BLOCK_MS + watch->opts.link.command_timeout_ms,
        &reply, err);
    cm_link_reply_free(&reply);
    return st;
}

/* --- the thread --- */

static void
pause_ms(struct cm_halt_watch *watch, int ms)
{
    struct pollfd fd = {.fd = watch->wake_fd, .events = POLLIN};
    (void)poll(&fd, 1, ms);
}

static enum cm_status
step(struct cm_halt_watch *watch, struct cm_err *err)
{
    const struct cm_link_opts *opts = &watch->opts.link;
    if (watch->link) {
        enum cm_status st = wait_for_bell(watch, err);
        return st == CM_OK ? look(watch, err) : st;
    }
    enum cm_status st = cm_link_open_within(
        &watch->link, opts, opts->connect_timeout_ms + opts->command_timeout_ms,
        watch->wake_fd, err);
    if (st == CM_OK)
        st = look(watch, err);
    if (st == CM_OK)
        cm_backoff_reset(&watch->backoff);
    return st;
}

static void *
watch_main(void *arg)
{
    struct cm_halt_watch *watch = arg;
    while (!atomic_load(&watch->stopping)) {
        struct cm_err err = {CM_OK, ""};
        enum cm_status st = step(watch, &err);
        if (st == CM_OK)
            continue;
        not_told(watch, NULL);
        bool lives = watch->link && cm_link_alive(watch->link);
        if (lives)
            pause_ms(watch, CM_WATCH_RETRY_MS);
        cm_link_close(&watch->link);
        if (!lives)
            pause_ms(watch, cm_backoff_next_ms(&watch->backoff));
    }
    cm_link_close(&watch->link);
    return NULL;
}

enum cm_status
cm_halt_watch_start(struct cm_halt_watch **watch_r,
                    const struct cm_halt_watch_opts *opts, struct cm_err *err)
{
    struct cm_halt_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    pthread_mutex_init(&watch->lock, NULL);
    watch->opts = *opts;
    watch->opts.prefix = watch->opts.name = NULL; /* not needed again */
    watch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_init(&watch->on, true);
    enum cm_status st = cm_link_opts_dup(&watch->opts.link, &opts->link);
    if (st != CM_OK || !(watch->name = strdup(opts->name ? opts->name : "")))
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
    else if (watch->wake_fd < 0)
        st = cm_err_set(err, CM_EIO, "no descriptor left");
    if (st == CM_OK)
        st = cm_keys_init(&watch->keys, opts->prefix, err);
    if (st == CM_OK && opts->dir_fd >= 0)
        cm_halt_file_read(opts->dir_fd, watch->name, &watch->halt);
    if (st == CM_OK && opts->changed)
        opts->changed(opts->arg, true);
    if (st == CM_OK)
        st = cm_thread_start(&watch->thread, watch_main, watch, err);
    watch->running = st == CM_OK;
    if (st != CM_OK)
        cm_halt_watch_free(&watch);
    *watch_r = watch;
    return st;
}

void
cm_halt_watch_stop(struct cm_halt_watch *watch)
{
    if (!watch || !watch->running)
        return;
    uint64_t one = 1;
    atomic_store(&watch->stopping, true);
    if (write(watch->wake_fd, &one, sizeof one) < 0) {
        /* Full already, which wakes as well. */
    }
    pthread_join(watch->thread, NULL);
    watch->running = false;
}

void
cm_halt_watch_free(struct cm_halt_watch **watch_p)
{
    struct cm_halt_watch *watch = *watch_p;
    if (!watch)
        return;
    cm_halt_watch_stop(watch);
    cm_link_opts_fini(&watch->opts.link);
    free(watch->name);
    if (watch->wake_fd >= 0)
        close(watch->wake_fd);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
    *watch_p = NULL;
}
