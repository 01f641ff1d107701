/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two processes rather than one: the filter cannot fork a new worker once it
 * has no capabilities, so somebody who still has them must stay. The keeper
 * reads nothing from anybody; it waits for its worker to end, says so, and
 * forks the next one, ever later if they end at once.
 *
 * Both end with the filter: the worker by the end of file on the socket pair,
 * the keeper when its worker ended so, and each by the kernel's signal at its
 * parent's end. Signals that are meant for the filter (a terminal's ^C, a
 * service manager's SIGTERM to all) are ignored: the last sessions of a filter
 * that is ending may still have drops to make.
 */
#include "milter/filter/drop_keeper.h"
#include "milter/clock.h"
#include "milter/filter/drop_wire.h"
#include "milter/filter/drop_worker.h"
#include "milter/store/backoff.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The same on every architecture; Linux 5.9. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define CM_DROP_KEEPER_FD       3 /* after the three standard ones */
#define CM_DROP_KEEPER_LIVED_MS 10000

uint64_t
cm_drop_keeper_wanted(const struct cm_dropper_opts *opts)
{
    uint64_t wanted = CM_CAP_NET_ADMIN;
    if (opts->fin)
        wanted |= CM_CAP_SYS_PTRACE;
    return wanted & cm_drop_caps_permitted();
}

/* Leaves CM_DROP_KEEPER_FD, and /dev/null where libraries expect something. */
static bool
keep_only(int fd)
{
    /* Out of the way of the numbers that are given out below. */
    int high = fcntl(fd, F_DUPFD, CM_DROP_KEEPER_FD + 1);
    int null = open("/dev/null", O_RDWR);
    if (high < 0 || null < 0)
        return false;
    for (int standard = 0; standard < CM_DROP_KEEPER_FD; standard++)
        if (standard != null && dup2(null, standard) < 0)
            return false;
    if (dup2(high, CM_DROP_KEEPER_FD) < 0)
        return false;
    if (syscall(SYS_close_range, CM_DROP_KEEPER_FD + 1, ~0u, 0) < 0)
        for (int n = (int)sysconf(_SC_OPEN_MAX); n > CM_DROP_KEEPER_FD; n--)
            close(n);
    return true;
}

static void
take_no_signals(void)
{
    static const int ignored[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,
                                  SIGUSR1, SIGUSR2, SIGPIPE};
    sigset_t none;
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* From here on the kernel ends us when our parent ends. */
static bool
tie_to(pid_t parent)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 &&
           getppid() == parent;
}

static void
tell(enum cm_drop_kind kind, uint32_t worker, const char *rst, const char *fin)
{
    struct cm_drop_report r = {
        .version = CM_DROP_WIRE_VERSION, .worker = worker, .kind = kind};
    snprintf(r.text[CM_DROP_RST], sizeof r.text[CM_DROP_RST], "%s", rst);
    snprintf(r.text[CM_DROP_FIN], sizeof r.text[CM_DROP_FIN], "%s", fin);
    ssize_t sent;
    do
        sent = send(CM_DROP_KEEPER_FD, &r, sizeof r, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    /* A filter that cannot be told is gone, which others notice. */
}

_Noreturn static void
be_worker(pid_t keeper, uint32_t number, uint64_t caps,
          const struct cm_dropper_opts *opts)
{
    prctl(PR_SET_NAME, "drop-worker", 0, 0, 0);
    if (!tie_to(keeper))
        _exit(CM_DROP_WORKER_HUNG_UP);
    _exit((int)cm_drop_worker_run(CM_DROP_KEEPER_FD, number, caps, opts));
}

static int
wait_for(pid_t worker)
{
    int how = 0;
    while (waitpid(worker, &how, 0) < 0 && errno == EINTR)
        continue;
    return how;
}

static void
tell_end(uint32_t worker, int how)
{
    char text[64];
    if (WIFSIGNALED(how))
        snprintf(text, sizeof text, "ended by signal %d", WTERMSIG(how));
    else
        snprintf(text, sizeof text, "ended with code %d", WEXITSTATUS(how));
    tell(CM_DROP_DOWN, worker, text, "");
}

/* Waits before the next try, unless the filter ends meanwhile. */
static void
pause_or_end(int wait_ms)
{
    struct pollfd fd = {.fd = CM_DROP_KEEPER_FD}; /* POLLHUP comes unasked */
    if (poll(&fd, 1, wait_ms) > 0)
        _exit(0);
}

_Noreturn static void
keep_worker(uint64_t caps, const struct cm_dropper_opts *opts)
{
    struct cm_backoff backoff = {0};
    pid_t self = getpid();
    for (uint32_t number = 1;; number++) {
        int64_t began_ms = cm_clock_mono_ms();
        pid_t worker = fork();
        if (worker == 0)
            be_worker(self, number, caps, opts);
        if (worker > 0) {
            int how = wait_for(worker);
            int code = WIFEXITED(how) ? WEXITSTATUS(how) : -1;
            if (code == CM_DROP_WORKER_HUNG_UP ||
                (code == CM_DROP_WORKER_USELESS && number == 1))
                _exit(0);
            tell_end(number, how);
        }
        if (cm_clock_mono_ms() - began_ms >= CM_DROP_KEEPER_LIVED_MS)
            cm_backoff_reset(&backoff);
        pause_or_end(cm_backoff_next_ms(&backoff));
    }
}

void
cm_drop_keeper_run(int fd, pid_t filter, const struct cm_drop_user *user,
                   uint64_t caps, const struct cm_dropper_opts *opts)
{
    struct rlimit none = {0, 0};
    struct cm_err err = {CM_OK, "cannot set up the process"};
    take_no_signals();
    prctl(PR_SET_NAME, "drop-keeper", 0, 0, 0);
    setrlimit(RLIMIT_CORE, &none);
    if (!keep_only(fd))
        _exit(1); /* the filter sees the end of file */
    /* A change of user takes the tie away, so it is tied last. */
    if (chdir("/") < 0 || cm_drop_caps_keep(user, caps, &err) != CM_OK) {
        tell(CM_DROP_READY, 0, err.msg, err.msg);
        _exit(1);
    }
    if (!tie_to(filter))
        _exit(0);
    keep_worker(caps, opts);
}
