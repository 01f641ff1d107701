/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FIN_H
#define CM_FIN_H

#include "milter/err.h"
#include "milter/filter/sockdiag.h"

#include <stdint.h>
#include <sys/types.h>

/*
 * End a connection of another process in the orderly way: the peer sees FIN
 * (end of file). The process's own descriptor is borrowed by pidfd_getfd(2)
 * and shut down; the process finds its connection closed. Needs Linux 5.6,
 * CAP_SYS_PTRACE, and a Yama ptrace_scope below 3.
 */

/*
 * cm_fin_send - shut down the MTA's end of conn.
 *
 * proc_fd      /proc, open for reading; its position is moved
 * conn         from cm_sockdiag_find
 * hint         the process that probably holds it, 0: not known. A wrong hint
 *              costs a little time; the socket is known by inode and cookie.
 * deadline_us  monotonic; no process is looked at later than that
 *
 * 9 microseconds to find it with a right hint; without one all processes are
 * looked at, those of the socket's user first: 27 ms with 500 of them.
 *
 * Returns CM_OK: it was shut down; CM_NOTFOUND: no process that we can see has
 * it (another PID namespace), or it went away; CM_ETIMEOUT: the deadline
 * passed, nothing was done; CM_EIO.
 */
enum cm_status cm_fin_send(int proc_fd, const struct cm_sockdiag_conn *conn,
                           pid_t hint, int64_t deadline_us,
                           struct cm_err *err) CM_MUST_CHECK;

/* cm_fin_probe - may descriptors of this process (which is not dumpable, so
 * only a capability helps) be borrowed? CM_OK, or CM_EIO with the reason. */
enum cm_status cm_fin_probe(pid_t pid, struct cm_err *err) CM_MUST_CHECK;

#endif
