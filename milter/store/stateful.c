/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys are the prefix, the kind and the parts with a tab between them: no
 * canonical address and no rule id holds a tab, so two of them never share a
 * key, and an operator can read them. Where a rule chooses the parts, what it
 * left out is not there and the choice is named in the kind, so that a count by
 * sender is never taken for one by client.
 */
#include "milter/store/stateful.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/model/ascii.h"
#include "milter/store/keys.h"
#include "milter/store/redis.h"
#include "milter/store/script.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_STATE_KEY_MAX 2048
#define CM_OCCURRENCE_MS "86400000"    /* a day */
#define CM_ATTEMPT_MS    "86400000"    /* a day */
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

/* KEYS[1]; ttl in ms -> number of this one */
static const char count_lua[] = "local n = redis.call('INCR', KEYS[1])\n"
                                "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
                                "return n\n";

/* KEYS[1]; tokens per second, burst -> 1 when a token was taken, else 0. Time
 * in microseconds. A bucket found empty is left as it is, unless Redis's clock
 * was set back: then it would gain nothing until the old time comes again. It
 * is forgotten when it would be full, or after a century. */
static const char throttle_lua[] =
    "local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000000 + time[2]\n"
    "local state = redis.call('HMGET', KEYS[1], 'tokens', 'time')\n"
    "local tokens = tonumber(state[1] or nil) or burst\n"
    "local since = tonumber(state[2] or nil) or now\n"
    "tokens = tokens + math.max(0, now - since) * rate / 1000000\n"
    "tokens = math.min(tokens, burst)\n"
    "if tokens < 1 and since <= now then\n"
    "    return 0\n"
    "end\n"
    "local taken = tokens >= 1 and 1 or 0\n"
    "tokens = tokens - taken\n"
    "local full = math.ceil((burst - tokens) * 1000 / rate)\n"
    "redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens),\n"
    "    'time', string.format('%.0f', now))\n"
    "redis.call('PEXPIRE', KEYS[1],\n"
    "    string.format('%.0f', math.min(full, 3155760000000)))\n"
    "return taken\n";

/* KEYS[1] -> number of keys removed */
static const char forget_lua[] = "return redis.call('DEL', KEYS[1])\n";

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
    struct cm_script greylist, count, hit, throttle, forget;
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
    const struct {
        struct cm_script *script;
        const char *text;
    } scripts[] = {
        {&stateful->greylist, greylist_lua},
        {&stateful->count, count_lua},
        {&stateful->hit, hit_lua},
        {&stateful->throttle, throttle_lua},
        {&stateful->forget, forget_lua},
    };
    enum cm_status st = cm_keys_init(&stateful->keys, prefix, err);
    for (size_t i = 0; st == CM_OK && i < sizeof scripts / sizeof *scripts; i++)
        st = cm_script_init(scripts[i].script, scripts[i].text, err);
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

/* "{cm}:st:<kind>" and the parts. */
static void
make_key(struct cm_buf *key, const struct cm_stateful *stateful,
         const char *kind, const char *const *parts, size_t nparts)
{
    cm_buf_init(key, CM_STATE_KEY_MAX);
    cm_buf_printf(key, "%s:st:%s", stateful->keys.prefix, kind);
    for (size_t i = 0; i < nparts; i++)
        cm_buf_printf(key, "%c%s", i == 0 ? ':' : '\t', parts[i]);
}

/* Without case, whatever the local parts mean elsewhere: VaultSandbox's way. */
static void
greylist_key(struct cm_buf *key, const struct cm_stateful *stateful,
             enum cm_track track, const char *inbox, const char *sender,
             const char *client)
{
    switch (track) {
    case CM_TRACK_IP:
        make_key(key, stateful, "grey-ip", (const char *[]){inbox, client}, 2);
        break;
    case CM_TRACK_SENDER:
        make_key(key, stateful, "grey-sender", (const char *[]){inbox, sender},
                 2);
        break;
    case CM_TRACK_IP_SENDER:
        make_key(key, stateful, "grey", (const char *[]){inbox, client, sender},
                 3);
        break;
    }
    if (cm_buf_status(key) != CM_OK)
        return;
    for (size_t i = strlen(stateful->keys.prefix); i < key->len; i++)
        key->data[i] = cm_ascii_lower(key->data[i]);
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
        ask_number(stateful, &stateful->count, &key, 1,
                   (const char *[]){CM_OCCURRENCE_MS}, n_r, err);
    cm_buf_fini(&key);
    return st;
}

