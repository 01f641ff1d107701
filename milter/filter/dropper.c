/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The filter's end of the socket pair. One request is under way at a time:
 * whoever asks holds the turn, sends, and reads reports until its answer came.
 * Drops are rare and take microseconds, so a reader thread or one socket per
 * thread would only add states.
 *
 * What must hold whatever happens to the child: CM_OK only for the answer to
 * this very request. Reports of a worker that ended come in the order in which
 * things happened, so a request is either answered by its worker or followed by
 * the keeper's word that this worker is down; a worker passes over requests
 * meant for one before it.
 */
#include "milter/filter/dropper.h"
#include "milter/clock.h"
#include "milter/filter/drop_caps.h"
#include "milter/filter/drop_keeper.h"
#include "milter/filter/drop_wire.h"
#include "milter/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CM_DROPPER_START_MS       3000
#define CM_DROPPER_STOP_MS        200
#define CM_DROPPER_PER_SECOND_MAX 1000000
#define CM_DROPPER_DEADLINE_MAX   60000

enum phase {
    PHASE_NEVER, /* no process: the reasons stand in why */
    PHASE_DOWN,  /* between two workers */
    PHASE_UP,
    PHASE_ENDED /* the keeper is gone, so it stays so */
};

struct cm_dropper {
    int64_t deadline_us;
    /* The self-test's at start; not changed later, so that readers need no
     * lock. */
    char why[CM_DROP_WIRE_HOWS][CM_DROP_WIRE_TEXT];
    atomic_int phase;                    /* enum phase */
    atomic_bool able[CM_DROP_WIRE_HOWS]; /* the latest self-test's */

    pthread_mutex_t lock;
    pthread_cond_t free;
    bool taken; /* the turn; under lock. Its holder alone uses the rest. */

    int fd;       /* -1: no child */
    pid_t keeper; /* -1: no child */
    uint32_t worker;
    uint64_t last_id;
};

static const char *const how_names[] = {"RST", "FIN"};

/* --- reports --- */

static void
note_ready(struct cm_dropper *d, const struct cm_drop_report *r)
{
    d->worker = r->worker;
    for (int how = 0; how < CM_DROP_WIRE_HOWS; how++) {
        bool able = !r->text[how][0];
        atomic_store(&d->able[how], able);
        cm_log_info("dropper: worker=%u %s=%s%s", r->worker, how_names[how],
                    able ? "yes" : "no: ", r->text[how]);
    }
    atomic_store(&d->phase, PHASE_UP);
}

static void
note(struct cm_dropper *d, const struct cm_drop_report *r)
{
    switch ((enum cm_drop_kind)r->kind) {
    case CM_DROP_READY:
        note_ready(d, r);
        break;
    case CM_DROP_DOWN:
        cm_log_warn("dropper: worker=%u %s, a new one will be started",
                    r->worker, r->text[0]);
        atomic_store(&d->phase, PHASE_DOWN);
        break;
    case CM_DROP_ANSWER: /* to a request that was given up */
        break;
    }
}

static void
note_end(struct cm_dropper *d)
{
    if (atomic_exchange(&d->phase, PHASE_ENDED) != PHASE_ENDED)
        cm_log_warn("dropper: its process has ended: no drops until a restart");
}

/* One report, waiting until then at most; false: none came. A broken link is
 * seen by the phase. */
static bool
next_report(struct cm_dropper *d, int64_t until_us,
            struct cm_drop_report *report_r)
{
    for (;;) {
        ssize_t got = recv(d->fd, report_r, sizeof *report_r, MSG_DONTWAIT);
        if (got == (ssize_t)sizeof *report_r &&
            report_r->version == CM_DROP_WIRE_VERSION) {
            for (int how = 0; how < CM_DROP_WIRE_HOWS; how++)
                report_r->text[how][CM_DROP_WIRE_TEXT - 1] = '\0';
            return true;
        }
        if (got >= 0 || (errno != EINTR && errno != EAGAIN)) {
            note_end(d);
            return false;
        }
        int64_t left_us = until_us - cm_clock_mono_us();
        struct pollfd fd = {.fd = d->fd, .events = POLLIN};
        if (left_us <= 0)
            return false;
        /* Rounded up: a wait of 0 ms would spin. */
        poll(&fd, 1, (int)((left_us + 999) / 1000));
    }
}

/* Reads what has come in; does not wait. */
static void
catch_up(struct cm_dropper *d)
{
    struct cm_drop_report r;
    while (atomic_load(&d->phase) != PHASE_ENDED && next_report(d, 0, &r))
        note(d, &r);
}

/* --- the turn --- */

