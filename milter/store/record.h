/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RECORD_H
#define CM_RECORD_H

#include "milter/err.h"
#include "milter/store/entry.h"

#include <stdbool.h>
#include <stdint.h>

struct redisReply; /* hiredis's */

/*
 * The number that Redis gave an entry of the stream of events: it grows, and
 * serves as the cursor of whoever reads. "1700000000000-0".
 */
struct cm_record_id {
    uint64_t ms, n;
};
#define CM_RECORD_ID_BYTES 42
#define CM_RECORD_ID_MAX   ((struct cm_record_id){UINT64_MAX, UINT64_MAX})

/* cm_record_id_parse - the whole text, both numbers. CM_OK or CM_EINVAL. */
enum cm_status cm_record_id_parse(const char *text,
                                  struct cm_record_id *id_r) CM_MUST_CHECK;
void cm_record_id_print(struct cm_record_id id, char out[CM_RECORD_ID_BYTES]);
/* cm_record_id_compare - below, equal to or above 0, as strcmp. */
int cm_record_id_compare(struct cm_record_id a, struct cm_record_id b);

/*
 * One entry as it was read: the texts are borrowed from the reply, or, in a
 * copy, its own. A field that is not there is "".
 */
#define CM_RECORD_BYTES_MAX 8192 /* of all texts; the journal's have a third   \
                                  */
struct cm_record {
    struct cm_record_id id;
    const char *at[CM_ENTRY_FIELDS];
    char *own; /* what a copy owns; NULL: borrowed */
};

/* cm_record_read - from one element of an XRANGE reply. false: no entry of
 * ours, such as one that somebody added by hand and that lacks a time, a host,
 * a kind, an outcome or a stage, or is larger than CM_RECORD_BYTES_MAX. */
bool cm_record_read(struct cm_record *record_r, const struct redisReply *entry);

/* cm_record_dup - CM_OK; CM_ENOMEM leaves nothing to free. */
enum cm_status cm_record_dup(struct cm_record *copy_r,
                             const struct cm_record *record) CM_MUST_CHECK;
void cm_record_fini(struct cm_record *copy);

#endif
