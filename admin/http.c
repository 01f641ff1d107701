/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmicrohttpd calls on_uri when it has the request line, on_request when it
 * has the head, again for each piece of the body, and once more at the end;
 * on_completed when the answer is gone. An answer queued at the first call
 * closes the connection, so that is done only where the framing is in doubt or
 * a body must not be read; otherwise the answer waits for the last call and
 * the connection lives on.
 *
 * Measured with raw sockets on 0.9.75: it takes a bare LF for a line's end,
 * cuts a header's value at NUL, and folds a continuation line into the header's
 * *name*. All three are unseen in what it hands over, but each leaves a gap in
 * the buffer that it parses in place, so adds_up() compares the pointers with
 * the size of the head. From 1.0 on the library refuses all three in its strict
 * mode and parses differently.
 */
#include "admin/http.h"
#include "admin/layout.h"
#include "admin/outflow.h"
#include "admin/reaper.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/tls.h"
#include "milter/clock.h"
#include "milter/log.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CM_HTTP_DRAIN_MAX   ((int64_t)8 * 1024 * 1024)
#define CM_HTTP_FLOW_BYTES  4096
#define CM_HTTP_FLOW_UNSENT (64 * 1024)

struct cm_http {
    struct MHD_Daemon *daemon;
    struct cm_reaper *reaper;
    struct cm_guard guard;
    struct cm_http_ops ops;
    bool checks_layout;
};

/* One request and its answer. */
struct exchange {
    struct cm_request req;
    struct cm_response res;
    enum cm_status target_status;
    struct cm_err target_err;
    size_t uri_len;
    bool begun, refused, answered, too_large;
    int64_t drained; /* bytes of a body nobody will see */
};

static const char no_memory[] =
    "{\"message\":\"The server ran out of memory\","
    "\"error\":\"Internal Server Error\",\"statusCode\":500}";

static void
rearm(struct cm_http *http, struct MHD_Connection *conn, int64_t ms)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    if (info && info->socket_context)
        cm_reaper_rearm(http->reaper, info->socket_context, ms);
}

/* --- an answer that goes on --- */

/* Between an outflow and its connection, which is parked (the library says
 * suspended) while there is nothing to send: it would ask again and again
 * otherwise. The lock makes looking for bytes and parking one step. */
struct carrier {
    struct cm_http *http;
    struct MHD_Connection *conn;
    struct cm_outflow *flow; /* owned */
    pthread_mutex_t lock;
    bool parked, woken;
};

static void
wake_carrier(void *arg)
{
    struct carrier *carrier = arg;
    pthread_mutex_lock(&carrier->lock);
    if (carrier->parked)
        MHD_resume_connection(carrier->conn);
    else
        carrier->woken = true;
    carrier->parked = false;
    pthread_mutex_unlock(&carrier->lock);
}

/* false: somebody called meanwhile, so look again. */
static bool
park(struct carrier *carrier)
{
    pthread_mutex_lock(&carrier->lock);
    bool parks = !carrier->woken;
    carrier->parked = parks;
    carrier->woken = false;
    if (parks)
        MHD_suspend_connection(carrier->conn);
    pthread_mutex_unlock(&carrier->lock);
    return parks;
}

static ssize_t
on_flow_read(void *arg, uint64_t pos, char *buf, size_t cap)
{
    struct carrier *carrier = arg;
    ssize_t n;
    (void)pos;
    do {
        n = carrier->flow->read(carrier->flow, buf, cap);
    } while (n == 0 && !park(carrier));
    if (n == CM_OUTFLOW_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n > 0)
        rearm(carrier->http, carrier->conn, CM_HTTP_STALL_MS);
    return n;
}

static void
on_flow_end(void *arg)
{
    struct carrier *carrier = arg;
    carrier->flow->end(carrier->flow);
    pthread_mutex_destroy(&carrier->lock);
    free(carrier);
}

/* What a client that reads slowly keeps the kernel from forgetting is to be
 * bounded too: by itself it would grow to megabytes for each. */
