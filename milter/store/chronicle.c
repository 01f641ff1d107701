/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exclusive ranges ("(id") came with Redis 6.2, so the neighbour of an id is
 * computed here: ids are two 64-bit numbers and nothing lies between them.
 *
 * XREAD from an id that was trimmed away answers with what is left and no word
 * about it. A reader that keeps up never meets that; one that was away compares
 * the oldest and the newest entry with its own position when it comes back.
 */
#include "milter/store/chronicle.h"
#include "milter/log.h"
#include "milter/store/backoff.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"
#include "milter/store/thread.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CM_CHRONICLE_BLOCK_MS   1000
#define CM_CHRONICLE_BLOCK_TEXT "1000"
#define CM_CHRONICLE_READ_TEXT  "256" /* entries at once */

static enum cm_status
unexpected(struct cm_err *err)
{
    return cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
}

/* --- ids --- */

static const struct cm_record_id id_zero;

static struct cm_record_id
id_after(struct cm_record_id id)
{
    if (id.n < UINT64_MAX)
        return (struct cm_record_id){id.ms, id.n + 1};
    if (id.ms < UINT64_MAX)
        return (struct cm_record_id){id.ms + 1, 0};
    return id;
}

static struct cm_record_id
id_before(struct cm_record_id id)
{
    if (id.n > 0)
        return (struct cm_record_id){id.ms, id.n - 1};
    if (id.ms > 0)
        return (struct cm_record_id){id.ms - 1, UINT64_MAX};
    return id;
}

/* The id of an entry, also of one that is not ours. */
static bool
id_of(const struct redisReply *entry, struct cm_record_id *id_r)
{
    return entry->type == REDIS_REPLY_ARRAY && entry->elements == 2 &&
           entry->element[0]->type == REDIS_REPLY_STRING &&
           cm_record_id_parse(entry->element[0]->str, id_r) == CM_OK;
}

/* --- a page --- */

enum cm_status
cm_chronicle_page(struct cm_commits *commits, struct cm_record_id from,
                  bool newest_first, int count, cm_chronicle_fn *each,
                  void *arg, struct cm_record_id *seen_r, size_t *n_r,
                  struct cm_err *err)
{
    char edge[CM_RECORD_ID_BYTES], number[16];
    cm_record_id_print(newest_first ? id_before(from) : id_after(from), edge);
    snprintf(number, sizeof number, "%d", count);
    const char *forward[] = {"XRANGE", commits->keys.events, edge, "+", "COUNT",
                             number};
    const char *backward[] = {
        "XREVRANGE", commits->keys.events, edge, "-", "COUNT", number};
    struct redisReply *reply = NULL;
    struct cm_record record;
    *n_r = 0;
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 6,
                       newest_first ? backward : forward, NULL, err);
    if (st == CM_OK && reply->type != REDIS_REPLY_ARRAY)
        st = unexpected(err);
    bool more = true;
    for (size_t i = 0; st == CM_OK && more && i < reply->elements; i++) {
        if (!id_of(reply->element[i], seen_r)) {
            st = unexpected(err);
            break;
        }
        ++*n_r;
        if (cm_record_read(&record, reply->element[i]))
            more = each(arg, &record);
    }
    cm_link_reply_free(&reply);
    return st;
}

/* --- following --- */

struct cm_chronicle {
    struct cm_link_opts link_opts;
    struct cm_keys keys;
    struct cm_chronicle_ops ops;
    char history[16];
    pthread_t thread;
    int wake_fd; /* ends an exchange at stop */
    atomic_bool stopping;

    /* the thread's own */
    struct cm_link *link;
    struct cm_backoff backoff;
    bool began;               /* the history was read */
    struct cm_record_id seen; /* up to here all was handed over */
};

static enum cm_status
ask(struct cm_chronicle *chronicle, int argc, const char *const *argv,
    int timeout_ms, struct redisReply **reply_r, struct cm_err *err)
{
    return cm_link_command(chronicle->link, reply_r, argc, argv, NULL,
                           timeout_ms, NULL, err);
}