static bool
take_turn(struct cm_dropper *d, int64_t until_us)
{
    struct timespec until = {.tv_sec = until_us / 1000000,
                             .tv_nsec = until_us % 1000000 * 1000};
    int failed = 0;
    pthread_mutex_lock(&d->lock);
    while (d->taken && failed == 0)
        failed = pthread_cond_timedwait(&d->free, &d->lock, &until);
    bool mine = !d->taken;
    d->taken = true;
    pthread_mutex_unlock(&d->lock);
    return mine;
}

static void
give_turn(struct cm_dropper *d)
{
    pthread_mutex_lock(&d->lock);
    d->taken = false;
    pthread_cond_signal(&d->free);
    pthread_mutex_unlock(&d->lock);
}

/* --- what the filter calls --- */

static const char *
why_not(struct cm_dropper *d, enum cm_drop_how how)
{
    switch ((enum phase)atomic_load(&d->phase)) {
    case PHASE_UP:
        if (atomic_load(&d->able[how]))
            return NULL;
        break;
    case PHASE_NEVER:
    case PHASE_ENDED:
        if (!d->why[how][0])
            return "the dropper's process has ended: restart the filter";
        break;
    case PHASE_DOWN:
        if (!d->why[how][0])
            return "the dropper's worker is being started anew";
        break;
    }
    return d->why[how][0] ? d->why[how]
                          : "the dropper's new worker failed its self-test";
}

const char *
cm_dropper_why_not(struct cm_dropper *dropper, enum cm_drop_how how)
{
    if (dropper->fd >= 0 && take_turn(dropper, 0)) {
        catch_up(dropper);
        give_turn(dropper);
    }
    return why_not(dropper, how);
}

static enum cm_status
await_answer(struct cm_dropper *d, uint64_t id, int64_t until_us,
             struct cm_err *err)
{
    struct cm_drop_report r;
    while (next_report(d, until_us, &r)) {
        if (r.kind == CM_DROP_ANSWER && r.id == id) {
            if (r.status == CM_OK)
                return CM_OK;
            return cm_err_set(err, (enum cm_status)r.status, "%s", r.text[0]);
        }
        note(d, &r);
        if (r.kind == CM_DROP_DOWN)
            break;
    }
    if (atomic_load(&d->phase) != PHASE_UP)
        return cm_err_set(err, CM_EIO,
                          "the dropper ended during the request: whether the "
                          "connection was cut is not known");
    return cm_err_set(err, CM_ETIMEOUT,
                      "the dropper did not answer in time: whether the "
                      "connection was cut is not known");
}

static enum cm_status
ask(struct cm_dropper *d, enum cm_drop_how how, const struct cm_tuple *tuple,
    pid_t pid_hint, int64_t until_us, struct cm_err *err)
{
    /* Nothing is begun in the last quarter, so that the answer to what was
     * begun has time to arrive. */
    struct cm_drop_request req = {.version = CM_DROP_WIRE_VERSION,
                                  .id = ++d->last_id,
                                  .deadline_us = until_us - d->deadline_us / 4,
                                  .tuple = *tuple,
                                  .how = (int32_t)how,
                                  .pid_hint = (int32_t)pid_hint};
    catch_up(d);
    const char *why = why_not(d, how);
    if (why)
        return cm_err_set(err, CM_EIO, "%s", why);
    req.worker = d->worker;
    if (send(d->fd, &req, sizeof req, MSG_NOSIGNAL | MSG_DONTWAIT) !=
        (ssize_t)sizeof req)
        return cm_err_set(err, CM_EIO, "the dropper takes no request: %s",
                          strerror(errno));
    return await_answer(d, req.id, until_us, err);
}

enum cm_status
cm_dropper_drop(struct cm_dropper *dropper, enum cm_drop_how how,
                const struct cm_tuple *tuple, pid_t pid_hint,
                struct cm_err *err)
{
    int64_t until_us = cm_clock_mono_us() + dropper->deadline_us;
    if (!cm_tuple_valid(tuple))
        return cm_err_set(err, CM_EINVAL, "no TCP connection");
    if (dropper->fd < 0)
        return cm_err_set(err, CM_EIO, "%s", why_not(dropper, how));
    if (!take_turn(dropper, until_us))
        return cm_err_set(err, CM_ETIMEOUT,
                          "not done: other drops took all the time");
    enum cm_status status = ask(dropper, how, tuple, pid_hint, until_us, err);
    give_turn(dropper);
    return status;
}

/* --- start and stop --- */

