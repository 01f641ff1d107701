/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SYNC_H
#define CM_SYNC_H

#include "milter/err.h"
#include "milter/store/link.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_buf;
struct cm_replica;

/*
 * The one thread that keeps the replica equal to Redis. It reads epoch,
 * sequence number and every document once, then tails the change log (XREAD
 * BLOCK); once a second it compares epoch and sequence number as a safety net.
 * A gap, another epoch, a sequence number that went back or a lost log mean a
 * fresh resync. An empty Redis (no epoch) never deletes rules: they stay, with
 * an alarm. When Redis cannot be had the last rules stay too, or, after
 * stale_after_ms, are no longer applied. Rules from a snapshot count as fresh
 * at the time of the start.
 *
 * Once a second it writes this host's heartbeat (field host_id of the hash
 * <prefix>:st:hosts), one JSON object:
 *   host, pid, version, started_ms, time_ms, epoch, seq, digest (16 hex
 * digits), inboxes, rules, broken_total, broken [{key, why}] (at most 20),
 *   alarms [text], and whatever report appends (`,"name":value` pairs).
 */
struct cm_sync;

struct cm_sync_opts {
    struct cm_link_opts link; /* deep-copied */
    const char *prefix;       /* "{cm}" */
    const char *host_id;      /* unique per filter process on the fleet */
    const char *version;
    int64_t stale_after_ms; /* 0: never */
    int snapshot_dir_fd;    /* -1: no snapshot */
    const char *snapshot_name;
    /* Appends further members to the heartbeat; called on the sync thread, must
     * not block. NULL: none. */
    void (*report)(void *arg, struct cm_buf *json);
    void *report_arg;
};

/* cm_sync_start - reads the snapshot if there is one, then starts the thread.
 * replica is borrowed and must outlive it. Does not wait for Redis. */
enum cm_status cm_sync_start(struct cm_sync **sync_r,
                             const struct cm_sync_opts *opts,
                             struct cm_replica *replica,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_sync_stop - end the thread within 200 ms whatever Redis does; writes a
 * last snapshot if there is something new. The predicates below stay valid
 * until cm_sync_free, which is for a stopped one; NULL-safe. */
void cm_sync_stop(struct cm_sync *sync);
void cm_sync_free(struct cm_sync **sync);

/* cm_sync_stale - the rules are older than stale_after_ms: apply none. Any
 * thread. */
bool cm_sync_stale(const struct cm_sync *sync);

/* cm_sync_connected - is the link up? cm_sync_synced - has a resync been
 * completed since start? Any thread. */
bool cm_sync_connected(const struct cm_sync *sync);
bool cm_sync_synced(const struct cm_sync *sync);

/* cm_sync_head - the newest sequence number that Redis was seen to have, 0
 * before the first. Any thread. */
int64_t cm_sync_head(const struct cm_sync *sync);

/* cm_sync_alarms_json - `["text",...]`, what is wrong now, as in the heartbeat,
 * which cannot be written while Redis is away. Returns how many. Any thread. */
unsigned cm_sync_alarms_json(struct cm_sync *sync, struct cm_buf *buf);

#endif
