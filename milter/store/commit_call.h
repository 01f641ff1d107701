/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_COMMIT_CALL_H
#define CM_COMMIT_CALL_H

#include "milter/store/commit.h"
#include "milter/store/keys.h"
#include "milter/store/script.h"

#include <stdbool.h>

/* What the files of documents share (batch.c, commit.c, fleet.c, halt.c,
 * listing.c); nobody else includes it. */
struct cm_commits {
    struct cm_pool *pool; /* borrowed */
    struct cm_keys keys;
    int timeout_ms;
    char actor[CM_ACTOR_MAX + 1]; /* who writes, for the log and the audit */
    bool borrows;                 /* library and so the scripts are another's */
    char *library; /* owned: chaosmilter.lua with our settings put in */
    struct cm_script documents;  /* the same without its first line */
    char *urgent_text;           /* owned */
    struct cm_script urgent;     /* the same, also when memory is used up */
    struct cm_script add_totals; /* KEYS[1] the hash; name, amount, ... */
};

/* cm_commit_print_rev - as the script wants it; returns out or "*". */
const char *cm_commit_print_rev(char out[24], int64_t rev);

/* cm_commit_doc - a document from the text of its envelope. "" is CM_NOTFOUND;
 * CM_EPROTO: it is none. */
enum cm_status cm_commit_doc(struct cm_doc *doc_r,
                             const struct redisReply *reply,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_commit_unexpected - CM_EPROTO: a reply that no script of ours gives. */
enum cm_status cm_commit_unexpected(struct cm_err *err);

/*
 * cm_commit_call - borrow a link for one exchange. script NULL: argv is a
 * plain command; else nkeys keys and then arguments. Maps what Redis said to
 * the statuses of commit.h.
 */
enum cm_status cm_commit_call(struct cm_commits *commits,
                              const struct cm_script *script,
                              struct redisReply **reply_r, int nkeys, int argc,
                              const char *const *argv, const size_t *lens,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_commit_texts - the strings of an array reply, NULL-terminated, for
 * cm_names_free. n_r may be NULL. */
enum cm_status cm_commit_texts(char ***texts_r, size_t *n_r,
                               const struct redisReply *reply,
                               struct cm_err *err) CM_MUST_CHECK;

#endif