static void
bound_unsent(int fd)
{
    int bytes = CM_HTTP_FLOW_UNSENT;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

/* Takes the flow, also on failure. */
static struct MHD_Response *
carry(struct cm_http *http, struct MHD_Connection *conn,
      struct cm_outflow *flow)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct carrier *carrier = calloc(1, sizeof *carrier);
    struct MHD_Response *out = NULL;
    if (!carrier) {
        flow->end(flow);
        return NULL;
    }
    carrier->http = http;
    carrier->conn = conn;
    carrier->flow = flow;
    pthread_mutex_init(&carrier->lock, NULL);
    flow->wake = wake_carrier;
    flow->waker = carrier;
    flow->fd = info ? info->connect_fd : -1;
    bound_unsent(flow->fd);
    out =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, CM_HTTP_FLOW_BYTES,
                                          on_flow_read, carrier, on_flow_end);
    if (!out)
        on_flow_end(carrier);
    return out;
}

/* --- the answer --- */

static bool
add_headers(struct MHD_Response *out, const struct cm_response *res,
            const char *content_type, bool close)
{
    const struct {
        const char *name, *value;
    } always[] = {
        {"X-Content-Type-Options", "nosniff"},
        {"Content-Security-Policy",
         "default-src 'none'; frame-ancestors 'none'"},
        {"Cache-Control", "no-store"},
        {"Content-Type", content_type},
        {"Connection", close ? "close" : NULL},
    };
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        if (always[i].value &&
            MHD_add_response_header(out, always[i].name, always[i].value) !=
                MHD_YES)
            return false;
    }
    for (size_t i = 0; i < res->nheader; i++) {
        if (MHD_add_response_header(out, res->header[i].name,
                                    res->header[i].value) != MHD_YES)
            return false;
    }
    return true;
}

/* Takes the body out of res. */
static struct MHD_Response *
build(struct cm_http *http, struct MHD_Connection *conn,
      struct cm_response *res, bool close)
{
    struct MHD_Response *out;
    const char *type = res->content_type;
    if (res->outflow) {
        out = carry(http, conn, res->outflow);
        res->outflow = NULL;
    } else if (res->body) {
        out = MHD_create_response_from_buffer(res->len, res->body,
                                              MHD_RESPMEM_MUST_FREE);
        if (out)
            res->body = NULL;
    } else if (res->status >= 500) {
        type = "application/json; charset=utf-8";
        out = MHD_create_response_from_buffer(sizeof no_memory - 1,
                                              (void *)(uintptr_t)no_memory,
                                              MHD_RESPMEM_PERSISTENT);
    } else {
        out = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    }
    if (out && !add_headers(out, res, type, close)) {
        cm_log_err("what=http error=\"an answer's header was refused\"");
        MHD_destroy_response(out);
        out = NULL;
    }
    return out;
}

/* MHD_NO closes the connection without an answer: only when none can be made,
 * or the library has already queued its own. */
static enum MHD_Result
answer(struct cm_http *http, struct MHD_Connection *conn, struct exchange *ex,
       bool close)
{
    struct MHD_Response *out = build(http, conn, &ex->res, close);
    ex->answered = true;
    if (!out)
        return MHD_NO;
    rearm(http, conn, CM_HTTP_ANSWER_MS);
    enum MHD_Result queued =
        MHD_queue_response(conn, (unsigned)ex->res.status, out);
    MHD_destroy_response(out);
    http->ops.done(http->ops.arg, &ex->req, &ex->res);
    return queued;
}

/* --- the head --- */

static enum MHD_Result
keep_header(void *arg, enum MHD_ValueKind kind, const char *name,
            const char *value)
{
    struct cm_request *req = arg;
    (void)kind;
    if (req->nheader < CM_REQUEST_HEADERS_MAX)
        req->header[req->nheader] =
            (struct cm_header){name, value ? value : ""};
    req->nheader++;
    return MHD_YES;
}

static bool
adds_up(const struct exchange *ex, struct MHD_Connection *conn,
        const char *method, const char *url, const char *version)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct cm_layout layout = {.method = method,
                               .target = url,
                               .target_len = ex->uri_len,
                               .version = version,
                               .header = ex->req.header,
                               .nheader = ex->req.nheader};
    if (!info)
        return false;
    layout.len = info->header_size;
    return cm_layout_adds_up(&layout);
}

