/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list of what is allowed rather than of what is not: a capability is worth
 * as much as the calls that can use it. No socket can be made or connected, no
 * file written, no program started, no memory made executable. Of the things
 * left, openat() is the widest; it is for reading only, and only with FIN.
 */
#include "milter/filter/drop_seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>

#define CM_DROP_SECCOMP_WRITING                                                \
    (O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | __O_TMPFILE)

/* Requests and answers on sockets that are open already, time, the end. */
static const int always[] = {
    SCMP_SYS(recvfrom),      SCMP_SYS(recvmsg),
    SCMP_SYS(sendto),        SCMP_SYS(sendmsg),
    SCMP_SYS(read),          SCMP_SYS(close),
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_gettime64),
    SCMP_SYS(rt_sigreturn),  SCMP_SYS(restart_syscall),
    SCMP_SYS(getpid),        SCMP_SYS(exit),
    SCMP_SYS(exit_group),    SCMP_SYS(brk),
    SCMP_SYS(munmap),
};

static const int for_fin[] = {
    SCMP_SYS(pidfd_open), SCMP_SYS(pidfd_getfd), SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt), SCMP_SYS(fstat),       SCMP_SYS(fstat64),
    SCMP_SYS(newfstatat), SCMP_SYS(fstatat64),   SCMP_SYS(statx),
    SCMP_SYS(getdents64), SCMP_SYS(lseek),       SCMP_SYS(_llseek),
    SCMP_SYS(getppid),
};

/* Calls that this architecture does not have are passed over by the library. */
static int
allow(scmp_filter_ctx filter, const int *calls, size_t n)
{
    int failed = 0;
    for (size_t i = 0; i < n && !failed; i++)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
    return failed;
}

enum cm_status
cm_drop_seccomp_enter(bool fin, struct cm_err *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!filter)
        return cm_err_set(err, CM_EIO, "seccomp: out of memory");
    int failed = allow(filter, always, sizeof always / sizeof *always);
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (!failed && fin)
        failed = allow(filter, for_fin, sizeof for_fin / sizeof *for_fin);
    if (!failed && fin)
        failed = seccomp_rule_add(
            filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
            SCMP_A2(SCMP_CMP_MASKED_EQ, CM_DROP_SECCOMP_WRITING, O_RDONLY));
    if (!failed)
        failed = seccomp_load(filter);
    seccomp_release(filter);
    if (failed)
        return cm_err_set(err, CM_EIO, "no seccomp filter: %s",
                          strerror(-failed));
    return CM_OK;
}