static enum cm_status
check_opts(const struct cm_dropper_opts *opts, struct cm_err *err)
{
    if (opts->nports > CM_DROPPER_PORTS_MAX)
        return cm_err_set(err, CM_EINVAL, "more than %d ports",
                          CM_DROPPER_PORTS_MAX);
    for (size_t i = 0; i < opts->nports; i++)
        if (opts->ports[i] == 0)
            return cm_err_set(err, CM_EINVAL, "0 is no port");
    if (opts->deadline_ms < 1 || opts->deadline_ms > CM_DROPPER_DEADLINE_MAX)
        return cm_err_set(err, CM_EINVAL, "the deadline must be 1 to %d ms",
                          CM_DROPPER_DEADLINE_MAX);
    if (opts->per_second < 1 || opts->per_second > CM_DROPPER_PER_SECOND_MAX)
        return cm_err_set(err, CM_EINVAL, "the rate must be 1 to %d a second",
                          CM_DROPPER_PER_SECOND_MAX);
    return CM_OK;
}

static struct cm_dropper *
new_dropper(const struct cm_dropper_opts *opts)
{
    struct cm_dropper *d = calloc(1, sizeof *d);
    pthread_condattr_t attr;
    if (!d)
        return NULL;
    d->fd = -1;
    d->keeper = -1;
    d->deadline_us = opts->deadline_ms * 1000;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->free, &attr);
    pthread_condattr_destroy(&attr);
    return d;
}

static void
never(struct cm_dropper *d, const char *rst, const char *fin)
{
    snprintf(d->why[CM_DROP_RST], sizeof d->why[CM_DROP_RST], "%s", rst);
    snprintf(d->why[CM_DROP_FIN], sizeof d->why[CM_DROP_FIN], "%s", fin);
}

static enum cm_status
fork_keeper(struct cm_dropper *d, const struct cm_drop_user *user,
            uint64_t caps, const struct cm_dropper_opts *opts,
            struct cm_err *err)
{
    int pair[2];
    pid_t self = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return cm_err_set(err, CM_EIO, "dropper: socketpair: %s",
                          strerror(errno));
    d->keeper = fork();
    if (d->keeper == 0)
        cm_drop_keeper_run(pair[1], self, user, caps, opts);
    int saved = errno;
    close(pair[1]);
    d->fd = pair[0];
    if (d->keeper < 0)
        return cm_err_set(err, CM_EIO, "dropper: fork: %s", strerror(saved));
    return CM_OK;
}

static void
end_keeper(struct cm_dropper *d)
{
    if (d->fd >= 0)
        close(d->fd);
    /* On the end of file both go in good order. Not so a worker that sleeps. */
    for (int i = 0; i < CM_DROPPER_STOP_MS && d->keeper > 0; i++) {
        if (waitpid(d->keeper, NULL, WNOHANG) != 0)
            d->keeper = -1;
        else
            usleep(1000);
    }
    if (d->keeper > 0) {
        kill(d->keeper, SIGKILL);
        while (waitpid(d->keeper, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    d->fd = -1;
    d->keeper = -1;
}

/* The first report, which decides what is said for as long as we run. */
static void
await_selftest(struct cm_dropper *d)
{
    struct cm_drop_report r;
    atomic_store(&d->phase, PHASE_DOWN);
    if (!next_report(d, cm_clock_mono_us() + CM_DROPPER_START_MS * 1000, &r) ||
        r.kind != CM_DROP_READY)
        return;
    memcpy(d->why, r.text, sizeof d->why);
    note(d, &r);
    if (r.text[CM_DROP_RST][0] && r.text[CM_DROP_FIN][0]) {
        end_keeper(d);
        atomic_store(&d->phase, PHASE_NEVER);
    }
}

enum cm_status
cm_dropper_start(struct cm_dropper **dropper_r,
                 const struct cm_dropper_opts *opts, struct cm_err *err)
{
    struct cm_drop_user user;
    enum cm_status status = check_opts(opts, err);
    if (status == CM_OK)
        status = cm_drop_caps_user(&user, opts->user, err);
    if (status != CM_OK)
        return status;
    struct cm_dropper *d = new_dropper(opts);
    if (!d)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    uint64_t caps = cm_drop_keeper_wanted(opts);
    if (opts->nports == 0) {
        never(d, "no port of the MTA is allowed in the settings",
              "no port of the MTA is allowed in the settings");
    } else if (!caps) {
        never(d, "CAP_NET_ADMIN is missing: start as root",
              opts->fin ? "CAP_SYS_PTRACE is missing: start as root"
                        : "FIN is switched off in the settings");
    } else {
        status = fork_keeper(d, &user, caps, opts, err);
        if (status == CM_OK)
            await_selftest(d);
    }
    if (status == CM_OK)
        *dropper_r = d;
    else
        cm_dropper_stop(&d);
    return status;
}

void
cm_dropper_stop(struct cm_dropper **dropper)
{
    struct cm_dropper *d = *dropper;
    if (!d)
        return;
    end_keeper(d);
    pthread_cond_destroy(&d->free);
    pthread_mutex_destroy(&d->lock);
    free(d);
    *dropper = NULL;
}