static void
fill_ends(struct cm_request *req, struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    cm_peer_set(&req->peer, info ? info->client_addr : NULL);
    info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct cm_peer local;
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    memset(&ss, 0, sizeof ss);
    if (info)
        getsockname(info->connect_fd, (struct sockaddr *)&ss, &len);
    cm_peer_set(&local, (struct sockaddr *)&ss);
    memcpy(req->local, local.text, sizeof req->local);
}

static bool
is_sound(struct cm_http *http, struct exchange *ex, bool adds,
         struct cm_refusal *refusal_r)
{
    if (!adds) {
        *refusal_r = (struct cm_refusal){400, "The head is malformed"};
        return false;
    }
    if (!cm_guard_check(&http->guard, &ex->req, refusal_r))
        return false;
    if (ex->target_status != CM_OK) {
        refusal_r->status = ex->target_status == CM_ENOMEM ? 503 : 400;
        refusal_r->detail = ex->target_err.msg;
        return false;
    }
    return true;
}

static enum MHD_Result
begin(struct cm_http *http, struct MHD_Connection *conn, struct exchange *ex,
      const char *method, const char *url, const char *version)
{
    struct cm_request *req = &ex->req;
    struct cm_refusal refusal;
    req->method = cm_method_parse(method);
    req->http11 = strcmp(version, "HTTP/1.0") != 0;
    fill_ends(req, conn);
    MHD_get_connection_values(conn, MHD_HEADER_KIND, keep_header, req);
    bool adds = !http->checks_layout || req->nheader > CM_REQUEST_HEADERS_MAX ||
                adds_up(ex, conn, method, url, version);
    if (!is_sound(http, ex, adds, &refusal)) {
        cm_response_fail(&ex->res, req, refusal.status, "%s", refusal.detail);
        return answer(http, conn, ex, true);
    }
    ex->refused = !http->ops.admit(http->ops.arg, req, &ex->res);
    if (ex->refused && cm_request_header(req, "Expect"))
        return answer(http, conn, ex, true);
    rearm(http, conn, CM_HTTP_BODY_MS);
    return MHD_YES;
}

/* --- the body --- */

/* Chunks may add up to more than is allowed; the library can answer only at
 * the end of the body, so some more is read to be polite, but not for ever. */
static enum MHD_Result
take_body(struct exchange *ex, const char *data, size_t len)
{
    struct cm_buf *body = &ex->req.body;
    if (!ex->refused && !ex->too_large) {
        cm_buf_add(body, data, len);
        if (cm_buf_status(body) == CM_OK)
            return MHD_YES;
        ex->too_large = true;
    }
    ex->drained += (int64_t)len;
    return ex->drained > CM_HTTP_DRAIN_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result
finish(struct cm_http *http, struct MHD_Connection *conn, struct exchange *ex)
{
    struct cm_request *req = &ex->req;
    if (ex->answered)
        return MHD_YES;
    if (ex->too_large) {
        bool memory = cm_buf_status(&req->body) == CM_ENOMEM;
        cm_response_fail(&ex->res, req, memory ? 503 : 413, "%s",
                         memory ? "The server ran out of memory"
                                : "The body is larger than 1 MiB");
        return answer(http, conn, ex, true);
    }
    if (!ex->refused)
        http->ops.handle(http->ops.arg, req, &ex->res);
    return answer(http, conn, ex, false);
}

/* --- what libmicrohttpd calls --- */

static void *
on_uri(void *arg, const char *uri, struct MHD_Connection *conn)
{
    (void)arg;
    (void)conn;
    struct exchange *ex = calloc(1, sizeof *ex);
    if (!ex)
        return NULL;
    if (!uri)
        uri = "";
    ex->req.started_us = cm_clock_mono_us();
    ex->uri_len = strlen(uri);
    ex->target_status = cm_target_parse(&ex->req.target, uri, &ex->target_err);
    cm_buf_init(&ex->req.body, CM_REQUEST_BODY_MAX);
    return ex;
}

static enum MHD_Result
on_request(void *arg, struct MHD_Connection *conn, const char *url,
           const char *method, const char *version, const char *data,
           size_t *len, void **context)
{
    struct cm_http *http = arg;
    struct exchange *ex = *context;
    if (!ex)
        return MHD_NO; /* out of memory */
    if (!ex->begun) {
        ex->begun = true;
        return begin(http, conn, ex, method, url, version);
    }
    if (*len > 0) {
        enum MHD_Result result = take_body(ex, data, *len);
        *len = 0;
        return result;
    }
    return finish(http, conn, ex);
}

static void
on_completed(void *arg, struct MHD_Connection *conn, void **context,
             enum MHD_RequestTerminationCode why)
{
    struct exchange *ex = *context;
    (void)why;
    rearm(arg, conn, CM_HTTP_HEAD_MS);
    if (!ex)
        return;
    cm_target_fini(&ex->req.target);
    cm_buf_fini(&ex->req.body);
    cm_response_fini(&ex->res);
    free(ex);
    *context = NULL;
}

static void
on_connection(void *arg, struct MHD_Connection *conn, void **context,
              enum MHD_ConnectionNotificationCode what)
{
    struct cm_http *http = arg;
    struct cm_watch *watch = *context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        cm_reaper_unwatch(http->reaper, &watch);
        *context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info)
        *context =
            cm_reaper_watch(http->reaper, info->connect_fd, CM_HTTP_HEAD_MS);
}

