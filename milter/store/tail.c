/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The change log. Redis answers XREAD from an id that was trimmed away with
 * what is left and no word about it, so nothing is trusted but the sequence
 * numbers in the entries, which have no holes. Entries that are not ours (an
 * XADD by hand) are passed over: a hole they hide shows in the next number.
 *
 * A batch was written by one script, so its rest is in the log when its first
 * entry is; rules come into force at its end, however many reads it takes.
 */
#include "milter/store/tail.h"
#include "milter/model/inbox.h"
#include "milter/store/envelope.h"
#include "milter/store/redis.h"
#include "milter/store/replica.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_TAIL_COUNT "500"
_Static_assert(CM_INBOX_DOC_MAX + CM_ENVELOPE_OVERHEAD == 65632,
               "CM_TAIL_LAST_BYTE is one byte beyond the largest document");

struct entry {
    const char *epoch, *op, *key, *doc; /* borrowed; NULL: not given */
    size_t doc_len;
    int64_t seq; /* 0: not given */
    bool more;   /* the next entry belongs to the same batch */
};

static bool
is_text(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING &&
           memchr(reply->str, '\0', reply->len) == NULL;
}

/* False when it is no entry of ours. */
static bool
read_entry(struct entry *entry, const struct redisReply *fields)
{
    memset(entry, 0, sizeof *entry);
    if (fields->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const struct redisReply *name = fields->element[i];
        const struct redisReply *value = fields->element[i + 1];
        if (name->type != REDIS_REPLY_STRING ||
            value->type != REDIS_REPLY_STRING)
            return false;
        if (strcmp(name->str, "doc") == 0) {
            entry->doc = value->str;
            entry->doc_len = value->len;
        } else if (!is_text(value)) {
            return false;
        } else if (strcmp(name->str, "epoch") == 0) {
            entry->epoch = value->str;
        } else if (strcmp(name->str, "seq") == 0) {
            entry->seq = strtoll(value->str, NULL, 10);
        } else if (strcmp(name->str, "op") == 0) {
            entry->op = value->str;
        } else if (strcmp(name->str, "key") == 0) {
            entry->key = value->str;
        } else if (strcmp(name->str, "more") == 0) {
            entry->more = true;
        }
    }
    return entry->epoch && entry->op && entry->key && entry->seq > 0;
}

static enum cm_status
keep(struct cm_replica *replica, const char *key, const char *text, size_t len,
     bool aside)
{
    return aside ? cm_replica_load(replica, key, text, len)
                 : cm_replica_apply(replica, key, text, len);
}

static enum cm_status
keep_broken(struct cm_replica *replica, const char *key, const char *why,
            bool aside)
{
    return aside ? cm_replica_load_broken(replica, key, why)
                 : cm_replica_apply_broken(replica, key, why);
}

enum cm_status
cm_tail_seen(struct cm_replica *replica, const char *key,
             const struct redisReply *reply, bool aside, bool may_be_gone,
             struct cm_err *err)
{
    enum cm_status st;
    enum cm_redis_class class = cm_link_reply_class(reply);
    if (class == CM_REDIS_WRONGTYPE)
        st = keep_broken(replica, key,
                         "the key in Redis holds no string, but something of "
                         "another type",
                         aside);
    else if (class != CM_REDIS_OK)
        return cm_err_set(err, CM_EPROTO, "Redis: %.160s", reply->str);
    else if (reply->type != REDIS_REPLY_STRING)
        return cm_err_set(err, CM_EPROTO,
                          "Redis: a reply of an unexpected kind");
    else if (reply->len > 0)
        st = keep(replica, key, reply->str, reply->len, aside);
    else if (may_be_gone)
        st = keep(replica, key, NULL, 0, aside);
    else
        st = keep_broken(replica, key,
                         "the index names it, but its document is gone: "
                         "evicted, or deleted by hand",
                         aside);
    if (st != CM_OK)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    return CM_OK;
}

/* The log leaves out large documents. */
static enum cm_status
fetch(struct cm_link *link, const struct cm_keys *keys,
      struct cm_replica *replica, const char *key, bool aside,
      struct cm_err *err)
{
    char name[CM_KEYS_TEXT + 1024];
    int n = snprintf(name, sizeof name, "%s%s", keys->cfg, key);
    if (n < 0 || (size_t)n >= sizeof name)
        return CM_OK; /* no key of ours is that long */
    const char *argv[] = {"GETRANGE", name, "0", CM_TAIL_LAST_BYTE};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_link_append(link, 4, argv, NULL, err);
    if (st == CM_OK)
        st = cm_link_collect(link, &reply, 0, err);
    if (st == CM_OK)
        st = cm_tail_seen(replica, key, reply, aside, true, err);
    cm_link_reply_free(&reply);
    return st;
}

