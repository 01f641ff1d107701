/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys are the prefix, the kind and the parts of the triplet with a tab between
 * them: no canonical address and no rule id holds a tab, so two triplets never
 * share a key, and an operator can read them. What a greylist configuration
 * does not track is left out and the tracking named, so that an entry by sender
 * is never taken for one by client.
 */
#include "milter/store/stateful.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/store/keys.h"
#include "milter/store/redis.h"
#include "milter/store/script.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_STATE_KEY_MAX 2048
#define CM_OCCURRENCE_MS "86400000"    /* a day */
#define CM_HIT_MS        "31622400000" /* 366 days */

/* KEYS[1]; window, max attempts, min delay, all in ms. -> refused, attempt */
static const char greylist_lua[] =
    "local window, max, delay = tonumber(ARGV[1]), tonumber(ARGV[2]),\n"
    "    tonumber(ARGV[3])\n"
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
    "local state = redis.call('HMGET', KEYS[1], 'first', 'n')\n"
    "local first, n = tonumber(state[1] or nil), tonumber(state[2] or nil)\n"
    "if not first or not n or now - first > window then\n"
    "    first, n = now, 0\n"
    "end\n"
    "n = n + 1\n"
    "if n >= max and now - first >= delay then\n"
    "    redis.call('DEL', KEYS[1])\n"
    "    return {0, n}\n"
    "end\n"
    "redis.call('HSET', KEYS[1], 'first', string.format('%.0f', first),\n"
    "    'n', string.format('%.0f', n))\n"
    "redis.call('PEXPIRE', KEYS[1],\n"
    "    string.format('%.0f', first + window - now + 1))\n"
    "return {1, n}\n";

/* KEYS[1]; ttl -> number of this one */
static const char occurrence_lua[] = "local n = redis.call('INCR', KEYS[1])\n"
                                     "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
                                     "return n\n";

/* KEYS[1]; ttl, max -> 1 or 0 */
static const char hit_lua[] =
    "local n = tonumber(redis.call('GET', KEYS[1]) or 0)\n"
    "if n >= tonumber(ARGV[2]) then\n"
    "    return 0\n"
    "end\n"
    "redis.call('INCR', KEYS[1])\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
    "return 1\n";

struct cm_stateful {
    struct cm_pool *pool; /* borrowed */
    struct cm_keys keys;
    int deadline_ms;
    struct cm_script greylist, occurrence, hit;
};

enum cm_status
cm_stateful_new(struct cm_stateful **stateful_r, struct cm_pool *pool,
                const char *prefix, int deadline_ms, struct cm_err *err)
{
    struct cm_stateful *stateful = calloc(1, sizeof *stateful);
    if (!stateful)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    stateful->pool = pool;
    stateful->deadline_ms = deadline_ms;
    enum cm_status st = cm_keys_init(&stateful->keys, prefix, err);
    if (st == CM_OK)
        st = cm_script_init(&stateful->greylist, greylist_lua, err);
    if (st == CM_OK)
        st = cm_script_init(&stateful->occurrence, occurrence_lua, err);
    if (st == CM_OK)
        st = cm_script_init(&stateful->hit, hit_lua, err);
    if (st != CM_OK)
        cm_stateful_free(&stateful);
    *stateful_r = stateful;
    return st;
}

void
cm_stateful_free(struct cm_stateful **stateful)
{
    free(*stateful);
    *stateful = NULL;
}

/* One question: key, then argc arguments. */
static enum cm_status
ask(struct cm_stateful *stateful, const struct cm_script *script,
    struct cm_buf *key, int argc, const char *const *args,
    struct redisReply **reply_r, struct cm_err *err)
{
    const char *argv[4] = {key->data};
    size_t lens[4] = {key->len};
    enum cm_redis_class class = CM_REDIS_GONE;
    struct cm_link *link = NULL;
    enum cm_status st = cm_buf_status(key);
    if (st != CM_OK)
        return cm_err_set(err, st, "the key of this mail: %s",
                          cm_status_name(st));
    for (int i = 0; i < argc; i++) {
        argv[i + 1] = args[i];
        lens[i + 1] = strlen(args[i]);
    }
    int64_t deadline_ms = cm_clock_mono_ms() + stateful->deadline_ms;
    st = cm_pool_get(stateful->pool, &link, stateful->deadline_ms, err);
    if (st != CM_OK)
        return st;
    int64_t left = deadline_ms - cm_clock_mono_ms();
    st = cm_script_run(script, link, reply_r, 1, argc + 1, argv, lens,
                       left < 1 ? 1 : (int)left, &class, err);
    if (class == CM_REDIS_READONLY || class == CM_REDIS_MOVED)
        cm_pool_retire(stateful->pool, &link);
    else
        cm_pool_put(stateful->pool, &link);
    return st;
}