/* Identity: target.c decodes, once, after splitting. */
static size_t
on_unescape(void *arg, struct MHD_Connection *conn, char *text)
{
    (void)arg;
    (void)conn;
    return strlen(text);
}

static void on_log(void *arg, const char *fmt, va_list ap) CM_PRINTF(2, 0);

static void
on_log(void *arg, const char *fmt, va_list ap)
{
    char line[512];
    (void)arg;
    vsnprintf(line, sizeof line, fmt, ap);
    line[strcspn(line, "\n")] = '\0';
    cm_log_debug("what=http library=\"%s\"", line);
}

/* --- start and stop --- */

/* "0.9.75": older ones are refused by configure, 1.x checks by itself. */
static bool
library_is_lax(void)
{
    return strncmp(MHD_get_version(), "0.", 2) == 0;
}

/* The threads share what is made of the texts at start; nothing keeps them. */
static struct MHD_Daemon *
start_daemon(struct cm_http *http, int fd, const struct cm_tls *tls)
{
    unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG |
                     MHD_ALLOW_SUSPEND_RESUME;
    struct MHD_OptionItem secure[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, tls ? tls->certificate : NULL},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, tls ? tls->key : NULL},
        {MHD_OPTION_HTTPS_PRIORITIES, 0,
         (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem plain[] = {{MHD_OPTION_END, 0, NULL}};
    if (tls)
        flags |= MHD_USE_TLS;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER,
        on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)CM_HTTP_THREADS, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CM_HTTP_CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        (unsigned)CM_HTTP_CONNECTIONS_PER_IP,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CM_HTTP_HEAD_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, http->checks_layout ? 0 : 1,
        MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_ARRAY, tls ? secure : plain, MHD_OPTION_END);
}

enum cm_status
cm_http_start(struct cm_http **http_r, int fd, const struct cm_guard *guard,
              const struct cm_http_ops *ops, const struct cm_tls *tls,
              struct cm_err *err)
{
    struct cm_http *http = calloc(1, sizeof *http);
    enum cm_status status = CM_ENOMEM;
    if (!http) {
        cm_err_set(err, CM_ENOMEM, "out of memory");
        goto out;
    }
    if (tls && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        status = cm_err_set(err, CM_EINVAL,
                            "admin.tls_certificate: this libmicrohttpd was "
                            "built without TLS");
        goto out;
    }
    http->guard = *guard;
    http->ops = *ops;
    http->checks_layout = library_is_lax();
    status = cm_reaper_start(&http->reaper, err);
    if (status != CM_OK)
        goto out;
    http->daemon = start_daemon(http, fd, tls);
    if (!http->daemon) {
        status = cm_err_set(err, CM_EIO, "the HTTP server does not start");
        goto out;
    }
    *http_r = http;
    http = NULL;
out:
    if (http)
        cm_reaper_stop(&http->reaper);
    free(http);
    if (status != CM_OK)
        close(fd);
    return status;
}

void
cm_http_stop(struct cm_http **http_p)
{
    struct cm_http *http = *http_p;
    if (!http)
        return;
    MHD_stop_daemon(http->daemon);
    cm_reaper_stop(&http->reaper);
    free(http);
    *http_p = NULL;
}
