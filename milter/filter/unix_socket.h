/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_UNIX_SOCKET_H
#define CM_UNIX_SOCKET_H

#include "milter/err.h"

#include <stddef.h>
#include <sys/types.h>

/*
 * The name of a listening unix socket in the file system: cleared before, given
 * to somebody after, and removed at the end. Its folder is kept open, so that
 * the name can be removed after privileges are dropped even where the path
 * above it is closed to us.
 */
#define CM_UNIX_SOCKET_PATH_BYTES 108 /* of sun_path, with its NUL */

struct cm_unix_socket {
    int dir_fd; /* or -1 */
    char name[CM_UNIX_SOCKET_PATH_BYTES];
};

/* cm_unix_socket_path - of "unix:/path", or "local:/path", which is Sendmail's
 * word; NULL for another kind of socket. Borrowed. */
const char *cm_unix_socket_path(const char *spec);

/* cm_unix_socket_check - can a socket have this path? CM_OK or CM_EINVAL. */
enum cm_status cm_unix_socket_check(const char *path,
                                    struct cm_err *err) CM_MUST_CHECK;

/* cm_unix_socket_open - make way for a socket there: remove a stale one, only
 * if it is a socket and nobody answers on it. CM_OK; CM_ECONFLICT: something
 * else is there, or somebody answers; CM_EINVAL; CM_EIO. cm_unix_socket_fini
 * may be called either way. */
enum cm_status cm_unix_socket_open(struct cm_unix_socket *sock_r,
                                   const char *path,
                                   struct cm_err *err) CM_MUST_CHECK;

/* cm_unix_socket_give - to a user (when we are root) and a group, by name; ""
 * leaves it as it is. CM_OK, CM_EINVAL (no such), CM_EIO. */
enum cm_status cm_unix_socket_give(const struct cm_unix_socket *sock,
                                   const char *user, const char *group,
                                   struct cm_err *err) CM_MUST_CHECK;

/* cm_unix_socket_point_to - in one step, put a symbolic link to another socket
 * in its place; cm_unix_socket_unpoint - remove that link, if it is there and
 * leads to target, so that the socket can be opened again. CM_OK, CM_EIO. */
enum cm_status cm_unix_socket_point_to(const struct cm_unix_socket *sock,
                                       const char *target,
                                       struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_unix_socket_unpoint(const char *path, const char *target,
                                      struct cm_err *err) CM_MUST_CHECK;

void cm_unix_socket_remove(const struct cm_unix_socket *sock);
void cm_unix_socket_fini(struct cm_unix_socket *sock);

#endif
