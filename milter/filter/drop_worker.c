/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The only code that runs with a capability after start-up. It serves a filter
 * that parses mail from anybody, so it takes a request as a wish: the port must
 * be on the list that was read at start, drops a second are bounded, and which
 * socket is meant it finds out for itself. After the drop it asks the kernel
 * again; "it happened" is an answer of the kernel, not of this code.
 */
#include "milter/filter/drop_worker.h"
#include "milter/clock.h"
#include "milter/filter/drop_caps.h"
#include "milter/filter/drop_seccomp.h"
#include "milter/filter/drop_selftest.h"
#include "milter/filter/drop_wire.h"
#include "milter/filter/fin.h"
#include "milter/filter/sockdiag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CM_DROP_WORKER_SECOND_US 1000000

struct worker {
    int fd;
    uint32_t number;
    uint64_t caps;
    const struct cm_dropper_opts *opts;
    struct cm_sockdiag diag;
    int proc_fd; /* -1 without FIN */
    bool able[CM_DROP_WIRE_HOWS];
    /* A bucket that holds one second's drops, in microseconds of credit. */
    int64_t credit_us, credited_at_us;
};

static bool
report(const struct worker *w, const struct cm_drop_report *r)
{
    ssize_t sent;
    do
        sent = send(w->fd, r, sizeof *r, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)sizeof *r;
}

/* --- one request --- */

static bool
port_allowed(const struct cm_dropper_opts *opts, uint16_t port)
{
    for (size_t i = 0; i < opts->nports; i++)
        if (opts->ports[i] == port)
            return true;
    return false;
}

static bool
within_rate(struct worker *w, int64_t now_us)
{
    int64_t price_us = CM_DROP_WORKER_SECOND_US / w->opts->per_second;
    w->credit_us += now_us - w->credited_at_us;
    w->credited_at_us = now_us;
    if (w->credit_us > CM_DROP_WORKER_SECOND_US)
        w->credit_us = CM_DROP_WORKER_SECOND_US;
    if (w->credit_us < price_us)
        return false;
    w->credit_us -= price_us;
    return true;
}

static enum cm_status
check(struct worker *w, const struct cm_drop_request *req, struct cm_err *err)
{
    int64_t now_us = cm_clock_mono_us();
    if ((req->how != CM_DROP_RST && req->how != CM_DROP_FIN) ||
        !cm_tuple_valid(&req->tuple))
        return cm_err_set(err, CM_EINVAL, "no well-formed request");
    if (!w->able[req->how])
        return cm_err_set(err, CM_EIO, "not available");
    if (!port_allowed(w->opts, req->tuple.mta.port))
        return cm_err_set(err, CM_EINVAL,
                          "port %u is not among those allowed: %s",
                          req->tuple.mta.port, strerror(EACCES));
    if (now_us >= req->deadline_us)
        return cm_err_set(err, CM_ETIMEOUT, "the request came too late");
    if (!within_rate(w, now_us))
        return cm_err_set(err, CM_EIO, "more than %u drops in a second",
                          w->opts->per_second);
    return CM_OK;
}

static enum cm_status
cut(struct worker *w, const struct cm_drop_request *req,
    const struct cm_sockdiag_conn *conn, struct cm_err *err)
{
    if (req->how == CM_DROP_FIN)
        return cm_fin_send(w->proc_fd, conn, req->pid_hint, req->deadline_us,
                           err);
    return cm_sockdiag_destroy(&w->diag, conn, err);
}

static enum cm_status
handle(struct worker *w, const struct cm_drop_request *req, struct cm_err *err)
{
    struct cm_sockdiag_conn conn;
    enum cm_status status = check(w, req, err);
    if (status == CM_OK)
        status = cm_sockdiag_find(&w->diag, &req->tuple, &conn, err);
    if (status == CM_OK)
        status = cut(w, req, &conn, err);
    if (status != CM_OK)
        return status;
    status = cm_sockdiag_is_open(&w->diag, &conn, err);
    if (status == CM_OK)
        return cm_err_set(err, CM_EIO,
                          "the kernel reported success, but the connection is "
                          "still there");
    return status == CM_NOTFOUND ? CM_OK : status;
}

