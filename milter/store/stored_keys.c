/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A value is "sha256:<64 hex digits> {...}", so that a person who looks into
 * Redis knows what it is.
 */
#include "milter/store/stored_keys.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_VALUE_HEAD "sha256:"

static const char hex[] = "0123456789abcdef";

void
cm_stored_keys_fini(struct cm_stored_keys *keys)
{
    for (size_t i = 0; i < keys->n; i++)
        free(keys->at[i].doc);
    free(keys->at);
    memset(keys, 0, sizeof *keys);
}

static bool
is_hex(const char *text, size_t len)
{
    return strspn(text, hex) >= len;
}

/* CM_NOTFOUND: it is no key. */
static enum cm_status
read_key(struct cm_stored_key *key_r, const struct redisReply *id,
         const struct redisReply *value)
{
    const size_t head = strlen(CM_VALUE_HEAD);
    if (id->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING ||
        id->len != CM_STORED_KEY_ID || !is_hex(id->str, CM_STORED_KEY_ID) ||
        value->len < head + CM_STORED_KEY_DIGEST + 2 ||
        memcmp(value->str, CM_VALUE_HEAD, head) != 0 ||
        !is_hex(value->str + head, CM_STORED_KEY_DIGEST) ||
        value->str[head + CM_STORED_KEY_DIGEST] != ' ')
        return CM_NOTFOUND;
    memcpy(key_r->id, id->str, CM_STORED_KEY_ID + 1);
    memcpy(key_r->digest, value->str + head, CM_STORED_KEY_DIGEST);
    key_r->digest[CM_STORED_KEY_DIGEST] = '\0';
    key_r->doc = strdup(value->str + head + CM_STORED_KEY_DIGEST + 1);
    return key_r->doc ? CM_OK : CM_ENOMEM;
}

static int
by_id(const void *a, const void *b)
{
    const struct cm_stored_key *one = a, *two = b;
    return strcmp(one->id, two->id);
}

enum cm_status
cm_commit_keys(struct cm_commits *commits, struct cm_stored_keys *keys_r,
               struct cm_err *err)
{
    const char *argv[] = {"HGETALL", commits->keys.api_keys};
    struct redisReply *reply = NULL;
    memset(keys_r, 0, sizeof *keys_r);
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 2, argv, NULL, err);
    if (st == CM_OK && reply->type != REDIS_REPLY_ARRAY)
        st = cm_commit_unexpected(err);
    if (st == CM_OK && reply->elements >= 2) {
        keys_r->at = calloc(reply->elements / 2, sizeof *keys_r->at);
        st = keys_r->at ? CM_OK : CM_ENOMEM;
    }
    for (size_t i = 0; st == CM_OK && i + 1 < reply->elements; i += 2) {
        st = read_key(&keys_r->at[keys_r->n], reply->element[i],
                      reply->element[i + 1]);
        keys_r->n += st == CM_OK;
        if (st == CM_NOTFOUND)
            st = CM_OK;
    }
    cm_link_reply_free(&reply);
    if (st == CM_ENOMEM)
        cm_err_set(err, st, "out of memory");
    if (st != CM_OK)
        cm_stored_keys_fini(keys_r);
    else if (keys_r->n > 0)
        qsort(keys_r->at, keys_r->n, sizeof *keys_r->at, by_id);
    return st;
}

enum cm_status
cm_commit_key_add(struct cm_commits *commits, const char *id,
                  const char *digest, const char *doc, struct cm_err *err)
{
    const char *argv[] = {
        commits->keys.seq, "key_add", commits->actor, id, digest, doc};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_commit_call(commits, &commits->documents, &reply, 1,
                                       6, argv, NULL, err);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_key_del(struct cm_commits *commits, const char *id,
                  struct cm_err *err)
{
    const char *argv[] = {commits->keys.seq, "key_del", commits->actor, id};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_commit_call(commits, &commits->documents, &reply, 1,
                                       4, argv, NULL, err);
    if (st == CM_EPROTO) /* maybe for lack of memory, which must not matter */
        st = cm_commit_call(commits, &commits->urgent, &reply, 1, 4, argv, NULL,
                            err);
    if (st == CM_OK && reply->type == REDIS_REPLY_NIL)
        st = cm_err_set(err, CM_NOTFOUND, "there is no key %s", id);
    cm_link_reply_free(&reply);
    return st;
}
