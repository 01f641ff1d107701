/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/wipe.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <assert.h>

static enum cm_status
read_counts(struct cm_wipe *wipes, size_t n, const struct redisReply *reply,
            struct cm_err *err)
{
    const struct redisReply *counts =
        reply->type == REDIS_REPLY_ARRAY && reply->elements == 4
            ? reply->element[3]
            : NULL;
    if (!counts || counts->type != REDIS_REPLY_ARRAY || counts->elements != n)
        return cm_commit_unexpected(err);
    for (size_t i = 0; i < n; i++)
        wipes[i].count = counts->element[i]->integer;
    return CM_OK;
}

enum cm_status
cm_commit_wipe(struct cm_commits *commits, struct cm_wipe *wipes, size_t n,
               struct cm_err *err)
{
    const char *argv[3 + 2 * CM_WIPES_MAX] = {commits->keys.seq, "wipe",
                                              commits->actor};
    int argc = 3;
    struct redisReply *reply = NULL;
    struct cm_commits patient = *commits;
    assert(n >= 1 && n <= CM_WIPES_MAX);
    patient.timeout_ms += CM_WIPE_MS;
    for (size_t i = 0; i < n; i++) {
        argv[argc++] = cm_kind_name(wipes[i].kind);
        argv[argc++] = wipes[i].begin;
    }
    enum cm_status st = cm_commit_call(&patient, &commits->documents, &reply, 1,
                                       argc, argv, NULL, err);
    if (st == CM_EPROTO) /* maybe for lack of memory, which this may end */
        st = cm_commit_call(&patient, &commits->urgent, &reply, 1, argc, argv,
                            NULL, err);
    if (st == CM_OK)
        st = read_counts(wipes, n, reply, err);
    cm_link_reply_free(&reply);
    return st;
}
