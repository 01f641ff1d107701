/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_OUTFLOW_H
#define CM_OUTFLOW_H

#include <stddef.h>
#include <sys/types.h>

/*
 * The body of an answer that goes on for as long as somebody listens. Whoever
 * makes one fills read and end; the HTTP wrapper fills the rest before the
 * first read, calls read whenever the client can take more, and end once, when
 * the connection is gone or none came about.
 */
#define CM_OUTFLOW_END ((ssize_t)-1)

struct cm_outflow {
    /* Up to cap bytes into buf; 0: nothing now, and wake will be called when
     * there is; CM_OUTFLOW_END: that was all. Must not block. */
    ssize_t (*read)(struct cm_outflow *flow, char *buf, size_t cap);
    /* Frees the flow; wake must not be called any more. */
    void (*end)(struct cm_outflow *flow);

    /* From any thread, between the first read and end. */
    void (*wake)(void *waker);
    void *waker;
    int fd; /* the client's socket, open until end; to poll, nothing else */
};

#endif