struct tail {
    struct cm_link *link;
    const struct cm_keys *keys;
    struct cm_replica *replica;
    struct cm_position *pos;
    bool aside;
};

static void
wipe(const struct tail *tail, const char *begin)
{
    if (tail->aside)
        cm_replica_load_wipe(tail->replica, begin);
    else
        cm_replica_wipe(tail->replica, begin);
}

static enum cm_status
apply_entry(const struct tail *tail, const struct entry *entry,
            enum cm_tail *what_r, struct cm_err *err)
{
    struct cm_position *pos = tail->pos;
    enum cm_status st = CM_OK;
    if (strcmp(entry->epoch, pos->epoch) != 0 || entry->seq > pos->seq + 1) {
        *what_r = CM_TAIL_LOST;
        return CM_OK;
    }
    if (entry->seq <= pos->seq)
        return CM_OK; /* came with the documents themselves */
    if (strcmp(entry->op, "wipe") == 0)
        wipe(tail, entry->key);
    else if (strcmp(entry->op, "del") == 0)
        st = keep(tail->replica, entry->key, NULL, 0, tail->aside);
    else if (entry->doc)
        st = keep(tail->replica, entry->key, entry->doc, entry->doc_len,
                  tail->aside);
    else
        st = fetch(tail->link, tail->keys, tail->replica, entry->key,
                   tail->aside, err);
    if (st == CM_OK) {
        pos->seq = entry->seq;
        pos->inside = entry->more;
    }
    return st;
}

static enum cm_status
apply_entries(const struct tail *tail, const struct redisReply *entries,
              enum cm_tail *what_r, struct cm_err *err)
{
    enum cm_status st = CM_OK;
    *what_r = CM_TAIL_APPLIED;
    for (size_t i = 0;
         i < entries->elements && st == CM_OK && *what_r == CM_TAIL_APPLIED;
         i++) {
        const struct redisReply *at = entries->element[i];
        struct entry entry;
        if (at->type != REDIS_REPLY_ARRAY || at->elements != 2 ||
            !is_text(at->element[0]))
            return cm_err_set(err, CM_EPROTO,
                              "Redis: a log entry of an unexpected kind");
        if (read_entry(&entry, at->element[1]))
            st = apply_entry(tail, &entry, what_r, err);
        if (st == CM_OK)
            snprintf(tail->pos->id, sizeof tail->pos->id, "%s",
                     at->element[0]->str);
    }
    return st;
}

enum cm_status
cm_tail_read(struct cm_link *link, const struct cm_keys *keys,
             struct cm_replica *replica, struct cm_position *pos, bool aside,
             int block_ms, int command_timeout_ms, enum cm_tail *what_r,
             struct cm_err *err)
{
    struct tail tail = {link, keys, replica, pos, aside};
    struct redisReply *reply = NULL;
    const char *argv[8] = {"XREAD", "COUNT", CM_TAIL_COUNT};
    char block[16];
    int argc = 3;
    if (block_ms > 0) {
        snprintf(block, sizeof block, "%d", block_ms);
        argv[argc++] = "BLOCK";
        argv[argc++] = block;
    }
    argv[argc++] = "STREAMS";
    argv[argc++] = keys->log;
    argv[argc++] = pos->id;
    enum cm_status st =
        cm_link_command(link, &reply, argc, argv, NULL,
                        block_ms + command_timeout_ms, NULL, err);
    if (st != CM_OK)
        return st;
    *what_r = CM_TAIL_IDLE;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 &&
        reply->element[0]->type == REDIS_REPLY_ARRAY &&
        reply->element[0]->elements == 2 &&
        reply->element[0]->element[1]->type == REDIS_REPLY_ARRAY)
        st = apply_entries(&tail, reply->element[0]->element[1], what_r, err);
    else if (reply->type != REDIS_REPLY_NIL)
        st = cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
    if (!aside && *what_r != CM_TAIL_IDLE && !pos->inside)
        cm_replica_advance(replica, pos->seq);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_tail_head(struct cm_link *link, const struct cm_keys *keys, char *epoch_r,
             size_t cap, int64_t *seq_r, bool *has_data_r, struct cm_err *err)
{
    const char *argv[] = {"MGET", keys->epoch, keys->seq};
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_link_command(link, &reply, 3, argv, NULL, 0, NULL, err);
    if (st != CM_OK)
        return st;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        st = cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
    } else {
        const struct redisReply *epoch = reply->element[0];
        const struct redisReply *seq = reply->element[1];
        *has_data_r = is_text(epoch) && epoch->len > 0 && epoch->len < cap;
        if (*has_data_r) {
            memcpy(epoch_r, epoch->str, epoch->len + 1);
            *seq_r = is_text(seq) ? strtoll(seq->str, NULL, 10) : 0;
        }
    }
    cm_link_reply_free(&reply);
    return st;
}