static enum cm_drop_worker_end
serve(struct worker *w)
{
    for (;;) {
        struct cm_drop_request req;
        struct cm_err err = {CM_OK, ""};
        ssize_t got = recv(w->fd, &req, sizeof req, 0);
        if (got == 0)
            return CM_DROP_WORKER_HUNG_UP;
        if (got < 0 && errno == EINTR)
            continue;
        if (got != (ssize_t)sizeof req || req.version != CM_DROP_WIRE_VERSION)
            return CM_DROP_WORKER_BROKEN;
        if (req.worker != w->number)
            continue;
        struct cm_drop_report answer = {.version = CM_DROP_WIRE_VERSION,
                                        .worker = w->number,
                                        .kind = CM_DROP_ANSWER,
                                        .id = req.id};
        answer.status = (int32_t)handle(w, &req, &err);
        snprintf(answer.text[0], sizeof answer.text[0], "%.*s",
                 CM_DROP_WIRE_TEXT - 1, err.msg);
        if (!report(w, &answer))
            return CM_DROP_WORKER_BROKEN;
    }
}

/* --- getting ready --- */

static enum cm_status
test_fin(struct worker *w, struct cm_err *err)
{
    if (!w->opts->fin)
        return cm_err_set(err, CM_EIO, "FIN is switched off in the settings");
    if (!(w->caps & CM_CAP_SYS_PTRACE))
        return cm_err_set(err, CM_EIO,
                          "CAP_SYS_PTRACE is missing: start as root, or with "
                          "that capability");
    if (w->proc_fd < 0)
        return cm_err_set(err, CM_EIO, "/proc cannot be read");
    /* The keeper: another process, and like the MTA's not dumpable. */
    return cm_fin_probe(getppid(), err);
}

/* Sockets and files first, the seccomp filter, and then the tests. */
static void
get_ready(struct worker *w, struct cm_err why[CM_DROP_WIRE_HOWS])
{
    struct cm_drop_selftest pair;
    enum cm_status paired = CM_EIO;
    struct cm_err err;
    if (w->caps & CM_CAP_SYS_PTRACE)
        w->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum cm_status status = cm_sockdiag_open(&w->diag, &err);
    if (status == CM_OK && (w->caps & CM_CAP_NET_ADMIN))
        paired = cm_drop_selftest_open(&pair, &why[CM_DROP_RST]);
    if (status == CM_OK)
        status = cm_drop_seccomp_enter(w->proc_fd >= 0, &err);
    if (status != CM_OK) {
        why[CM_DROP_RST] = why[CM_DROP_FIN] = err;
        return;
    }
    if (!(w->caps & CM_CAP_NET_ADMIN))
        cm_err_set(&why[CM_DROP_RST], CM_EIO,
                   "CAP_NET_ADMIN is missing: start as root, or with that "
                   "capability");
    else if (paired == CM_OK)
        w->able[CM_DROP_RST] =
            cm_drop_selftest_run(&pair, &w->diag, &why[CM_DROP_RST]) == CM_OK;
    w->able[CM_DROP_FIN] = test_fin(w, &why[CM_DROP_FIN]) == CM_OK;
}

enum cm_drop_worker_end
cm_drop_worker_run(int fd, uint32_t number, uint64_t caps,
                   const struct cm_dropper_opts *opts)
{
    struct worker w = {.fd = fd,
                       .number = number,
                       .caps = caps,
                       .opts = opts,
                       .diag = {.fd = -1},
                       .proc_fd = -1,
                       .credit_us = CM_DROP_WORKER_SECOND_US,
                       .credited_at_us = cm_clock_mono_us()};
    struct cm_err why[CM_DROP_WIRE_HOWS] = {{CM_OK, ""}, {CM_OK, ""}};
    struct cm_drop_report ready = {.version = CM_DROP_WIRE_VERSION,
                                   .worker = number,
                                   .kind = CM_DROP_READY};
    get_ready(&w, why);
    for (int how = 0; how < CM_DROP_WIRE_HOWS; how++)
        if (!w.able[how])
            snprintf(ready.text[how], sizeof ready.text[how], "%.*s",
                     CM_DROP_WIRE_TEXT - 1, why[how].msg);
    if (!report(&w, &ready))
        return CM_DROP_WORKER_HUNG_UP;
    if (!w.able[CM_DROP_RST] && !w.able[CM_DROP_FIN])
        return CM_DROP_WORKER_USELESS;
    return serve(&w);
}
