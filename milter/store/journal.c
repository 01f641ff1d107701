/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One ring, one lock held for a copy of a kilobyte: at ten thousand incidents a
 * second that is nothing, and a ring per thread would lose their order.
 *
 * The thread sends a batch pipelined: first the totals, then one XADD for each
 * incident. What Redis has not acknowledged stays where it is and goes again.
 * Totals are moved into a batch of their own that keeps its token until it is
 * acknowledged, while new ones gather beside it.
 */
#include "milter/store/journal.h"
#include "milter/clock.h"
#include "milter/store/backoff.h"
#include "milter/store/entry.h"
#include "milter/store/hits.h"
#include "milter/store/keys.h"
#include "milter/store/redis.h"
#include "milter/store/script.h"
#include "milter/store/tally.h"
#include "milter/store/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define CM_JOURNAL_BATCH    64
#define CM_JOURNAL_FLUSH_MS 250 /* totals wait at most that long */
#define CM_JOURNAL_STOP_MS  200

/* KEYS: totals, the host's last token, the hash of rules; token, how many
 * arguments are of totals, then name and amount in turns: totals, then rules */
static const char flush_lua[] =
    "if redis.call('GET', KEYS[2]) == ARGV[1] then\n"
    "    return 0\n"
    "end\n"
    "redis.call('SET', KEYS[2], ARGV[1], 'PX', 86400000)\n"
    "for i = 3, #ARGV, 2 do\n"
    "    redis.call('HINCRBY', i < 3 + ARGV[2] and KEYS[1] or KEYS[3],\n"
    "        ARGV[i], ARGV[i + 1])\n"
    "end\n"
    "return 1\n";

struct cm_journal {
    struct cm_link_opts link_opts;
    struct cm_keys keys;
    struct cm_script flush;
    char *host_id;
    char *flush_key;
    char stream_max[24];
    pthread_t thread;
    bool running; /* the thread is to be joined; the owner's */
    int wake_fd;  /* ends an exchange at stop */

    struct cm_tally tally;
    struct cm_hits hits; /* not yet in a batch */
    atomic_uint_fast64_t dropped;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* an incident, stop, or the thread's end */
    bool stopping, ended;   /* lock */
    struct cm_incident *ring;
    size_t ring_size, first, used; /* lock */
    uint64_t first_n;              /* lock: number of ring[first] */

    /* the thread's own */
    struct cm_link *link;
    struct cm_backoff backoff;
    int64_t batch[CM_TALLY_CELLS]; /* being flushed */
    struct cm_hit batch_hits[CM_HITS_MAX];
    size_t nbatch_hits;
    char token[64]; /* of the batch; "" when there is none */
    uint64_t tokens;
    int64_t started_us;
    int64_t retry_at_ms, stop_at_ms;
};

/* --- the mail path --- */

void
cm_journal_record(struct cm_journal *journal,
                  const struct cm_incident *incident)
{
    cm_tally_incident(&journal->tally, incident);
    cm_hits_add(&journal->hits, incident);
    pthread_mutex_lock(&journal->lock);
    if (journal->used < journal->ring_size) {
        size_t at = (journal->first + journal->used) % journal->ring_size;
        journal->ring[at] = *incident;
        if (journal->used++ == 0)
            pthread_cond_broadcast(&journal->changed);
    } else {
        atomic_fetch_add(&journal->dropped, 1);
    }
    pthread_mutex_unlock(&journal->lock);
}

void
cm_journal_count(struct cm_journal *journal, enum cm_count what, int64_t n)
{
    cm_tally_count(&journal->tally, what, n);
}

const struct cm_tally *
cm_journal_tally(const struct cm_journal *journal)
{
    return &journal->tally;
}

uint64_t
cm_journal_dropped(const struct cm_journal *journal)
{
    return atomic_load(&journal->dropped);
}

/* --- sending --- */

