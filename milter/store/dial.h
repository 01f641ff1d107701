/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DIAL_H
#define CM_DIAL_H

#include "milter/err.h"

#include <stdint.h>

/*
 * A connected socket under one absolute deadline, name resolution included.
 * Addresses are "unix:/path" and "tcp:host:port" ("tcp:[::1]:6379").
 */

/* cm_dial_check - the syntax alone. CM_OK or CM_EINVAL. */
enum cm_status cm_dial_check(const char *address,
                             struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_dial - connect. *fd_r is the caller's to close: non-blocking,
 * close-on-exec, TCP with keepalive and without Nagle's delay.
 *
 * deadline_ms   of cm_clock_mono_ms
 * interrupt_fd  ends the wait when it becomes readable; -1: none
 *
 * CM_OK, CM_EINVAL (address), CM_EIO (refused, no such host, interrupted),
 * CM_ETIMEOUT, CM_ENOMEM.
 */
enum cm_status cm_dial(int *fd_r, const char *address, int64_t deadline_ms,
                       int interrupt_fd, struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_dial_wait - until fd is ready for events (of poll), the deadline passes or
 * the interrupt comes. revents_r may be NULL. CM_OK, CM_ETIMEOUT, CM_EIO.
 */
enum cm_status cm_dial_wait(int fd, short events, int64_t deadline_ms,
                            int interrupt_fd, short *revents_r,
                            struct cm_err *err) CM_MUST_CHECK;

#endif
