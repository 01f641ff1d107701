/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order makes it right without a lock in Redis:
 *
 *   1. the id of the log's last entry
 *   2. epoch and sequence number S: all entries after 1 have seq > S, or their
 *      documents are in what step 3 reads
 *   3. every document, paged along the index
 *   4. epoch and sequence number again, which must not have gone back: Redis
 *      may have been emptied while we read, and half a table is not a table
 *   5. the log after 1, into the new table, up to at least 4
 *
 * Documents are fetched by GETRANGE with a limit, so that a value of 512 MiB
 * costs no more than a document; MGET has no limit, and STRLEN first would be
 * one more command for each.
 */
#include "milter/store/resync.h"
#include "milter/store/redis.h"
#include "milter/store/replica.h"
#include "milter/store/rulebook.h"

#include <stdio.h>
#include <string.h>

#define CM_PAGE      500
#define CM_PAGE_TEXT "500"
#define CM_KEY_ROOM  (CM_KEYS_TEXT + 1024)

/* Step 1. Without a log every later entry counts. */
static enum cm_status
last_log_id(struct cm_link *link, const struct cm_keys *keys, char *id_r,
            size_t cap, struct cm_err *err)
{
    const char *argv[] = {"XINFO", "STREAM", keys->log};
    enum cm_redis_class class;
    struct cm_err why = {CM_OK, ""};
    struct redisReply *reply = NULL;
    snprintf(id_r, cap, "0-0");
    enum cm_status st =
        cm_link_command(link, &reply, 3, argv, NULL, 0, &class, &why);
    if (st == CM_EPROTO && class == CM_REDIS_REFUSED)
        return CM_OK; /* "no such key" */
    if (st != CM_OK)
        return cm_err_set(err, st, "%s", why.msg);
    for (size_t i = 0;
         reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2)
        if (reply->element[i]->type == REDIS_REPLY_STRING &&
            strcmp(reply->element[i]->str, "last-generated-id") == 0 &&
            reply->element[i + 1]->type == REDIS_REPLY_STRING)
            snprintf(id_r, cap, "%s", reply->element[i + 1]->str);
    cm_link_reply_free(&reply);
    return CM_OK;
}

static enum cm_status
ask_docs(struct cm_link *link, const struct cm_keys *keys,
         const struct redisReply *page, struct cm_err *err)
{
    char name[CM_KEY_ROOM];
    const char *argv[] = {"GETRANGE", name, "0", CM_TAIL_LAST_BYTE};
    enum cm_status st = CM_OK;
    for (size_t i = 0; i < page->elements && st == CM_OK; i++) {
        const struct redisReply *key = page->element[i];
        int n = key->type == REDIS_REPLY_STRING
                    ? snprintf(name, sizeof name, "%s%s", keys->cfg, key->str)
                    : -1;
        if (n < 0 || (size_t)n >= sizeof name)
            return cm_err_set(err, CM_EPROTO,
                              "Redis: the index holds an impossible name");
        st = cm_link_append(link, 4, argv, NULL, err);
    }
    return st;
}

static enum cm_status
load_docs(struct cm_link *link, struct cm_replica *replica,
          const struct redisReply *page, struct cm_err *err)
{
    enum cm_status st = CM_OK;
    for (size_t i = 0; i < page->elements && st == CM_OK; i++) {
        struct redisReply *reply = NULL;
        st = cm_link_collect(link, &reply, 0, err);
        if (st == CM_OK)
            st = cm_tail_seen(replica, page->element[i]->str, reply, true,
                              false, err);
        cm_link_reply_free(&reply);
    }
    return st;
}

/* Step 3 for one kind: everything from "[kind:" to before "(kind;", the
 * character after the colon. */
static enum cm_status
load_kind(struct cm_link *link, const struct cm_keys *keys,
          struct cm_replica *replica, const char *kind, struct cm_err *err)
{
    char from[CM_KEY_ROOM], to[16];
    snprintf(from, sizeof from, "[%s:", kind);
    snprintf(to, sizeof to, "(%s;", kind);
    const char *argv[] = {"ZRANGEBYLEX", keys->idx, from,        to,
                          "LIMIT",       "0",       CM_PAGE_TEXT};
    for (;;) {
        struct redisReply *page = NULL;
        enum cm_status st =
            cm_link_command(link, &page, 7, argv, NULL, 0, NULL, err);
        if (st == CM_OK && page->type != REDIS_REPLY_ARRAY)
            st = cm_err_set(err, CM_EPROTO,
                            "Redis: a reply of an unexpected kind");
        if (st == CM_OK)
            st = ask_docs(link, keys, page, err);
        if (st == CM_OK)
            st = load_docs(link, replica, page, err);
        size_t n = st == CM_OK ? page->elements : 0;
        if (n > 0)
            snprintf(from, sizeof from, "(%s", page->element[n - 1]->str);
        cm_link_reply_free(&page);
        if (st != CM_OK || n < CM_PAGE)
            return st;
    }
}

/* Steps 4 and 5. */
static enum cm_status
catch_up(struct cm_link *link, const struct cm_keys *keys,
         struct cm_replica *replica, int command_timeout_ms,
         struct cm_position *pos, struct cm_err *err)
{
    char epoch[sizeof pos->epoch] = "";
    int64_t seq = 0;
    bool has_data = false;
    enum cm_tail what = CM_TAIL_APPLIED;
    enum cm_status st =
        cm_tail_head(link, keys, epoch, sizeof epoch, &seq, &has_data, err);
    while (st == CM_OK && what == CM_TAIL_APPLIED &&
           (pos->seq < seq || pos->inside))
        st = cm_tail_read(link, keys, replica, pos, true, 0, command_timeout_ms,
                          &what, err);
    if (st != CM_OK)
        return st;
    if (!has_data || strcmp(epoch, pos->epoch) != 0 || what == CM_TAIL_LOST ||
        pos->seq < seq || pos->inside)
        return cm_err_set(err, CM_ECONFLICT,
                          "the data in Redis changed while it was read");
    return CM_OK;
}

enum cm_status
cm_resync(struct cm_link *link, const struct cm_keys *keys,
          struct cm_replica *replica, int command_timeout_ms,
          struct cm_position *pos_r, struct cm_err *err)
{
    struct cm_position pos = {.seq = 0};
    bool has_data = false;
    enum cm_status st = last_log_id(link, keys, pos.id, sizeof pos.id, err);
    if (st == CM_OK)
        st = cm_tail_head(link, keys, pos.epoch, sizeof pos.epoch, &pos.seq,
                          &has_data, err);
    if (st == CM_OK && !has_data) {
        *pos_r = pos;
        return cm_err_set(err, CM_NOTFOUND, "Redis holds no data of ours");
    }
    if (st == CM_OK && cm_replica_begin(replica) != CM_OK)
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
    if (st == CM_OK)
        st = load_kind(link, keys, replica, "inbox", err);
    for (size_t i = 0; st == CM_OK && cm_rulebook_kinds[i]; i++)
        st = load_kind(link, keys, replica, cm_rulebook_kinds[i], err);
    if (st == CM_OK)
        st = catch_up(link, keys, replica, command_timeout_ms, &pos, err);
    if (st == CM_OK && cm_replica_swap(replica, pos.epoch, pos.seq) != CM_OK)
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
    cm_replica_abandon(replica); /* nothing after a swap */
    if (st == CM_OK)
        *pos_r = pos;
    return st;
}
