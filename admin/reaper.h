/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_REAPER_H
#define CM_REAPER_H

#include "milter/err.h"

#include <stdint.h>

/*
 * Absolute deadlines for sockets. libmicrohttpd only knows a timeout of
 * inactivity, which a client that sends one byte a second never meets; so one
 * thread shuts down every socket whose deadline has passed, and the library
 * then closes the connection as if the client had gone. Thread-safe.
 */
struct cm_reaper;
struct cm_watch; /* one socket's deadline */

enum cm_status cm_reaper_start(struct cm_reaper **reaper_r,
                               struct cm_err *err) CM_MUST_CHECK;
void cm_reaper_stop(struct cm_reaper **reaper); /* all watches are gone */

/* cm_reaper_watch - begin to watch fd (borrowed); NULL when out of memory. */
struct cm_watch *cm_reaper_watch(struct cm_reaper *reaper, int fd, int64_t ms);
/* cm_reaper_rearm - the deadline is now ms from now. */
void cm_reaper_rearm(struct cm_reaper *reaper, struct cm_watch *watch,
                     int64_t ms);
/* cm_reaper_unwatch - must come before fd is closed, so that no other socket
 * that gets the same number is ever shut down. */
void cm_reaper_unwatch(struct cm_reaper *reaper, struct cm_watch **watch);

#endif
