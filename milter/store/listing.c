/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One call of the script brings one page, and one page is nearly always all.
 * Where it is not, the number of the kind's last change, which comes with each
 * page, shows whether they belong together; a snapshot in Redis would have to
 * be cleaned up after.
 */
#include "milter/store/listing.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CM_LISTING_TRIES       3
#define CM_LISTING_PATIENCE_MS 1000 /* a page may be of 8 MiB */

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
read_page(struct cm_commits *commits, enum cm_kind kind,
          struct cm_listing *listing, bool *more_r, struct cm_err *err)
{
    const char *after =
        listing->n > 0 ? listing->docs[listing->n - 1].name : "";
    const char *argv[] = {commits->keys.seq, "read", cm_kind_name(kind), after};
    struct redisReply *reply = NULL;
    struct cm_commits patient = *commits;
    patient.timeout_ms += CM_LISTING_PATIENCE_MS;
    enum cm_status st = cm_commit_call(&patient, &commits->documents, &reply, 1,
                                       4, argv, NULL, err);
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
            st = read_page(commits, kind, listing_r, &more, err);
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
