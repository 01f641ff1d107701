/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LISTING_H
#define CM_LISTING_H

#include "milter/err.h"
#include "milter/store/commit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * All documents of a kind of which there are few enough to hold (not inboxes),
 * as they were at one moment. at is the number of the last change of anything
 * of the kind, 0 before the first: it tells two states apart, and a batch can
 * demand that it is still the same.
 */
struct cm_listed {
    char *name;        /* owned */
    struct cm_doc doc; /* owned; text NULL: what is stored is no document */
};
struct cm_listing {
    int64_t at;
    size_t n;
    struct cm_listed *docs; /* owned; by place, then name; of a page, by name */
};

/*
 * cm_commit_read - every document of the kind. listing_r is to be freed with
 * cm_listing_fini after CM_OK, and may be in any case. As cm_commit_get, and
 * CM_EIO when the documents changed each time while they were read page by page
 * (a page has 10,000 documents or 8 MiB).
 */
enum cm_status cm_commit_read(struct cm_commits *commits, enum cm_kind kind,
                              struct cm_listing *listing_r,
                              struct cm_err *err) CM_MUST_CHECK;
void cm_listing_fini(struct cm_listing *listing);

/*
 * cm_commit_page - of any kind, up to limit (1..10000) documents in byte order
 * of their names, that begin with begin ("" for all) and come after the name
 * after ("" from the start). *more_r: there are further ones, which may be
 * although limit was not reached. As cm_commit_read.
 */
enum cm_status cm_commit_page(struct cm_commits *commits, enum cm_kind kind,
                              const char *begin, const char *after, int limit,
                              struct cm_listing *listing_r, bool *more_r,
                              struct cm_err *err) CM_MUST_CHECK;
/* cm_commit_count - how many such documents there are. */
enum cm_status cm_commit_count(struct cm_commits *commits, enum cm_kind kind,
                               const char *begin, int64_t *n_r,
                               struct cm_err *err) CM_MUST_CHECK;

#endif