/* The newest or the oldest entries there are. */
static enum cm_status
read_end(struct cm_chronicle *chronicle, bool newest, const char *count,
         struct redisReply **reply_r, struct cm_err *err)
{
    const char *argv[] = {newest ? "XREVRANGE" : "XRANGE",
                          chronicle->keys.events,
                          newest ? "+" : "-",
                          newest ? "-" : "+",
                          "COUNT",
                          count};
    enum cm_status st = ask(chronicle, 6, argv, 0, reply_r, err);
    if (st == CM_OK && (*reply_r)->type != REDIS_REPLY_ARRAY) {
        cm_link_reply_free(reply_r);
        st = unexpected(err);
    }
    return st;
}

/* Hands over the entries of an array, in its order or from its end. */
static enum cm_status
hand_over(struct cm_chronicle *chronicle, const struct redisReply *entries,
          bool from_end, struct cm_err *err)
{
    size_t n = 0, count = (size_t)entries->elements;
    struct cm_record_id last;
    struct cm_record *records = calloc(count > 0 ? count : 1, sizeof *records);
    if (!records)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const struct redisReply *entry =
            entries->element[from_end ? count - 1 - i : i];
        if (!id_of(entry, &last)) {
            free(records);
            return unexpected(err);
        }
        n += cm_record_read(&records[n], entry);
    }
    if (n > 0 || !chronicle->began)
        chronicle->ops.read(chronicle->ops.arg, records, n);
    if (count > 0)
        chronicle->seen = last;
    free(records);
    return CM_OK;
}

static enum cm_status
read_history(struct cm_chronicle *chronicle, struct cm_err *err)
{
    struct redisReply *reply = NULL;
    enum cm_status st =
        read_end(chronicle, true, chronicle->history, &reply, err);
    if (st == CM_OK)
        st = hand_over(chronicle, reply, true, err);
    chronicle->began = st == CM_OK;
    cm_link_reply_free(&reply);
    return st;
}

/* After an absence: is what comes next what comes next? */
static enum cm_status
look_for_loss(struct cm_chronicle *chronicle, struct cm_err *err)
{
    struct redisReply *newest = NULL, *oldest = NULL;
    struct cm_record_id first = id_zero, last = id_zero;
    enum cm_status st = read_end(chronicle, true, "1", &newest, err);
    if (st == CM_OK)
        st = read_end(chronicle, false, "1", &oldest, err);
    if (st == CM_OK && newest->elements > 0 && oldest->elements > 0 &&
        (!id_of(newest->element[0], &last) ||
         !id_of(oldest->element[0], &first)))
        st = unexpected(err);
    cm_link_reply_free(&newest);
    cm_link_reply_free(&oldest);
    if (st != CM_OK)
        return st;
    bool replaced = cm_record_id_compare(last, chronicle->seen) < 0;
    bool trimmed = cm_record_id_compare(first, chronicle->seen) > 0;
    if (replaced || (trimmed && cm_record_id_compare(chronicle->seen, id_zero)))
        chronicle->ops.lost(chronicle->ops.arg);
    if (replaced)
        chronicle->seen = id_zero;
    return CM_OK;
}

static enum cm_status
connect_redis(struct cm_chronicle *chronicle, struct cm_err *err)
{
    const struct cm_link_opts *opts = &chronicle->link_opts;
    enum cm_status st =
        cm_link_open_within(&chronicle->link, opts,
                            opts->connect_timeout_ms + opts->command_timeout_ms,
                            chronicle->wake_fd, err);
    if (st == CM_OK)
        st = chronicle->began ? look_for_loss(chronicle, err)
                              : read_history(chronicle, err);
    return st;
}

