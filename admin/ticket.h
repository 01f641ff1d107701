/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TICKET_H
#define CM_TICKET_H

#include "milter/err.h"

#include <stdbool.h>

struct cm_commits;

/*
 * A browser's EventSource can send no header, and a key must not stand in a
 * URL. So who has the key gets a ticket for it, which opens one stream, once,
 * within CM_TICKET_MS, at any admin daemon of the fleet. Redis holds its
 * SHA-256 alone.
 */
#define CM_TICKET_MS   30000
#define CM_TICKET_SIZE 69 /* "cmt_", 64 hex digits, NUL */

/* cm_ticket_issue - CM_OK; CM_EIO, CM_ETIMEOUT, CM_EPROTO: Redis, or the kernel
 * gives no random bytes. */
enum cm_status cm_ticket_issue(struct cm_commits *commits,
                               char ticket_r[CM_TICKET_SIZE],
                               struct cm_err *err) CM_MUST_CHECK;

/* cm_ticket_use - *good_r: it was issued, and nobody had used it. */
enum cm_status cm_ticket_use(struct cm_commits *commits, const char *ticket,
                             bool *good_r, struct cm_err *err) CM_MUST_CHECK;

#endif
