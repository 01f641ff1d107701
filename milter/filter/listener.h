/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LISTENER_H
#define CM_LISTENER_H

#include "milter/err.h"

#include <sys/types.h>

/*
 * The socket that the MTA connects to. libmilter makes it, by the umask and
 * without looking what is there; this puts order around that.
 */
struct cm_listener;

/* cm_listener_check - the syntax of "unix:/path", "inet:port@host" or
 * "inet6:port@host", for settings. */
enum cm_status cm_listener_check(const char *spec,
                                 struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_listener_open - remove a stale unix socket (only if it is a socket and
 * nobody answers on it), let libmilter open its own, give it mode, owner and
 * group. Call as the user that may write the directory, before privileges are
 * dropped.
 *
 * user, group  names, "" to leave as they are
 * CM_OK; CM_ECONFLICT: another process listens there; CM_EINVAL; CM_EIO.
 */
enum cm_status cm_listener_open(struct cm_listener **listener_r,
                                const char *spec, mode_t mode, const char *user,
                                const char *group,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_listener_shut - accept nothing more, at once: the port is free and the
 * unix socket's name is gone. libmilter itself would take up to 5 s. */
void cm_listener_shut(struct cm_listener *listener);

void cm_listener_free(struct cm_listener **listener);

#endif
