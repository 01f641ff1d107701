/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_AUDIT_H
#define CM_AUDIT_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

struct cm_commits;

/*
 * Who changed what, when, before and after. Written by chaosmilter.lua in the
 * same call that makes the change, so that none is missing and none invented;
 * two streams of bounded length, that of inboxes (and what POST /api/inboxes
 * made) apart, for a bulk write would wash away all else.
 *
 * Texts of an entry: at (ms since the epoch), actor, op, key ("rule:r7"), and
 * as the case may be seq, rev, before, after (documents; before_bytes and
 * after_bytes instead of large ones), place, place_before, reason, and others:
 * a reader takes what it knows.
 */
enum cm_audit_of { CM_AUDIT_FLEET, CM_AUDIT_INBOXES };

#define CM_AUDIT_FIELDS_MAX 24

struct cm_audit_entry {
    char id[48];
    size_t n;
    struct {
        char *name, *value; /* owned */
    } field[CM_AUDIT_FIELDS_MAX];
};
struct cm_audit {
    size_t n;
    struct cm_audit_entry *entries; /* owned; the newest first */
    char next[48];                  /* id to go on from; "": no more */
};

/*
 * cm_audit_read - up to limit entries from the one named from on (its id; "":
 * the newest) back in time.
 *
 * key    only those of this document; NULL: all. At most CM_AUDIT_SCAN entries
 *        are looked at for one call, so fewer than limit may come with more
 *        to follow.
 *
 * audit_r is cm_audit_fini's in any case. CM_OK, CM_EINVAL (from is no id),
 * else as cm_commit_get.
 */
#define CM_AUDIT_SCAN 5000
enum cm_status cm_audit_read(struct cm_commits *commits, enum cm_audit_of of,
                             const char *from, const char *key, int limit,
                             struct cm_audit *audit_r,
                             struct cm_err *err) CM_MUST_CHECK;
void cm_audit_fini(struct cm_audit *audit);

/* cm_audit_field - the text of that name, NULL when there is none. */
const char *cm_audit_field(const struct cm_audit_entry *entry,
                           const char *name);

#endif
