/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TAIL_H
#define CM_TAIL_H

#include "milter/store/keys.h"
#include "milter/store/link.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_replica;

/* Up to where a replica, or one being filled, has followed the change log. */
struct cm_position {
    char epoch[64]; /* "" when Redis holds no data of ours */
    int64_t seq;
    char id[48]; /* of the last log entry seen, or "0-0" */
    bool inside; /* a batch: more of its changes follow */
};

enum cm_tail {
    CM_TAIL_IDLE,    /* nothing new */
    CM_TAIL_APPLIED, /* went on; there may be more */
    CM_TAIL_LOST     /* a gap, or another epoch: read everything again */
};

/*
 * cm_tail_read - one XREAD from pos, its entries applied and pos moved on.
 *
 * aside     fill the replica's next table (after cm_replica_begin)
 * block_ms  how long Redis may wait for an entry; 0: not at all
 *
 * CM_OK; CM_ENOMEM: pos no longer tells what is applied, read everything again;
 * else as cm_link_command.
 */
enum cm_status cm_tail_read(struct cm_link *link, const struct cm_keys *keys,
                            struct cm_replica *replica, struct cm_position *pos,
                            bool aside, int block_ms, int command_timeout_ms,
                            enum cm_tail *what_r,
                            struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_tail_seen - keep one document as Redis returned it by GETRANGE, an error
 * reply included. may_be_gone: an empty reply means a deletion,
 * else a fault.
 * CM_OK, CM_EPROTO (an error that says nothing about this key), CM_ENOMEM.
 */
struct redisReply;
enum cm_status cm_tail_seen(struct cm_replica *replica, const char *key,
                            const struct redisReply *reply, bool aside,
                            bool may_be_gone, struct cm_err *err) CM_MUST_CHECK;

/* The last argument of GETRANGE that fetches a whole document and of anything
 * larger just enough to know. */
#define CM_TAIL_LAST_BYTE "65632"

/* cm_tail_head - epoch and seq as Redis has them now; *has_data_r is false, and
 * the rest untouched, without an epoch. */
enum cm_status cm_tail_head(struct cm_link *link, const struct cm_keys *keys,
                            char *epoch_r, size_t cap, int64_t *seq_r,
                            bool *has_data_r, struct cm_err *err) CM_MUST_CHECK;

#endif