/* Moves what has gathered into the batch, unless one is on its way. */
static void
fill_batch(struct cm_journal *journal)
{
    if (*journal->token)
        return;
    bool any = cm_tally_take(&journal->tally, journal->batch);
    journal->nbatch_hits = cm_hits_take(&journal->hits, journal->batch_hits);
    if (any || journal->nbatch_hits > 0)
        snprintf(journal->token, sizeof journal->token, "%" PRId64 "-%" PRIu64,
                 journal->started_us, ++journal->tokens);
}

static enum cm_status
append_batch(struct cm_journal *journal, bool by_text, struct cm_err *err)
{
    char ntotals[16];
    const char *argv[8 + 2 * (CM_TALLY_CELLS + CM_HITS_MAX)] = {
        by_text ? "EVAL" : "EVALSHA",
        by_text ? journal->flush.text : journal->flush.sha,
        "3",
        journal->keys.totals,
        journal->flush_key,
        journal->keys.rules,
        journal->token,
        ntotals};
    char names[CM_TALLY_CELLS][CM_TALLY_NAME_BYTES];
    char numbers[CM_TALLY_CELLS + CM_HITS_MAX][24];
    int argc = 8;
    for (size_t i = 0; i < CM_TALLY_CELLS; i++) {
        if (journal->batch[i] == 0)
            continue;
        cm_tally_name(i, names[i], sizeof names[i]);
        snprintf(numbers[i], sizeof numbers[i], "%" PRId64, journal->batch[i]);
        argv[argc++] = names[i];
        argv[argc++] = numbers[i];
    }
    snprintf(ntotals, sizeof ntotals, "%d", argc - 8);
    for (size_t i = 0; i < journal->nbatch_hits; i++) {
        char *number = numbers[CM_TALLY_CELLS + i];
        snprintf(number, sizeof *numbers, "%" PRId64, journal->batch_hits[i].n);
        argv[argc++] = journal->batch_hits[i].name;
        argv[argc++] = number;
    }
    return cm_link_append(journal->link, argc, argv, NULL, err);
}

static enum cm_status
append_incident(struct cm_journal *journal, const struct cm_incident *incident,
                uint64_t n, struct cm_err *err)
{
    struct cm_entry_texts texts;
    const char *argv[6 + 2 * CM_ENTRY_FIELDS] = {
        "XADD", journal->keys.events, "MAXLEN", "~", journal->stream_max, "*"};
    cm_entry_print(&texts, incident, journal->host_id, n);
    for (int i = 0; i < CM_ENTRY_FIELDS; i++) {
        argv[6 + 2 * i] = cm_entry_field_name((enum cm_entry_field)i);
        argv[7 + 2 * i] = texts.at[i];
    }
    return cm_link_append(journal->link, sizeof argv / sizeof *argv, argv, NULL,
                          err);
}

static int
time_left(const struct cm_journal *journal)
{
    int64_t left = journal->link_opts.command_timeout_ms;
    if (journal->stop_at_ms > 0 &&
        journal->stop_at_ms - cm_clock_mono_ms() < left)
        left = journal->stop_at_ms - cm_clock_mono_ms();
    return left < 1 ? 1 : (int)left;
}

static enum cm_status
collect(struct cm_journal *journal, enum cm_redis_class *class_r,
        struct cm_err *err)
{
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_link_collect(journal->link, &reply, time_left(journal), err);
    *class_r = cm_link_reply_class(reply);
    cm_link_reply_free(&reply);
    return st;
}

/* CM_EPROTO: Redis refused something, which stays and is tried again later. */
static enum cm_status
send_totals(struct cm_journal *journal, struct cm_err *err)
{
    enum cm_redis_class class = CM_REDIS_OK;
    fill_batch(journal);
    if (!*journal->token)
        return CM_OK;
    enum cm_status st = append_batch(journal, false, err);
    if (st == CM_OK)
        st = collect(journal, &class, err);
    if (st == CM_OK && class == CM_REDIS_NOSCRIPT) {
        st = append_batch(journal, true, err);
        if (st == CM_OK)
            st = collect(journal, &class, err);
    }
    if (st == CM_OK && class != CM_REDIS_OK)
        return CM_EPROTO;
    if (st == CM_OK)
        journal->token[0] = '\0';
    return st;
}