static enum cm_status
ask_number(struct cm_stateful *stateful, const struct cm_script *script,
           struct cm_buf *key, int argc, const char *const *args,
           int64_t *number_r, struct cm_err *err)
{
    struct redisReply *reply = NULL;
    enum cm_status st = ask(stateful, script, key, argc, args, &reply, err);
    if (st == CM_OK && reply->type != REDIS_REPLY_INTEGER)
        st = cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
    if (st == CM_OK)
        *number_r = reply->integer;
    cm_link_reply_free(&reply);
    return st;
}

/* "{cm}:st:<kind>" and the parts, in lower case where letters are ASCII. */
static void
make_key(struct cm_buf *key, const struct cm_stateful *stateful,
         const char *kind, const char *const *parts, size_t nparts)
{
    cm_buf_init(key, CM_STATE_KEY_MAX);
    cm_buf_printf(key, "%s:st:%s", stateful->keys.prefix, kind);
    size_t start = key->len;
    for (size_t i = 0; i < nparts; i++)
        cm_buf_printf(key, "%c%s", i == 0 ? ':' : '\t', parts[i]);
    if (cm_buf_status(key) != CM_OK)
        return;
    for (size_t i = start; i < key->len; i++)
        if (key->data[i] >= 'A' && key->data[i] <= 'Z')
            key->data[i] = (char)(key->data[i] + ('a' - 'A'));
}

static void
greylist_key(struct cm_buf *key, const struct cm_stateful *stateful,
             enum cm_track track, const char *inbox, const char *sender,
             const char *client)
{
    switch (track) {
    case CM_TRACK_IP:
        make_key(key, stateful, "grey-ip", (const char *[]){inbox, client}, 2);
        return;
    case CM_TRACK_SENDER:
        make_key(key, stateful, "grey-sender", (const char *[]){inbox, sender},
                 2);
        return;
    case CM_TRACK_IP_SENDER:
        break;
    }
    make_key(key, stateful, "grey", (const char *[]){inbox, client, sender}, 3);
}

enum cm_status
cm_stateful_greylist(struct cm_stateful *stateful,
                     const struct cm_fault_greylist *config, const char *inbox,
                     const char *sender, const char *client, bool *refused_r,
                     int64_t *attempt_r, struct cm_err *err)
{
    struct cm_buf key;
    struct redisReply *reply = NULL;
    char window[24], max[24], delay[24];
    const char *args[] = {window, max, delay};
    snprintf(window, sizeof window, "%" PRId64, config->window_ms);
    snprintf(max, sizeof max, "%" PRId64, config->max_attempts);
    snprintf(delay, sizeof delay, "%" PRId64, config->min_delay_ms);
    greylist_key(&key, stateful, config->track, inbox, sender, client);
    enum cm_status st =
        ask(stateful, &stateful->greylist, &key, 3, args, &reply, err);
    if (st == CM_OK &&
        (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
         reply->element[0]->type != REDIS_REPLY_INTEGER ||
         reply->element[1]->type != REDIS_REPLY_INTEGER))
        st = cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
    if (st == CM_OK) {
        *refused_r = reply->element[0]->integer != 0;
        *attempt_r = reply->element[1]->integer;
    }
    cm_link_reply_free(&reply);
    cm_buf_fini(&key);
    return st;
}

enum cm_status
cm_stateful_occurrence(struct cm_stateful *stateful, const char *rule,
                       const char *sender, const char *recipient, int64_t *n_r,
                       struct cm_err *err)
{
    struct cm_buf key;
    make_key(&key, stateful, "occ", (const char *[]){rule, sender, recipient},
             3);
    enum cm_status st =
        ask_number(stateful, &stateful->occurrence, &key, 1,
                   (const char *[]){CM_OCCURRENCE_MS}, n_r, err);
    cm_buf_fini(&key);
    return st;
}

enum cm_status
cm_stateful_hit(struct cm_stateful *stateful, const char *rule,
                uint64_t max_hits, bool *allowed_r, struct cm_err *err)
{
    struct cm_buf key;
    char max[24];
    int64_t allowed = 0;
    snprintf(max, sizeof max, "%" PRIu64, max_hits);
    make_key(&key, stateful, "hits", (const char *[]){rule}, 1);
    enum cm_status st =
        ask_number(stateful, &stateful->hit, &key, 2,
                   (const char *[]){CM_HIT_MS, max}, &allowed, err);
    if (st == CM_OK)
        *allowed_r = allowed != 0;
    cm_buf_fini(&key);
    return st;
}
