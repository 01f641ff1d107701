/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Texts are compared byte by byte, not as JSON: two spellings of one document
 * cost two objects and nothing else. The text itself is the compiled inbox's.
 */
#include "milter/store/docs.h"
#include "milter/model/inbox.h"
#include "milter/model/rule_json.h"
#include "milter/store/hash.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CM_DOCS_FIRST 64u

struct cm_shared_doc {
    struct cm_shared_doc *next;
    uint64_t hash;
    size_t uses;
    struct cm_inbox *inbox;
};

struct cm_docs {
    struct cm_shared_doc **buckets;
    size_t nbuckets, n;
};

enum cm_status
cm_docs_new(struct cm_docs **docs_r)
{
    struct cm_docs *docs = calloc(1, sizeof *docs);
    if (docs)
        docs->buckets = calloc(CM_DOCS_FIRST, sizeof *docs->buckets);
    if (!docs || !docs->buckets) {
        free(docs);
        return CM_ENOMEM;
    }
    docs->nbuckets = CM_DOCS_FIRST;
    *docs_r = docs;
    return CM_OK;
}

void
cm_docs_free(struct cm_docs **docs)
{
    if (!*docs)
        return;
    assert((*docs)->n == 0);
    free((*docs)->buckets);
    free(*docs);
    *docs = NULL;
}

/* Without memory the chains grow longer, which is slow and nothing worse. */
static void
grow(struct cm_docs *docs)
{
    size_t nbuckets = docs->nbuckets * 2;
    struct cm_shared_doc **buckets = calloc(nbuckets, sizeof *buckets);
    if (!buckets)
        return;
    for (size_t b = 0; b < docs->nbuckets; b++) {
        struct cm_shared_doc *next;
        for (struct cm_shared_doc *at = docs->buckets[b]; at; at = next) {
            next = at->next;
            at->next = buckets[at->hash & (nbuckets - 1)];
            buckets[at->hash & (nbuckets - 1)] = at;
        }
    }
    free(docs->buckets);
    docs->buckets = buckets;
    docs->nbuckets = nbuckets;
}

enum cm_status
cm_docs_use(struct cm_docs *docs, struct cm_shared_doc **doc_r,
            const char *text, size_t len, struct cm_err *err)
{
    uint64_t hash = cm_hash(text, len, 0);
    struct cm_shared_doc *doc = docs->buckets[hash & (docs->nbuckets - 1)];
    while (doc && (doc->hash != hash || doc->inbox->doc_len != len ||
                   memcmp(doc->inbox->doc, text, len) != 0))
        doc = doc->next;
    if (doc) {
        doc->uses++;
        *doc_r = doc;
        return CM_OK;
    }

    doc = calloc(1, sizeof *doc);
    if (!doc)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status st = cm_inbox_compile(&doc->inbox, text, len, err);
    if (st != CM_OK) {
        free(doc);
        return st;
    }
    if (docs->n >= docs->nbuckets)
        grow(docs);
    doc->hash = hash;
    doc->uses = 1;
    doc->next = docs->buckets[hash & (docs->nbuckets - 1)];
    docs->buckets[hash & (docs->nbuckets - 1)] = doc;
    docs->n++;
    *doc_r = doc;
    return CM_OK;
}

void
cm_docs_drop(struct cm_docs *docs, struct cm_shared_doc *doc)
{
    if (--doc->uses > 0)
        return;
    struct cm_shared_doc **at =
        &docs->buckets[doc->hash & (docs->nbuckets - 1)];
    while (*at != doc)
        at = &(*at)->next;
    *at = doc->next;
    docs->n--;
    cm_inbox_release(&doc->inbox);
    free(doc);
}

struct cm_inbox *
cm_shared_doc_inbox(const struct cm_shared_doc *doc)
{
    return doc->inbox;
}
