/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors are tried by number, not read from /proc/PID/fd: that would need
 * CAP_DAC_READ_SEARCH too. How many there can be, and whose process it is, both
 * stand in /proc/PID/status, which everybody may read. Only what is a socket
 * with the right inode, and then the right cookie, is touched.
 *
 * Rejected: SHUT_RD (the reply is still sent) and SHUT_WR (the MTA goes on
 * reading); ending the MTA's process (Postfix's master then throttles the
 * service). Nothing here allocates memory, so the seccomp filter can be small.
 */
#include "milter/filter/fin.h"
#include "milter/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same on every architecture; headers before Linux 5.6 lack them. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#define CM_FIN_FDS_MAX 65536 /* tried in one process */
#define CM_FIN_LOOK    64    /* descriptors between two looks at the clock */

struct target {
    const struct cm_sockdiag_conn *conn;
    int64_t deadline_us;
};

struct process {
    pid_t pid;
    unsigned uid;  /* effective */
    unsigned nfds; /* size of its table of descriptors */
};

static int
borrow(int pidfd, int number)
{
    return (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
}

static bool
is_target(int fd, const struct cm_sockdiag_conn *conn)
{
    struct stat st;
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;
    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) &&
           st.st_ino == conn->inode &&
           getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 &&
           cookie == conn->cookie;
}

static enum cm_status
too_late(struct cm_err *err)
{
    return cm_err_set(err, CM_ETIMEOUT,
                      "the process that holds the connection was not found in "
                      "time");
}

static enum cm_status
shut(int fd, struct cm_err *err)
{
    if (shutdown(fd, SHUT_RDWR) == 0)
        return CM_OK;
    return cm_err_set(err, errno == ENOTCONN ? CM_NOTFOUND : CM_EIO,
                      "shutdown: %s", strerror(errno));
}

/* Tries the descriptors of one process. CM_NOTFOUND: it is not among them. */
static enum cm_status
try_process(const struct process *process, const struct target *target,
            struct cm_err *err)
{
    enum cm_status status =
        cm_err_set(err, CM_NOTFOUND, "no process that can be seen holds it");
    int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (pidfd < 0)
        return status;
    for (unsigned n = 0; n < process->nfds && n < CM_FIN_FDS_MAX; n++) {
        if (n % CM_FIN_LOOK == 0 && cm_clock_mono_us() >= target->deadline_us) {
            status = too_late(err);
            break;
        }
        int fd = borrow(pidfd, (int)n);
        if (fd < 0 && errno != EBADF)
            break; /* it ended, or must not be looked into */
        if (fd < 0)
            continue;
        bool found = is_target(fd, target->conn);
        if (found)
            status = shut(fd, err);
        close(fd);
        if (found)
            break;
    }
    close(pidfd);
    return status;
}

static bool
look_at(int proc_fd, pid_t pid, struct process *process_r)
{
    char text[2048], path[32];
    snprintf(path, sizeof path, "%d/status", (int)pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return false;
    text[got] = '\0';
    const char *uids = strstr(text, "\nUid:\t"); /* real, effective, ... */
    const char *effective = uids ? strchr(uids + 6, '\t') : NULL;
    const char *nfds = strstr(text, "\nFDSize:\t");
    if (!effective || !nfds)
        return false;
    process_r->pid = pid;
    process_r->uid = (unsigned)strtoul(effective, NULL, 10);
    process_r->nfds = (unsigned)strtoul(nfds + 9, NULL, 10);
    return true;
}

static enum cm_status
try_pid(int proc_fd, pid_t pid, const bool *owned, const struct target *target,
        struct cm_err *err)
{
    struct process process;
    if (pid == getpid() || !look_at(proc_fd, pid, &process) ||
        (owned && *owned != (process.uid == target->conn->uid)))
        return CM_NOTFOUND;
    return try_process(&process, target, err);
}

/* All processes whose user is, or is not, the one that owns the socket. */
static enum cm_status
walk(int proc_fd, bool owned, const struct target *target, struct cm_err *err)
{
    _Alignas(struct dirent64) char buf[8192];
    if (lseek(proc_fd, 0, SEEK_SET) < 0)
        return cm_err_set(err, CM_EIO, "/proc: %s", strerror(errno));
    for (;;) {
        long got = syscall(SYS_getdents64, proc_fd, buf, sizeof buf);
        if (got < 0)
            return cm_err_set(err, CM_EIO, "/proc: %s", strerror(errno));
        if (got == 0)
            return cm_err_set(err, CM_NOTFOUND,
                              "no process that can be seen holds it");
        for (long at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(buf + at);
            int pid = atoi(entry->d_name);
            at += entry->d_reclen;
            if (pid <= 0)
                continue;
            if (cm_clock_mono_us() >= target->deadline_us)
                return too_late(err);
            enum cm_status status =
                try_pid(proc_fd, (pid_t)pid, &owned, target, err);
            if (status != CM_NOTFOUND)
                return status;
        }
    }
}

enum cm_status
cm_fin_send(int proc_fd, const struct cm_sockdiag_conn *conn, pid_t hint,
            int64_t deadline_us, struct cm_err *err)
{
    struct target target = {.conn = conn, .deadline_us = deadline_us};
    enum cm_status status = CM_NOTFOUND;
    if (conn->inode == 0)
        return cm_err_set(err, CM_NOTFOUND,
                          "the connection belongs to no process");
    if (hint > 0)
        status = try_pid(proc_fd, hint, NULL, &target, err);
    /* Some other user's, when the MTA changed its user after accept(). */
    if (status == CM_NOTFOUND)
        status = walk(proc_fd, true, &target, err);
    if (status == CM_NOTFOUND)
        status = walk(proc_fd, false, &target, err);
    return status;
}

enum cm_status
cm_fin_probe(pid_t pid, struct cm_err *err)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return cm_err_set(err, CM_EIO, "pidfd_open: %s", strerror(errno));
    int fd = borrow(pidfd, INT_MAX);
    int failed = fd < 0 ? errno : EBADF;
    if (fd >= 0)
        close(fd);
    close(pidfd);
    switch (failed) {
    case EBADF: /* we may, and there is no such descriptor */
        return CM_OK;
    case ENOSYS:
        return cm_err_set(err, CM_EIO, "pidfd_getfd needs Linux 5.6");
    case EPERM:
        return cm_err_set(err, CM_EIO,
                          "pidfd_getfd is forbidden: Yama's ptrace_scope is 3, "
                          "or a security module or container forbids it");
    default:
        return cm_err_set(err, CM_EIO, "pidfd_getfd: %s", strerror(failed));
    }
}
