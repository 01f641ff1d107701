/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SECRET_H
#define CM_SECRET_H

#include "milter/err.h"

#include <stddef.h>

/*
 * Bytes on their way through us that may hold a password: in memory that no
 * core file shows, and wiped as soon as they are done with. Nothing here waits.
 */
struct cm_secret {
    char *data; /* owned mapping; NULL: closed */
    size_t len, cap;
};

enum cm_secret_got {
    CM_SECRET_SOME,
    CM_SECRET_NONE, /* for now, or for want of room */
    CM_SECRET_END   /* the other side has gone, or says no more */
};

/* cm_secret_open - empty, for up to cap bytes. CM_OK, CM_ENOMEM. */
enum cm_status cm_secret_open(struct cm_secret *secret_r,
                              size_t cap) CM_MUST_CHECK;
/* cm_secret_close - also one that is closed or zeroed. */
void cm_secret_close(struct cm_secret *secret);

/* cm_secret_receive - add what has come from a socket. */
enum cm_secret_got cm_secret_receive(struct cm_secret *secret, int fd);

/* cm_secret_send - as much of it as the socket takes now, which is then
 * forgotten. CM_OK, CM_EIO (the other side has gone). */
enum cm_status cm_secret_send(struct cm_secret *secret, int fd) CM_MUST_CHECK;

/* cm_secret_forget - the first n bytes are done with. */
void cm_secret_forget(struct cm_secret *secret, size_t n);

#endif
