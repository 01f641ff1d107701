/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One call of the script brings one page, and one page is nearly always all.
 * Where it is not, the number of the kind's last change, which comes with each
 * page, shows whether they belong together; a snapshot in Redis would have to
 * be cleaned up after.
 */
#include "milter/store/listing.h"
#include "milter/buf.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_LISTING_TRIES       3
#define CM_LISTING_PATIENCE_MS 1000 /* a page may be of 8 MiB */
#define CM_LISTING_BOUND_MAX   2048

void
cm_listing_fini(struct cm_listing *listing)
{
    for (size_t i = 0; i < listing->n; i++) {
        free(listing->docs[i].name);
        cm_doc_fini(&listing->docs[i].doc);
    }
    free(listing->docs);
    memset(listing, 0, sizeof *listing);
}

static enum cm_status
take(struct cm_listed *to, const struct redisReply *name,
     const struct redisReply *text, struct cm_err *err)
{
    if (name->type != REDIS_REPLY_STRING)
        return cm_commit_unexpected(err);
    to->name = strndup(name->str, name->len);
    if (!to->name)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status st = cm_commit_doc(&to->doc, text, err);
    if (st == CM_OK || st == CM_ENOMEM)
        return st;
    to->doc = (struct cm_doc){.ord = -1}; /* the filters raise the alarm */
    return CM_OK;
}

/* Appends what pairs holds: name, text, name, text ... */
static enum cm_status
append(struct cm_listing *listing, const struct redisReply *pairs,
       struct cm_err *err)
{
    size_t more = pairs->elements / 2;
    enum cm_status st = CM_OK;
    if (more == 0)
        return CM_OK;
    void *grown =
        realloc(listing->docs, (listing->n + more) * sizeof *listing->docs);
    if (!grown)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    listing->docs = grown;
    for (size_t i = 0; i < more && st == CM_OK; i++) {
        struct cm_listed *to = &listing->docs[listing->n++];
        memset(to, 0, sizeof *to);
        st = take(to, pairs->element[2 * i], pairs->element[2 * i + 1], err);
    }
    return st;
}

/* One page after what the listing holds. CM_ECONFLICT: it is of another time.
 */
static bool
is_page(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 6 &&
           reply->element[1]->type == REDIS_REPLY_INTEGER &&
           reply->element[3]->type == REDIS_REPLY_INTEGER &&
           reply->element[5]->type == REDIS_REPLY_ARRAY;
}

static enum cm_status
read_page(struct cm_commits *commits, enum cm_kind kind, const char *begin,
          const char *after, const char *limit, struct cm_listing *listing,
          bool *more_r, struct cm_err *err)
{
    const char *argv[] = {
        commits->keys.seq, "read", cm_kind_name(kind), after, begin, limit};
    struct redisReply *reply = NULL;
    struct cm_commits patient = *commits;
    patient.timeout_ms += CM_LISTING_PATIENCE_MS;
    enum cm_status st = cm_commit_call(&patient, &commits->documents, &reply, 1,
                                       limit ? 6 : 4, argv, NULL, err);
    if (st == CM_OK && !is_page(reply))
        st = cm_commit_unexpected(err);
    if (st == CM_OK && listing->n > 0 &&
        reply->element[1]->integer != listing->at)
        st = CM_ECONFLICT;
    if (st == CM_OK) {
        listing->at = reply->element[1]->integer;
        *more_r = reply->element[3]->integer != 0;
        st = append(listing, reply->element[5], err);
    }
    cm_link_reply_free(&reply);
    return st;
}

static int
by_place(const void *a, const void *b)
{
    const struct cm_listed *one = a, *two = b;
    if (one->doc.ord != two->doc.ord)
        return one->doc.ord < two->doc.ord ? -1 : 1;
    return strcmp(one->name, two->name);
}

enum cm_status
cm_commit_read(struct cm_commits *commits, enum cm_kind kind,
               struct cm_listing *listing_r, struct cm_err *err)
{
    enum cm_status st = CM_ECONFLICT;
    *listing_r = (struct cm_listing){.docs = NULL};
    for (int i = 0; i < CM_LISTING_TRIES && st == CM_ECONFLICT; i++) {
        bool more = true;
        cm_listing_fini(listing_r);
        for (st = CM_OK; st == CM_OK && more;)
            st = read_page(
                commits, kind, "",
                listing_r->n > 0 ? listing_r->docs[listing_r->n - 1].name : "",
                NULL, listing_r, &more, err);
    }
    if (st == CM_ECONFLICT)
        st = cm_err_set(err, CM_EIO, "every %s changed while they were read",
                        cm_kind_name(kind));
    if (st != CM_OK)
        cm_listing_fini(listing_r);
    else if (listing_r->n > 0)
        qsort(listing_r->docs, listing_r->n, sizeof *listing_r->docs, by_place);
    return st;
}

enum cm_status
cm_commit_page(struct cm_commits *commits, enum cm_kind kind, const char *begin,
               const char *after, int limit, struct cm_listing *listing_r,
               bool *more_r, struct cm_err *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", limit);
    *listing_r = (struct cm_listing){.docs = NULL};
    enum cm_status st =
        read_page(commits, kind, begin, after, number, listing_r, more_r, err);
    if (st != CM_OK)
        cm_listing_fini(listing_r);
    return st;
}

enum cm_status
cm_commit_count(struct cm_commits *commits, enum cm_kind kind,
                const char *begin, int64_t *n_r, struct cm_err *err)
{
    struct cm_buf from, to;
    struct redisReply *reply = NULL;
    cm_buf_init(&from, CM_LISTING_BOUND_MAX);
    cm_buf_init(&to, CM_LISTING_BOUND_MAX);
    cm_buf_printf(&from, "[%s:%s", cm_kind_name(kind), begin);
    cm_buf_printf(&to, "(%s:%s\xff", cm_kind_name(kind), begin);
    enum cm_status st = cm_buf_status(&from);
    if (st == CM_OK)
        st = cm_buf_status(&to);
    if (st == CM_OK) {
        const char *argv[] = {"ZLEXCOUNT", commits->keys.idx, from.data,
                              to.data};
        st = cm_commit_call(commits, NULL, &reply, 0, 4, argv, NULL, err);
    } else {
        cm_err_set(err, st, "how the names begin is too long");
    }
    if (st == CM_OK && reply->type != REDIS_REPLY_INTEGER)
        st = cm_commit_unexpected(err);
    if (st == CM_OK)
        *n_r = reply->integer;
    cm_link_reply_free(&reply);
    cm_buf_fini(&from);
    cm_buf_fini(&to);
    return st;
}
