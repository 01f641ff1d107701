/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LISTEN_H
#define CM_LISTEN_H

#include "milter/err.h"

#include <stdbool.h>

/*
 * The listening socket, made by us rather than by the HTTP library, so that it
 * can be bound as root and used by somebody else.
 */
struct cm_listen {
    int fd;         /* the caller's to close; -1 when only checked */
    bool loopback;  /* only this machine can reach it */
    char host[256]; /* as written, without port: "127.0.0.1", "[::1]" */
};

/*
 * cm_listen_check - is "host:port" (IPv6 in brackets) well formed? Fills host.
 * CM_OK, CM_EINVAL.
 */
enum cm_status cm_listen_check(struct cm_listen *listen_r, const char *address,
                               struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_listen_open - resolve, bind and listen; close-on-exec. CM_OK; CM_EINVAL;
 * CM_EIO: the name does not resolve, or the port is taken (err says which).
 */
enum cm_status cm_listen_open(struct cm_listen *listen_r, const char *address,
                              struct cm_err *err) CM_MUST_CHECK;

#endif
