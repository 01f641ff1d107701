/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CHRONICLE_H
#define CM_CHRONICLE_H

#include "milter/store/link.h"
#include "milter/store/record.h"

#include <stdbool.h>
#include <stddef.h>

struct cm_commits;

/*
 * The stream of events read back: a page at a time for who asks, or followed by
 * one thread for all who listen. The journal writes it (journal.h), entry.h
 * says what is in it.
 */

/*
 * cm_chronicle_page - up to count entries, in the order of `newest_first`.
 *
 * from   exclusive; {0, 0} for the oldest, CM_RECORD_ID_MAX for the newest
 * count  1..CM_CHRONICLE_PAGE_MAX entries to look at; what is not ours is
 *        passed over
 * each   called for each; the record is borrowed; false: enough
 * seen_r out: the last id looked at, from where the next page goes on; only
 *        when *n_r > 0
 * n_r    out: how many were looked at; fewer than count: that was the last page
 *
 * CM_OK; else as cm_commit_get.
 */
#define CM_CHRONICLE_PAGE_MAX 500
typedef bool cm_chronicle_fn(void *arg, const struct cm_record *record);
enum cm_status cm_chronicle_page(struct cm_commits *commits,
                                 struct cm_record_id from, bool newest_first,
                                 int count, cm_chronicle_fn *each, void *arg,
                                 struct cm_record_id *seen_r, size_t *n_r,
                                 struct cm_err *err) CM_MUST_CHECK;

/* --- following --- */

struct cm_chronicle;

/* Both are called on the thread, one after the other. */
struct cm_chronicle_ops {
    /* What was read at once, oldest first; the records are borrowed. The first
     * call is about the history, and comes even when there is none (n 0). */
    void (*read)(void *arg, const struct cm_record *records, size_t n);
    /* Between what was read before and what comes next something may be
     * missing: the stream was trimmed past us, emptied or replaced. */
    void (*lost)(void *arg);
    void *arg;
};

/*
 * cm_chronicle_start - follow the stream by XREAD BLOCK on a link of its own:
 * first its newest `history` entries, then whatever comes. While Redis is away
 * it tries again and again and then goes on where it was. link is deep-copied.
 * Does not wait for Redis. CM_OK, CM_EINVAL, CM_EIO, CM_ENOMEM.
 */
enum cm_status cm_chronicle_start(struct cm_chronicle **chronicle_r,
                                  const struct cm_link_opts *link,
                                  const char *prefix, int history,
                                  const struct cm_chronicle_ops *ops,
                                  struct cm_err *err) CM_MUST_CHECK;

/* cm_chronicle_stop - end the thread, at once whatever Redis does. NULL-safe.
 */
void cm_chronicle_stop(struct cm_chronicle **chronicle);

#endif
