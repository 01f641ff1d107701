/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_COMMIT_H
#define CM_COMMIT_H

#include "milter/err.h"
#include "milter/store/pool.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Documents in Redis. Every write is one atomic script (chaosmilter.lua): it
 * checks the revision, takes the next sequence number, writes the document, its
 * index entry and one entry of the change log, or nothing at all. The same
 * source is loaded as a Redis 7 function library, so that redis-cli alone can
 * do what the API does (FCALL cm_set 0 inbox a@example.com '{...}').
 */
enum cm_kind {
    CM_KIND_INBOX, /* name: canonical address; document: VaultSandbox config */
    CM_KIND_RULE,  /* name: rule id; document: a rule of our own API */
    CM_KIND_FAULT, /* name: id; document: a fault rule of LocalStack's API */
    CM_KIND_TRIGGER, /* name: "sender", "recipient", "authentication";
                        document: a trigger of Mailpit's API */
    CM_KIND_EFFECT,  /* name: "latency"; document: effects of LocalStack's */
    CM_KIND_BOX, /* name: canonical address; an inbox made by POST /api/inboxes
                  */
    CM_KIND_COUNT
};
const char *cm_kind_name(enum cm_kind kind); /* "inbox", "rule", ... */

#define CM_REV_ANY  (-1) /* write whatever is there */
#define CM_REV_NONE 0    /* write only if nothing is there */

struct cm_commits;

/*
 * cm_commits_new - pool is borrowed and must outlive it. prefix e.g. "{cm}";
 * fold_local: local parts are without case (the Lua side lower-cases them too).
 */
enum cm_status cm_commits_new(struct cm_commits **commits_r,
                              struct cm_pool *pool, const char *prefix,
                              bool fold_local, int timeout_ms,
                              struct cm_err *err) CM_MUST_CHECK;
void cm_commits_free(struct cm_commits **commits);

/*
 * cm_commits_as - the same door for somebody: what is written through it is
 * written down in that name ("chaosadmin" for the one it came from). To be
 * freed before that one; NULL when out of memory. actor is cut to CM_ACTOR_MAX
 * bytes.
 */
#define CM_ACTOR_MAX 127
struct cm_commits *cm_commits_as(const struct cm_commits *commits,
                                 const char *actor);

/* cm_commits_load_library - FUNCTION LOAD REPLACE on Redis 7; CM_NOTFOUND on a
 * Redis without functions (nothing is wrong: EVALSHA serves), or as below. */
enum cm_status cm_commits_load_library(struct cm_commits *commits,
                                       struct cm_err *err) CM_MUST_CHECK;

struct cm_doc {
    int64_t rev; /* 1.. of this document */
    int64_t seq; /* of the commit that wrote it */
    int64_t ord; /* its place in the order of evaluation; -1: kinds without */
    char *text;  /* owned; NUL-terminated */
    size_t len;
};
void cm_doc_fini(struct cm_doc *doc);

/*
 * Set, delete and get. Thread-safe.
 * rev      CM_REV_ANY, CM_REV_NONE or the revision that must be there
 * rev_r    out: the new revision (set); may be NULL
 * CM_OK; CM_NOTFOUND (get, del: nothing there); CM_ECONFLICT (revision);
 * CM_EINVAL (name or document refused by the script); CM_EIO, CM_ETIMEOUT:
 * Redis cannot be had, say 503; CM_EPROTO: it refused the write for another
 * reason (err has its words), also 503; CM_ENOMEM. After CM_ETIMEOUT and CM_EIO
 * the write may still have happened.
 */
enum cm_status cm_commit_set(struct cm_commits *commits, enum cm_kind kind,
                             const char *name, const char *doc, size_t len,
                             int64_t rev, int64_t *rev_r,
                             struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_del(struct cm_commits *commits, enum cm_kind kind,
                             const char *name, int64_t rev,
                             struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_get(struct cm_commits *commits, enum cm_kind kind,
                             const char *name, struct cm_doc *doc_r,
                             struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_commit_list - up to limit names of a kind in byte order, that begin with
 * prefix ("" for all) and come after the name after ("" from the start).
 * names_r: NULL-terminated array, cm_names_free it. n_r may be NULL.
 */
enum cm_status cm_commit_list(struct cm_commits *commits, enum cm_kind kind,
                              const char *prefix, const char *after, int limit,
                              char ***names_r, size_t *n_r,
                              struct cm_err *err) CM_MUST_CHECK;
void cm_names_free(char ***names);

/*
 * What the filters tell of themselves (see journal.h, sync.h):
 * cm_commit_hosts  JSON texts of all heartbeats, one per host, NULL-terminated
 * cm_commit_total  one fleet-wide total by name, 0 when never counted
 * cm_commit_seq    epoch (to free()) and sequence number; CM_NOTFOUND: no epoch
 */
enum cm_status cm_commit_hosts(struct cm_commits *commits, char ***json_r,
                               struct cm_err *err) CM_MUST_CHECK;
struct cm_total {
    const char *name; /* in */
    int64_t value;    /* out */
};
enum cm_status cm_commit_totals(struct cm_commits *commits,
                                struct cm_total *totals, size_t n,
                                struct cm_err *err) CM_MUST_CHECK;
/* cm_commit_all_totals - every total, name and value in turns, for
 * cm_names_free. */
enum cm_status cm_commit_all_totals(struct cm_commits *commits, char ***texts_r,
                                    struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_add_totals(struct cm_commits *commits,
                                    const struct cm_total *totals, size_t n,
                                    struct cm_err *err) CM_MUST_CHECK;
/*
 * cm_commit_hits - how often each of n rules acted, and would have acted in
 * shadow mode: the names (as in an incident, "r7") are borrowed; arrays of n.
 */
enum cm_status cm_commit_hits(struct cm_commits *commits,
                              const char *const *names, size_t n,
                              int64_t *hits_r, int64_t *shadowed_r,
                              struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_seq(struct cm_commits *commits, char **epoch_r,
                             int64_t *seq_r, struct cm_err *err) CM_MUST_CHECK;

/* cm_commit_forget_hosts - drop heartbeats whose time is before cutoff_ms. */
enum cm_status cm_commit_forget_hosts(struct cm_commits *commits,
                                      int64_t cutoff_ms,
                                      struct cm_err *err) CM_MUST_CHECK;

#endif
