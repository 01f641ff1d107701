/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HTTP_H
#define CM_HTTP_H

#include "admin/guard.h"
#include "milter/err.h"

#include <stdbool.h>

struct cm_request;
struct cm_response;

/*
 * The HTTP server: one careful wrapper around libmicrohttpd, and the only file
 * that knows it. A handler sees only requests that are whole, checked and
 * within their limits; it runs on one of CM_HTTP_THREADS threads and may block
 * for as long as a Redis command may.
 */
#define CM_HTTP_THREADS            4
#define CM_HTTP_CONNECTIONS        256
#define CM_HTTP_CONNECTIONS_PER_IP 32
#define CM_HTTP_HEAD_BYTES         (32 * 1024) /* request line and headers */
#define CM_HTTP_HEAD_MS            10000 /* from connect, or the last answer */
#define CM_HTTP_BODY_MS            30000 /* from the end of the head */
#define CM_HTTP_ANSWER_MS          30000 /* for the client to read it */
#define CM_HTTP_STALL_MS           60000 /* for a stream's to read some of it */

struct cm_http_ops {
    /* The head is complete and sound. true: read the body and call handle.
     * false: res is the answer; a body is read but not kept. */
    bool (*admit)(void *arg, struct cm_request *req, struct cm_response *res);
    /* The body is there (maybe empty): fill res. */
    void (*handle)(void *arg, struct cm_request *req, struct cm_response *res);
    /* An answer is on its way, also one that the wrapper gave by itself. */
    void (*done)(void *arg, const struct cm_request *req,
                 const struct cm_response *res);
    void *arg;
};

struct cm_http;
struct cm_tls;

/*
 * cm_http_start - serve the listening socket fd, which is closed by
 * cm_http_stop (or here on failure). guard's hosts and ops->arg are borrowed
 * and must outlive the server.
 *
 * tls  NULL: plain HTTP; else HTTPS, by TLS 1.2 and 1.3 alone; borrowed for the
 *      call
 *
 * CM_OK, CM_EIO, CM_ENOMEM; CM_EINVAL: no TLS in this libmicrohttpd.
 */
enum cm_status cm_http_start(struct cm_http **http_r, int fd,
                             const struct cm_guard *guard,
                             const struct cm_http_ops *ops,
                             const struct cm_tls *tls,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_http_stop - close every connection, wait for the handlers that run. Every
 * outflow that is still open must have been told to end. */
void cm_http_stop(struct cm_http **http);

#endif