static const char *
throttle_kind(enum cm_throttle_per per)
{
    switch (per) {
    case CM_THROTTLE_INBOX:
        return "throttle-inbox";
    case CM_THROTTLE_DOMAIN:
        return "throttle-domain";
    case CM_THROTTLE_SENDER:
        return "throttle-sender";
    case CM_THROTTLE_CLIENT:
        return "throttle-client";
    }
    return "throttle";
}

enum cm_status
cm_stateful_throttle(struct cm_stateful *stateful, const char *rule,
                     const struct cm_fault_throttle *config, const char *whose,
                     bool *empty_r, struct cm_err *err)
{
    struct cm_buf key;
    char rate[32], burst[24];
    int64_t taken = 0;
    snprintf(rate, sizeof rate, "%.17g", config->rate);
    snprintf(burst, sizeof burst, "%" PRId64, config->burst);
    make_key(&key, stateful, throttle_kind(config->per),
             (const char *[]){rule, whose}, 2);
    enum cm_status st = ask_number(stateful, &stateful->throttle, &key, 2,
                                   (const char *[]){rate, burst}, &taken, err);
    if (st == CM_OK)
        *empty_r = taken == 0;
    cm_buf_fini(&key);
    return st;
}

enum cm_status
cm_stateful_sequence(struct cm_stateful *stateful, const char *rule,
                     const struct cm_fault_sequence *config, const char *client,
                     const char *sender, const char *recipient,
                     int64_t *attempt_r, struct cm_err *err)
{
    struct cm_buf key;
    char kind[sizeof "seq-client-sender-recipient"], ttl[24];
    const char *parts[4] = {rule};
    size_t nparts = 1;
    snprintf(kind, sizeof kind, "seq%s%s%s",
             config->key & CM_KEY_CLIENT ? "-client" : "",
             config->key & CM_KEY_SENDER ? "-sender" : "",
             config->key & CM_KEY_RECIPIENT ? "-recipient" : "");
    if (config->key & CM_KEY_CLIENT)
        parts[nparts++] = client;
    if (config->key & CM_KEY_SENDER)
        parts[nparts++] = sender;
    if (config->key & CM_KEY_RECIPIENT)
        parts[nparts++] = recipient;
    snprintf(ttl, sizeof ttl, "%" PRId64, config->ttl_ms);
    make_key(&key, stateful, kind, parts, nparts);
    enum cm_status st = ask_number(stateful, &stateful->count, &key, 1,
                                   (const char *[]){ttl}, attempt_r, err);
    cm_buf_fini(&key);
    return st;
}

static void
attempt_key(struct cm_buf *key, const struct cm_stateful *stateful,
            const char *client, const char *sender, const char *recipient)
{
    make_key(key, stateful, "attempt",
             (const char *[]){client, sender, recipient}, 3);
}

enum cm_status
cm_stateful_attempt(struct cm_stateful *stateful, const char *client,
                    const char *sender, const char *recipient, int64_t *n_r,
                    struct cm_err *err)
{
    struct cm_buf key;
    attempt_key(&key, stateful, client, sender, recipient);
    enum cm_status st = ask_number(stateful, &stateful->count, &key, 1,
                                   (const char *[]){CM_ATTEMPT_MS}, n_r, err);
    cm_buf_fini(&key);
    return st;
}

enum cm_status
cm_stateful_attempt_done(struct cm_stateful *stateful, const char *client,
                         const char *sender, const char *recipient,
                         struct cm_err *err)
{
    struct cm_buf key;
    int64_t removed;
    attempt_key(&key, stateful, client, sender, recipient);
    enum cm_status st =
        ask_number(stateful, &stateful->forget, &key, 0, NULL, &removed, err);
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
