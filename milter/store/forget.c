/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SCAN, because state has no index: it comes and goes with every mail, and an
 * index would be a write more for each.
 */
#include "milter/store/forget.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_FORGET_COUNT "1000"

/* What follows "<prefix>:st:" in the names, as stateful.c makes them. */
static const char *const families[] = {"grey",     "occ", "hits",
                                       "throttle", "seq", "attempt"};

/* "<prefix>:st:grey-ip:...": is it what a fault remembers? */
static bool
is_state(const struct redisReply *name, size_t head)
{
    if (name->type != REDIS_REPLY_STRING || name->len <= head)
        return false;
    const char *rest = name->str + head;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        size_t len = strlen(families[i]);
        if (strncmp(rest, families[i], len) == 0 &&
            (rest[len] == ':' || rest[len] == '-'))
            return true;
    }
    return false;
}

static enum cm_status
drop(struct cm_commits *commits, const struct redisReply *names, size_t head,
     int64_t *n_r, struct cm_err *err)
{
    struct redisReply *reply = NULL;
    const char **argv = calloc(names->elements + 1, sizeof *argv);
    size_t *lens = calloc(names->elements + 1, sizeof *lens);
    enum cm_status st = CM_OK;
    int argc = 1;
    if (!argv || !lens) {
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
        goto out;
    }
    argv[0] = "UNLINK";
    lens[0] = strlen("UNLINK");
    for (size_t i = 0; i < names->elements; i++) {
        if (!is_state(names->element[i], head))
            continue;
        argv[argc] = names->element[i]->str;
        lens[argc++] = names->element[i]->len;
    }
    if (argc > 1)
        st = cm_commit_call(commits, NULL, &reply, 0, argc, argv, lens, err);
    if (st == CM_OK && reply && reply->type == REDIS_REPLY_INTEGER)
        *n_r += reply->integer;
out:
    cm_link_reply_free(&reply);
    free(argv);
    free(lens);
    return st;
}

enum cm_status
cm_commit_forget_state(struct cm_commits *commits, int64_t *n_r,
                       struct cm_err *err)
{
    char match[CM_KEYS_TEXT + 8], cursor[32] = "0";
    size_t head =
        (size_t)snprintf(match, sizeof match, "%s:st:*", commits->keys.prefix) -
        1;
    enum cm_status st = CM_OK;
    *n_r = 0;
    do {
        const char *argv[] = {"SCAN", cursor,  "MATCH",
                              match,  "COUNT", CM_FORGET_COUNT};
        struct redisReply *reply = NULL;
        st = cm_commit_call(commits, NULL, &reply, 0, 6, argv, NULL, err);
        if (st == CM_OK &&
            (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
             reply->element[0]->type != REDIS_REPLY_STRING ||
             reply->element[1]->type != REDIS_REPLY_ARRAY))
            st = cm_commit_unexpected(err);
        if (st == CM_OK) {
            snprintf(cursor, sizeof cursor, "%s", reply->element[0]->str);
            st = drop(commits, reply->element[1], head, n_r, err);
        }
        cm_link_reply_free(&reply);
    } while (st == CM_OK && strcmp(cursor, "0") != 0);
    return st;
}
