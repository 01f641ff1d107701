/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/halt.h"
#include "milter/buf.h"
#include "milter/model/rfc3339.h"
#include "milter/store/commit_call.h"
#include "milter/store/quote.h"
#include "milter/store/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
cm_halt_print(struct cm_buf *buf, const struct cm_halt *halt)
{
    char since[32];
    if (!halt->halted) {
        cm_buf_puts(buf, "{\"halted\":false}");
        return;
    }
    cm_buf_puts(buf, "{\"halted\":true,\"since\":");
    if (halt->at_ms > 0) {
        cm_time_print(halt->at_ms, since, sizeof since);
        cm_buf_printf(buf, "\"%s\"", since);
    } else {
        cm_buf_puts(buf, "null");
    }
    cm_buf_puts(buf, ",\"by\":");
    cm_quote_json(buf, halt->by, strlen(halt->by));
    cm_buf_puts(buf, ",\"reason\":");
    cm_quote_json(buf, halt->reason, strlen(halt->reason));
    cm_buf_puts(buf, "}");
}

static void
read_field(struct cm_halt *halt, const struct redisReply *name,
           const struct redisReply *value)
{
    if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING)
        return;
    if (strcmp(name->str, "state") == 0)
        halt->halted = strcmp(value->str, "running") != 0;
    else if (strcmp(name->str, "at") == 0)
        halt->at_ms = strtoll(value->str, NULL, 10);
    else if (strcmp(name->str, "by") == 0)
        snprintf(halt->by, sizeof halt->by, "%s", value->str);
    else if (strcmp(name->str, "reason") == 0)
        snprintf(halt->reason, sizeof halt->reason, "%s", value->str);
}

enum cm_status
cm_halt_read(struct cm_halt *halt_r, char *id, size_t cap,
             const struct redisReply *reply, struct cm_err *err)
{
    memset(halt_r, 0, sizeof *halt_r);
    snprintf(id, cap, "0-0");
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 0)
        return CM_OK;
    const struct redisReply *entry = NULL;
    if (reply->type == REDIS_REPLY_ARRAY &&
        reply->element[0]->type == REDIS_REPLY_ARRAY &&
        reply->element[0]->elements == 2)
        entry = reply->element[0];
    if (!entry || entry->element[0]->type != REDIS_REPLY_STRING)
        return cm_err_set(err, CM_EPROTO,
                          "Redis: a reply of an unexpected kind");
    const struct redisReply *fields = entry->element[1];
    snprintf(id, cap, "%s", entry->element[0]->str);
    halt_r->halted = true;
    for (size_t i = 0;
         fields->type == REDIS_REPLY_ARRAY && i + 1 < fields->elements; i += 2)
        read_field(halt_r, fields->element[i], fields->element[i + 1]);
    return CM_OK;
}

static enum cm_status
call(struct cm_commits *commits, int argc, const char *const *argv,
     struct cm_halt *halt_r, struct cm_err *err)
{
    struct redisReply *reply = NULL;
    char id[48];
    enum cm_status st = cm_commit_call(commits, &commits->documents, &reply, 1,
                                       argc, argv, NULL, err);
    if (st == CM_EPROTO) /* maybe for lack of memory, which must not matter */
        st = cm_commit_call(commits, &commits->urgent, &reply, 1, argc, argv,
                            NULL, err);
    if (st == CM_OK)
        st = cm_halt_read(halt_r, id, sizeof id, reply, err);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_halt(struct cm_commits *commits, const char *reason,
               struct cm_halt *halt_r, struct cm_err *err)
{
    const char *argv[] = {commits->keys.seq, "halt", reason, commits->actor};
    return call(commits, 4, argv, halt_r, err);
}

enum cm_status
cm_commit_resume(struct cm_commits *commits, struct cm_halt *halt_r,
                 struct cm_err *err)
{
    const char *argv[] = {commits->keys.seq, "resume", commits->actor};
    return call(commits, 3, argv, halt_r, err);
}

enum cm_status
cm_commit_halted(struct cm_commits *commits, struct cm_halt *halt_r,
                 struct cm_err *err)
{
    const char *argv[] = {commits->keys.seq, "halted"};
    return call(commits, 2, argv, halt_r, err);
}
