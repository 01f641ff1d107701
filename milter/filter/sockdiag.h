/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SOCKDIAG_H
#define CM_SOCKDIAG_H

#include "milter/err.h"
#include "milter/filter/tuple.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The kernel's table of TCP sockets, asked over NETLINK_SOCK_DIAG: find the
 * MTA's end of a connection, and destroy exactly that one. See sock_diag(7).
 * Never waits: the kernel has answered when the question is sent. A lookup
 * takes 1 to 2 microseconds with 20 or 19,000 sockets alike (Linux 6.18).
 */
struct cm_sockdiag {
    int fd;
    uint32_t seq;
};

/* A connection in state ESTABLISHED or CLOSE_WAIT. */
struct cm_sockdiag_conn {
    struct cm_tuple tuple; /* as the kernel has it: both addresses known */
    uint64_t cookie;       /* names this socket, and no later one */
    uint32_t inode, uid;   /* of the MTA's socket */
    uint32_t interface;    /* it is bound to, or 0 */
    bool client_closed;    /* state CLOSE_WAIT: the client's FIN has come */
};

/* cm_sockdiag_open - CM_OK or CM_EIO. Needs no privilege. One user at a time.
 */
enum cm_status cm_sockdiag_open(struct cm_sockdiag *diag_r,
                                struct cm_err *err) CM_MUST_CHECK;
/* cm_sockdiag_close - also after a failed open, and twice. */
void cm_sockdiag_close(struct cm_sockdiag *diag);

/*
 * cm_sockdiag_find - the MTA's end of this connection.
 *
 * An MTA address that is not known, or a link-local client (whose interface the
 * milter is not told) makes this a walk over all sockets of that port, and the
 * answer is taken only if it is the only one.
 *
 * Returns CM_OK; CM_NOTFOUND: not here in those two states; CM_EINVAL: more
 * than one; CM_EIO: the kernel refused. Needs no privilege.
 */
enum cm_status cm_sockdiag_find(struct cm_sockdiag *diag,
                                const struct cm_tuple *tuple,
                                struct cm_sockdiag_conn *conn_r,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_sockdiag_must_walk - would cm_sockdiag_find have to walk? */
bool cm_sockdiag_must_walk(const struct cm_tuple *tuple);

/* cm_sockdiag_find_again - conn, the same socket, as it is now. CM_OK;
 * CM_NOTFOUND: no longer in one of the two states; CM_EIO. */
enum cm_status cm_sockdiag_find_again(struct cm_sockdiag *diag,
                                      const struct cm_sockdiag_conn *conn,
                                      struct cm_sockdiag_conn *now_r,
                                      struct cm_err *err) CM_MUST_CHECK;

/* cm_sockdiag_is_open - CM_OK when conn, the same socket, is still in one of
 * the two states; CM_NOTFOUND when not; CM_EIO. */
enum cm_status cm_sockdiag_is_open(struct cm_sockdiag *diag,
                                   const struct cm_sockdiag_conn *conn,
                                   struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_sockdiag_destroy - both ends lose the connection at once, the peer by RST.
 * Needs CAP_NET_ADMIN in the network's namespace and a kernel with
 * CONFIG_INET_DIAG_DESTROY.
 *
 * conn  from cm_sockdiag_find: without its cookie a listener could be meant
 *
 * Returns CM_OK; CM_NOTFOUND: it went away meanwhile; CM_EIO.
 */
enum cm_status cm_sockdiag_destroy(struct cm_sockdiag *diag,
                                   const struct cm_sockdiag_conn *conn,
                                   struct cm_err *err) CM_MUST_CHECK;

#endif
