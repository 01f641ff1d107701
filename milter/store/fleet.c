/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the filters tell of themselves: heartbeats and fleet-wide totals. Both
 * are hashes, one field per host or total, read whole.
 */
#include "milter/store/commit.h"
#include "milter/store/commit_call.h"
#include "milter/store/hits.h"
#include "milter/store/redis.h"

#include <jansson.h>

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_TOTALS_MAX ((CM_SCRIPT_ARGS_USUAL - 1) / 2)

enum cm_status
cm_commit_hosts(struct cm_commits *commits, char ***json_r, struct cm_err *err)
{
    const char *argv[] = {"HVALS", commits->keys.hosts};
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 2, argv, NULL, err);
    if (st == CM_OK)
        st = cm_commit_texts(json_r, NULL, reply, err);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_totals(struct cm_commits *commits, struct cm_total *totals, size_t n,
                 struct cm_err *err)
{
    const char *argv[2 + CM_TOTALS_MAX] = {"HMGET", commits->keys.totals};
    assert(n > 0 && n <= CM_TOTALS_MAX);
    for (size_t i = 0; i < n; i++)
        argv[2 + i] = totals[i].name;
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, (int)n + 2, argv, NULL, err);
    if (st != CM_OK)
        return st;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != n) {
        st = cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
    } else {
        for (size_t i = 0; i < n; i++)
            totals[i].value = reply->element[i]->type == REDIS_REPLY_STRING
                                  ? strtoll(reply->element[i]->str, NULL, 10)
                                  : 0;
    }
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_all_totals(struct cm_commits *commits, char ***texts_r,
                     struct cm_err *err)
{
    const char *argv[] = {"HGETALL", commits->keys.totals};
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 2, argv, NULL, err);
    if (st == CM_OK)
        st = cm_commit_texts(texts_r, NULL, reply, err);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_add_totals(struct cm_commits *commits, const struct cm_total *totals,
                     size_t n, struct cm_err *err)
{
    const char *argv[1 + 2 * CM_TOTALS_MAX] = {commits->keys.totals};
    char numbers[CM_TOTALS_MAX][24];
    assert(n > 0 && n <= CM_TOTALS_MAX);
    for (size_t i = 0; i < n; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%" PRId64, totals[i].value);
        argv[1 + 2 * i] = totals[i].name;
        argv[2 + 2 * i] = numbers[i];
    }
    struct redisReply *reply = NULL;
    enum cm_status st = cm_commit_call(commits, &commits->add_totals, &reply, 1,
                                       (int)(1 + 2 * n), argv, NULL, err);
    cm_link_reply_free(&reply);
    return st;
}

static int64_t
number_of(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? strtoll(reply->str, NULL, 10)
                                             : 0;
}

enum cm_status
cm_commit_hits(struct cm_commits *commits, const char *const *names, size_t n,
               int64_t *hits_r, int64_t *shadowed_r, struct cm_err *err)
{
    struct redisReply *reply = NULL;
    const char **argv = calloc(2 + 2 * n, sizeof *argv);
    char(*shadows)[CM_HITS_NAME_BYTES] = calloc(n + 1, sizeof *shadows);
    enum cm_status st = CM_OK;
    if (!argv || !shadows) {
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
        goto out;
    }
    argv[0] = "HMGET";
    argv[1] = commits->keys.rules;
    for (size_t i = 0; i < n; i++) {
        snprintf(shadows[i], sizeof shadows[i], "%s shadow", names[i]);
        argv[2 + 2 * i] = names[i];
        argv[3 + 2 * i] = shadows[i];
    }
    if (n > 0)
        st = cm_commit_call(commits, NULL, &reply, 0, (int)(2 + 2 * n), argv,
                            NULL, err);
    if (st == CM_OK && n > 0 &&
        (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 * n))
        st = cm_commit_unexpected(err);
    for (size_t i = 0; i < n && st == CM_OK; i++) {
        hits_r[i] = number_of(reply->element[2 * i]);
        shadowed_r[i] = number_of(reply->element[2 * i + 1]);
    }
out:
    cm_link_reply_free(&reply);
    free(shadows);
    free(argv);
    return st;
}

/* A heartbeat that cannot be read is nobody's, and as old as can be. */
static int64_t
heartbeat_time(const struct redisReply *text)
{
    int64_t time_ms = INT64_MIN;
    json_t *json = text->type == REDIS_REPLY_STRING
                       ? json_loadb(text->str, text->len, 0, NULL)
                       : NULL;
    const json_t *at = json_object_get(json, "time_ms");
    if (json_is_integer(at))
        time_ms = json_integer_value(at);
    json_decref(json);
    return time_ms;
}

/* A host that speaks again between the two commands loses one heartbeat and
 * writes the next within a second. */
enum cm_status
cm_commit_forget_hosts(struct cm_commits *commits, int64_t cutoff_ms,
                       struct cm_err *err)
{
    const char *argv[] = {"HGETALL", commits->keys.hosts};
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 2, argv, NULL, err);
    if (st == CM_OK && reply->type != REDIS_REPLY_ARRAY)
        st = cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
    for (size_t i = 0; st == CM_OK && i + 1 < reply->elements; i += 2) {
        const struct redisReply *host = reply->element[i];
        if (host->type != REDIS_REPLY_STRING ||
            heartbeat_time(reply->element[i + 1]) >= cutoff_ms)
            continue;
        const char *del[] = {"HDEL", commits->keys.hosts, host->str};
        const size_t lens[] = {4, strlen(commits->keys.hosts), host->len};
        struct redisReply *done = NULL;
        st = cm_commit_call(commits, NULL, &done, 0, 3, del, lens, err);
        cm_link_reply_free(&done);
    }
    cm_link_reply_free(&reply);
    return st;
}