/* The incidents at the front of the ring, at most a batch. They leave the ring
 * once acknowledged; a refusal in the middle keeps the rest. */
static enum cm_status
send_incidents(struct cm_journal *journal, struct cm_err *err)
{
    enum cm_status st = CM_OK;
    enum cm_redis_class class = CM_REDIS_OK;
    size_t sent = 0, done = 0;
    /* Recorders only touch slots beyond first + used: those up to n stay as
     * they are while we read them without the lock. */
    pthread_mutex_lock(&journal->lock);
    size_t n =
        journal->used < CM_JOURNAL_BATCH ? journal->used : CM_JOURNAL_BATCH;
    size_t first = journal->first;
    uint64_t number = journal->first_n;
    pthread_mutex_unlock(&journal->lock);
    for (; sent < n && st == CM_OK; sent++)
        st = append_incident(
            journal, &journal->ring[(first + sent) % journal->ring_size],
            number + sent, err);
    for (size_t i = 0; i < sent && st == CM_OK; i++) {
        enum cm_redis_class one = CM_REDIS_OK;
        st = collect(journal, &one, err);
        if (st == CM_OK && one != CM_REDIS_OK)
            class = one;
        if (st == CM_OK && class == CM_REDIS_OK)
            done++;
    }
    pthread_mutex_lock(&journal->lock);
    journal->first = (journal->first + done) % journal->ring_size;
    journal->used -= done;
    journal->first_n += done;
    pthread_mutex_unlock(&journal->lock);
    return st == CM_OK && class != CM_REDIS_OK ? CM_EPROTO : st;
}

static enum cm_status
send_all(struct cm_journal *journal, struct cm_err *err)
{
    enum cm_status st = CM_OK;
    if (!journal->link)
        st = cm_link_open_within(&journal->link, &journal->link_opts,
                                 journal->link_opts.connect_timeout_ms +
                                     time_left(journal),
                                 journal->wake_fd, err);
    if (st == CM_OK)
        st = send_totals(journal, err);
    if (st == CM_OK)
        st = send_incidents(journal, err);
    if (st != CM_OK && journal->link) /* also after a refusal: maybe a replica
                                         now, and the next try finds out */
        cm_link_close(&journal->link);
    return st;
}

/* --- the thread --- */

static bool
has_totals(const struct cm_journal *journal)
{
    return *journal->token != '\0' || cm_tally_any(&journal->tally);
}

/* Waits for something to do. With the lock held. */
static void
wait_for_work(struct cm_journal *journal)
{
    int64_t now = cm_clock_mono_ms();
    int64_t until_ms = now + CM_JOURNAL_FLUSH_MS;
    bool backing_off = journal->retry_at_ms > now;
    if (backing_off)
        until_ms = journal->retry_at_ms;
    struct timespec until = {.tv_sec = until_ms / 1000,
                             .tv_nsec = until_ms % 1000 * 1000000};
    int rc = 0;
    while (!journal->stopping && rc == 0 && (backing_off || journal->used == 0))
        rc = pthread_cond_timedwait(&journal->changed, &journal->lock, &until);
}

static void *
journal_main(void *arg)
{
    struct cm_journal *journal = arg;
    struct cm_err err;
    for (;;) {
        pthread_mutex_lock(&journal->lock);
        wait_for_work(journal);
        bool stopping = journal->stopping, any = journal->used > 0;
        pthread_mutex_unlock(&journal->lock);
        any = any || has_totals(journal);
        if (stopping && (!any || (journal->stop_at_ms > 0 &&
                                  journal->stop_at_ms <= cm_clock_mono_ms())))
            break;
        if (stopping && journal->stop_at_ms == 0)
            journal->stop_at_ms = cm_clock_mono_ms() + CM_JOURNAL_STOP_MS;
        enum cm_status st = any ? send_all(journal, &err) : CM_OK;
        if (st == CM_OK)
            cm_backoff_reset(&journal->backoff);
        else if (stopping)
            break;
        else
            journal->retry_at_ms =
                cm_clock_mono_ms() + cm_backoff_next_ms(&journal->backoff);
    }
    cm_link_close(&journal->link);
    pthread_mutex_lock(&journal->lock);
    journal->ended = true;
    pthread_cond_broadcast(&journal->changed);
    pthread_mutex_unlock(&journal->lock);
    return NULL;
}