/* Waits up to CM_CHRONICLE_BLOCK_MS for what is new. */
static enum cm_status
follow(struct cm_chronicle *chronicle, struct cm_err *err)
{
    char from[CM_RECORD_ID_BYTES];
    cm_record_id_print(chronicle->seen, from);
    const char *argv[] = {"XREAD",
                          "COUNT",
                          CM_CHRONICLE_READ_TEXT,
                          "BLOCK",
                          CM_CHRONICLE_BLOCK_TEXT,
                          "STREAMS",
                          chronicle->keys.events,
                          from};
    struct redisReply *reply = NULL;
    enum cm_status st =
        ask(chronicle, 8, argv,
            CM_CHRONICLE_BLOCK_MS + chronicle->link_opts.command_timeout_ms,
            &reply, err);
    if (st != CM_OK)
        return st;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 &&
        reply->element[0]->type == REDIS_REPLY_ARRAY &&
        reply->element[0]->elements == 2 &&
        reply->element[0]->element[1]->type == REDIS_REPLY_ARRAY)
        st = hand_over(chronicle, reply->element[0]->element[1], false, err);
    else if (reply->type != REDIS_REPLY_NIL)
        st = unexpected(err);
    cm_link_reply_free(&reply);
    return st;
}

/* The back-off, or less when it is time to end. */
static void
rest(struct cm_chronicle *chronicle)
{
    struct pollfd wake = {.fd = chronicle->wake_fd, .events = POLLIN};
    (void)poll(&wake, 1, cm_backoff_next_ms(&chronicle->backoff));
}

static void
note_failure(const struct cm_chronicle *chronicle, const struct cm_err *err)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    if (!atomic_load(&chronicle->stopping) &&
        cm_log_gate_open(&gate, &held_back))
        cm_log_warn("what=events state=down error=\"%s\" held_back=%lu",
                    err->msg, held_back);
}

static void *
chronicle_main(void *arg)
{
    struct cm_chronicle *chronicle = arg;
    while (!atomic_load(&chronicle->stopping)) {
        struct cm_err err = {CM_OK, ""};
        enum cm_status st = chronicle->link ? follow(chronicle, &err)
                                            : connect_redis(chronicle, &err);
        if (st == CM_OK) {
            cm_backoff_reset(&chronicle->backoff);
            continue;
        }
        note_failure(chronicle, &err);
        cm_link_close(&chronicle->link);
        rest(chronicle);
    }
    cm_link_close(&chronicle->link);
    return NULL;
}

static void
free_chronicle(struct cm_chronicle *chronicle)
{
    cm_link_opts_fini(&chronicle->link_opts);
    if (chronicle->wake_fd >= 0)
        close(chronicle->wake_fd);
    free(chronicle);
}

enum cm_status
cm_chronicle_start(struct cm_chronicle **chronicle_r,
                   const struct cm_link_opts *link, const char *prefix,
                   int history, const struct cm_chronicle_ops *ops,
                   struct cm_err *err)
{
    struct cm_chronicle *chronicle = calloc(1, sizeof *chronicle);
    if (!chronicle)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    chronicle->ops = *ops;
    chronicle->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    snprintf(chronicle->history, sizeof chronicle->history, "%d", history);
    enum cm_status st = cm_link_check_address(link->address, err);
    if (st == CM_OK)
        st = cm_keys_init(&chronicle->keys, prefix, err);
    if (st == CM_OK && chronicle->wake_fd < 0)
        st = cm_err_set(err, CM_EIO, "no descriptor left");
    if (st == CM_OK && cm_link_opts_dup(&chronicle->link_opts, link) != CM_OK)
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
    if (st == CM_OK)
        st =
            cm_thread_start(&chronicle->thread, chronicle_main, chronicle, err);
    if (st == CM_OK)
        *chronicle_r = chronicle;
    else
        free_chronicle(chronicle);
    return st;
}

void
cm_chronicle_stop(struct cm_chronicle **chronicle_p)
{
    struct cm_chronicle *chronicle = *chronicle_p;
    uint64_t one = 1;
    if (!chronicle)
        return;
    atomic_store(&chronicle->stopping, true);
    if (write(chronicle->wake_fd, &one, sizeof one) < 0) {
        /* Full already, which wakes as well. */
    }
    pthread_join(chronicle->thread, NULL);
    free_chronicle(chronicle);
    *chronicle_p = NULL;
}
