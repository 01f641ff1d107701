/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the lab's Sendmail and saslauthd take for the machine that they run on:
 * preloaded into both.
 *
 * Sendmail has no setting for any of this. At start, before it reads its
 * configuration, it sleeps for a minute when the host's name has no dot and no
 * name server knows it; it asks for the name of every client; and it logs to
 * /dev/log alone, which a container has not. saslauthd's file of users is
 * compiled in, and the one in /etc is not ours to write. Rejected: namespaces,
 * which need more privileges than root has in many a container.
 *
 *   LAB_LOG     file that takes what they would tell syslog
 *   LAB_SASLDB  file that they find when they open /etc/sasldb2
 */
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HOST "lab.example"

int open(const char *path, int flags, ...);
void __syslog_chk(int priority, int flag, const char *format, ...);
void __vsyslog_chk(int priority, int flag, const char *format, va_list args);

static char log_path[256], sasldb_path[256];

/* Sendmail wipes its environment, so it is read before main(). */
__attribute__((constructor)) static void
begin(void)
{
    const char *log = getenv("LAB_LOG"), *sasldb = getenv("LAB_SASLDB");
    snprintf(log_path, sizeof log_path, "%s", log ? log : "/dev/null");
    snprintf(sasldb_path, sizeof sasldb_path, "%s", sasldb ? sasldb : "");
}

int
gethostname(char *name, size_t cap)
{
    return snprintf(name, cap, HOST) < (int)cap ? 0 : -1;
}

/* Nobody has a name but ourselves. */
struct hostent *
gethostbyname2(const char *name, int family)
{
    static char addr[] = {127, 0, 0, 1}, *addrs[] = {addr, NULL}, *none = NULL;
    static struct hostent host = {(char *)HOST, &none, AF_INET, 4, addrs};
    if (family == AF_INET && strcmp(name, HOST) == 0)
        return &host;
    h_errno = HOST_NOT_FOUND;
    return NULL;
}

struct hostent *
gethostbyaddr(const void *addr, socklen_t len, int family)
{
    (void)addr;
    (void)len;
    (void)family;
    h_errno = HOST_NOT_FOUND;
    return NULL;
}

int
open(const char *path, int flags, ...)
{
    int mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, int);
        va_end(args);
    }
    if (sasldb_path[0] && strcmp(path, "/etc/sasldb2") == 0)
        path = sasldb_path;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* One write for each line: many processes share the file. */
static void
add_line(const char *format, va_list args)
{
    char line[4096];
    time_t now = time(NULL);
    struct tm tm;
    size_t at = strftime(line, sizeof line, "%b %e %T", localtime_r(&now, &tm));
    at +=
        (size_t)snprintf(line + at, sizeof line - at, " [%d] ", (int)getpid());
    int len = vsnprintf(line + at, sizeof line - at - 1, format, args);
    if (len > 0)
        at += (size_t)len;
    if (at > sizeof line - 2)
        at = sizeof line - 2;
    line[at++] = '\n';
    int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (write(fd, line, at) < 0)
        (void)at; /* there is nobody left to tell */
    close(fd);
}

void
openlog(const char *ident, int option, int facility)
{
    (void)ident;
    (void)option;
    (void)facility;
}

/* Debian builds with fortified sources, so these are what is called. */
void
__syslog_chk(int priority, int flag, const char *format, ...)
{
    va_list args;
    (void)priority;
    (void)flag;
    va_start(args, format);
    add_line(format, args);
    va_end(args);
}

void
__vsyslog_chk(int priority, int flag, const char *format, va_list args)
{
    (void)priority;
    (void)flag;
    add_line(format, args);
}
