/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HALT_H
#define CM_HALT_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_buf;
struct cm_commits;
struct redisReply;

/*
 * The one switch that beats every rule on every host. In Redis it is the last
 * entry of the stream <prefix>:halt (state, at, by, reason), which
 * chaosmilter.lua writes; halt_watch.h is how a filter obeys it.
 */
#define CM_HALT_BY_MAX     128 /* bytes */
#define CM_HALT_REASON_MAX 256

struct cm_halt {
    bool halted;
    int64_t at_ms; /* wall clock of Redis; 0: it was never used */
    char by[CM_HALT_BY_MAX + 1];
    char reason[CM_HALT_REASON_MAX + 1];
};

/* cm_halt_print - `{"halted":true,"since":"...","by":"...","reason":"..."}`, or
 * {"halted":false}. */
void cm_halt_print(struct cm_buf *buf, const struct cm_halt *halt);

/*
 * cm_commit_halt, cm_commit_resume - throw the switch, in the name that commits
 * carries; cm_commit_halted only looks. Halting what is halted keeps who did
 * it, when and why. halt_r gets what is there afterwards. CM_OK; CM_EINVAL (the
 * reason is too long or holds control characters); else as cm_commit_set.
 */
enum cm_status cm_commit_halt(struct cm_commits *commits, const char *reason,
                              struct cm_halt *halt_r,
                              struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_resume(struct cm_commits *commits,
                                struct cm_halt *halt_r,
                                struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_halted(struct cm_commits *commits,
                                struct cm_halt *halt_r,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_halt_read - from the entries that XREVRANGE answers, the newest first; id
 * gets the entry's ("0-0" when there is none). An entry of any other shape
 * halts. CM_OK, CM_EPROTO. For the files of this room. */
enum cm_status cm_halt_read(struct cm_halt *halt_r, char *id, size_t cap,
                            const struct redisReply *reply,
                            struct cm_err *err) CM_MUST_CHECK;

#endif
