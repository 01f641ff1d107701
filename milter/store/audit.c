/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages are asked for by the id of their first entry, because a range without
 * its end ("(id") came with Redis 6.2 only: one entry more than wanted is read,
 * and names the next page.
 */
#include "milter/store/audit.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_AUDIT_PAGE                                                          \
    500 /* entries a command, when most will not be wanted                     \
         */

const char *
cm_audit_field(const struct cm_audit_entry *entry, const char *name)
{
    for (size_t i = 0; i < entry->n; i++)
        if (strcmp(entry->field[i].name, name) == 0)
            return entry->field[i].value;
    return NULL;
}

void
cm_audit_fini(struct cm_audit *audit)
{
    for (size_t i = 0; i < audit->n; i++)
        for (size_t k = 0; k < audit->entries[i].n; k++) {
            free(audit->entries[i].field[k].name);
            free(audit->entries[i].field[k].value);
        }
    free(audit->entries);
    memset(audit, 0, sizeof *audit);
}

/* "1700000000000-3" */
static bool
is_id(const char *text)
{
    size_t ms = strspn(text, "0123456789");
    size_t n = text[ms] == '-' ? strspn(text + ms + 1, "0123456789") : 0;
    return ms >= 1 && ms <= 19 && n >= 1 && n <= 19 && !text[ms + 1 + n];
}

static bool
is_entry(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
           reply->element[0]->type == REDIS_REPLY_STRING &&
           is_id(reply->element[0]->str) &&
           reply->element[1]->type == REDIS_REPLY_ARRAY;
}

static bool
is_about(const struct redisReply *fields, const char *key)
{
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (fields->element[i]->type == REDIS_REPLY_STRING &&
            strcmp(fields->element[i]->str, "key") == 0 &&
            fields->element[i + 1]->type == REDIS_REPLY_STRING)
            return strcmp(fields->element[i + 1]->str, key) == 0;
    return false;
}

/* False without memory. */
static bool
keep(struct cm_audit *audit, const struct redisReply *entry)
{
    const struct redisReply *fields = entry->element[1];
    struct cm_audit_entry *to = &audit->entries[audit->n++];
    memset(to, 0, sizeof *to);
    snprintf(to->id, sizeof to->id, "%s", entry->element[0]->str);
    for (size_t i = 0; i + 1 < fields->elements && to->n < CM_AUDIT_FIELDS_MAX;
         i += 2) {
        const struct redisReply *name = fields->element[i];
        const struct redisReply *value = fields->element[i + 1];
        if (name->type != REDIS_REPLY_STRING ||
            value->type != REDIS_REPLY_STRING)
            continue;
        size_t at = to->n++;
        to->field[at].name = strndup(name->str, name->len);
        to->field[at].value = strndup(value->str, value->len);
        if (!to->field[at].name || !to->field[at].value)
            return false;
    }
    return true;
}

static enum cm_status
fetch(struct cm_commits *commits, enum cm_audit_of of, const char *from, int n,
      struct redisReply **reply_r, struct cm_err *err)
{
    char count[16];
    const char *argv[] = {"XREVRANGE",
                          of == CM_AUDIT_FLEET ? commits->keys.audit
                                               : commits->keys.audit_inbox,
                          *from ? from : "+",
                          "-",
                          "COUNT",
                          count};
    snprintf(count, sizeof count, "%d", n);
    enum cm_status st =
        cm_commit_call(commits, NULL, reply_r, 0, 6, argv, NULL, err);
    if (st == CM_OK && (*reply_r)->type != REDIS_REPLY_ARRAY)
        st = cm_commit_unexpected(err);
    for (size_t i = 0; st == CM_OK && i < (*reply_r)->elements; i++)
        if (!is_entry((*reply_r)->element[i]))
            st = cm_commit_unexpected(err);
    return st;
}

/* One reply, which has one entry more than may be looked at, if there is one:
 * that is where to go on. *full_r: nothing more is to be read. */
static enum cm_status
take(struct cm_audit *audit, const struct redisReply *reply, size_t page,
     const char *key, size_t limit, bool *full_r, struct cm_err *err)
{
    for (size_t i = 0; i < reply->elements; i++) {
        const struct redisReply *entry = reply->element[i];
        if (i == page || audit->n == limit) {
            snprintf(audit->next, sizeof audit->next, "%s",
                     entry->element[0]->str);
            *full_r = audit->n == limit;
            return CM_OK;
        }
        if (key && !is_about(entry->element[1], key))
            continue;
        if (!keep(audit, entry))
            return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    audit->next[0] = '\0';
    *full_r = true;
    return CM_OK;
}

enum cm_status
cm_audit_read(struct cm_commits *commits, enum cm_audit_of of, const char *from,
              const char *key, int limit, struct cm_audit *audit_r,
              struct cm_err *err)
{
    int page = key ? CM_AUDIT_PAGE : limit;
    enum cm_status st = CM_OK;
    bool full = false;
    memset(audit_r, 0, sizeof *audit_r);
    if (*from && !is_id(from))
        return cm_err_set(err, CM_EINVAL, "not the id of an entry");
    audit_r->entries = calloc((size_t)limit, sizeof *audit_r->entries);
    if (!audit_r->entries)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    snprintf(audit_r->next, sizeof audit_r->next, "%s", from);
    for (int seen = 0; st == CM_OK && !full && seen < CM_AUDIT_SCAN;
         seen += page) {
        struct redisReply *reply = NULL;
        st = fetch(commits, of, audit_r->next, page + 1, &reply, err);
        if (st == CM_OK)
            st = take(audit_r, reply, (size_t)page, key, (size_t)limit, &full,
                      err);
        cm_link_reply_free(&reply);
    }
    return st;
}
