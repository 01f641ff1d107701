/* SPDX-License-Identifier: BSD-2-Clause */
/* SET NX and DEL are each one atomic command whose answer says who was first,
 * so no script is needed. */
#include "milter/store/claim.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdio.h>

#define CM_CLAIM_KEY (CM_KEYS_PREFIX_MAX + sizeof ":once:" + CM_CLAIM_NAME_MAX)

static enum cm_status
print_key(char *out, size_t cap, const struct cm_commits *commits,
          const char *name, struct cm_err *err)
{
    int n = snprintf(out, cap, "%s:once:%s", commits->keys.prefix, name);
    if (n < 0 || (size_t)n >= cap)
        return cm_err_set(err, CM_EINVAL, "the name of a claim is too long");
    return CM_OK;
}

enum cm_status
cm_claim_take(struct cm_commits *commits, const char *name, int ttl_ms,
              bool *first_r, struct cm_err *err)
{
    char key[CM_CLAIM_KEY], ttl[16];
    struct redisReply *reply = NULL;
    enum cm_status st = print_key(key, sizeof key, commits, name, err);
    if (st != CM_OK)
        return st;
    snprintf(ttl, sizeof ttl, "%d", ttl_ms);
    const char *argv[] = {"SET", key, "1", "NX", "PX", ttl};
    st = cm_commit_call(commits, NULL, &reply, 0, 6, argv, NULL, err);
    if (st == CM_OK)
        *first_r = reply->type != REDIS_REPLY_NIL;
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_claim_drop(struct cm_commits *commits, const char *name, bool *was_taken_r,
              struct cm_err *err)
{
    char key[CM_CLAIM_KEY];
    struct redisReply *reply = NULL;
    enum cm_status st = print_key(key, sizeof key, commits, name, err);
    if (st != CM_OK)
        return st;
    const char *argv[] = {"DEL", key};
    st = cm_commit_call(commits, NULL, &reply, 0, 2, argv, NULL, err);
    if (st == CM_OK)
        *was_taken_r =
            reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    cm_link_reply_free(&reply);
    return st;
}