void
cm_journal_free(struct cm_journal **journal_p)
{
    struct cm_journal *journal = *journal_p;
    if (!journal)
        return;
    cm_hits_fini(&journal->hits);
    cm_link_opts_fini(&journal->link_opts);
    pthread_cond_destroy(&journal->changed);
    pthread_mutex_destroy(&journal->lock);
    if (journal->wake_fd >= 0)
        close(journal->wake_fd);
    free(journal->host_id);
    free(journal->flush_key);
    free(journal->ring);
    free(journal);
    *journal_p = NULL;
}

static enum cm_status
copy_opts(struct cm_journal *journal, const struct cm_journal_opts *opts,
          struct cm_err *err)
{
    size_t room = CM_KEYS_TEXT + strlen(opts->host_id) + sizeof ":st:flush:";
    journal->ring_size = opts->ring > 0 ? opts->ring : 1;
    journal->ring = calloc(journal->ring_size, sizeof *journal->ring);
    journal->host_id = strdup(opts->host_id);
    journal->flush_key = malloc(room);
    if (!journal->ring || !journal->host_id || !journal->flush_key ||
        cm_link_opts_dup(&journal->link_opts, &opts->link) != CM_OK)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    snprintf(journal->flush_key, room, "%s:st:flush:%s", opts->prefix,
             opts->host_id);
    snprintf(journal->stream_max, sizeof journal->stream_max, "%" PRId64,
             opts->stream_max);
    if (journal->wake_fd < 0)
        return cm_err_set(err, CM_EIO, "no descriptor left");
    enum cm_status st = cm_link_check_address(opts->link.address, err);
    if (st == CM_OK)
        st = cm_keys_init(&journal->keys, opts->prefix, err);
    if (st == CM_OK)
        st = cm_script_init(&journal->flush, flush_lua, err);
    return st;
}

enum cm_status
cm_journal_start(struct cm_journal **journal_r,
                 const struct cm_journal_opts *opts, struct cm_err *err)
{
    struct cm_journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&journal->lock, NULL);
    cm_hits_init(&journal->hits);
    journal->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    journal->first_n = 1;
    /* Names the process's batches: the wall clock, because the monotonic one
     * begins again with the machine. */
    journal->started_us = cm_clock_wall_ms() * 1000 + cm_clock_mono_us() % 1000;
    enum cm_status st = copy_opts(journal, opts, err);
    if (st == CM_OK)
        st = cm_thread_start(&journal->thread, journal_main, journal, err);
    journal->running = st == CM_OK;
    if (st != CM_OK)
        cm_journal_free(&journal);
    *journal_r = journal;
    return st;
}

void
cm_journal_stop(struct cm_journal *journal)
{
    int64_t until_ms = cm_clock_mono_ms() + CM_JOURNAL_STOP_MS;
    struct timespec until = {.tv_sec = until_ms / 1000,
                             .tv_nsec = until_ms % 1000 * 1000000};
    if (!journal->running)
        return;
    pthread_mutex_lock(&journal->lock);
    journal->stopping = true;
    pthread_cond_broadcast(&journal->changed);
    while (!journal->ended &&
           pthread_cond_timedwait(&journal->changed, &journal->lock, &until) !=
               ETIMEDOUT)
        ;
    bool ended = journal->ended;
    pthread_mutex_unlock(&journal->lock);
    uint64_t one = 1;
    if (!ended && write(journal->wake_fd, &one, sizeof one) < 0) {
        /* Full already, which wakes as well. */
    }
    pthread_join(journal->thread, NULL);
    journal->running = false;
}
