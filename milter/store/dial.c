/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connecting. hiredis can connect too, but its sockets are not close-on-exec
 * from birth, its non-blocking mode tries one address of a name only, and
 * getaddrinfo has no timeout: a name server that hangs would hold a mail.
 * So a name that is no literal is looked up in a thread of its own, which is
 * left behind when the deadline comes first; at most CM_LOOKUPS_MAX of them
 * may be left at any time.
 */
#include "milter/store/dial.h"
#include "milter/clock.h"
#include "milter/store/thread.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CM_LOOKUPS_MAX 4
/* A peer that vanished without a word is noticed after about 30 + 3 * 5 s. */
#define CM_KEEPALIVE_IDLE_S     30
#define CM_KEEPALIVE_INTERVAL_S 5
#define CM_KEEPALIVE_PROBES     3

struct place {
    const char *path; /* borrowed; NULL: TCP */
    char host[256], port[6];
};

static const char *
error_text(int code, char *buf, size_t cap)
{
    return strerror_r(code, buf, cap); /* the GNU one: returns the text */
}

static enum cm_status
parse_tcp(struct place *place, const char *text, struct cm_err *err)
{
    const char *host = text, *end, *port;
    if (*text == '[') {
        host++;
        end = strchr(host, ']');
        port = end && end[1] == ':' ? end + 2 : NULL;
    } else {
        end = strrchr(host, ':');
        port = end ? end + 1 : NULL;
    }
    size_t len = end ? (size_t)(end - host) : 0;
    if (!port || len == 0 || len >= sizeof place->host)
        return cm_err_set(err, CM_EINVAL,
                          "expected tcp:host:port (tcp:[::1]:6379 for IPv6)");
    if (*text != '[' && memchr(host, ':', len))
        return cm_err_set(err, CM_EINVAL,
                          "an IPv6 address needs brackets: tcp:[::1]:6379");
    size_t digits = strspn(port, "0123456789");
    long number = digits > 0 && digits < sizeof place->port && !port[digits]
                      ? strtol(port, NULL, 10)
                      : 0;
    if (number < 1 || number > 65535)
        return cm_err_set(err, CM_EINVAL, "the port must be 1 to 65535");
    memcpy(place->host, host, len);
    place->host[len] = '\0';
    memcpy(place->port, port, digits + 1);
    return CM_OK;
}

static enum cm_status
parse(struct place *place, const char *address, struct cm_err *err)
{
    memset(place, 0, sizeof *place);
    if (strncmp(address, "tcp:", 4) == 0)
        return parse_tcp(place, address + 4, err);
    if (strncmp(address, "unix:/", 6) != 0)
        return cm_err_set(err, CM_EINVAL,
                          "expected unix:/path or tcp:host:port");
    place->path = address + 5;
    if (strlen(place->path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return cm_err_set(err, CM_EINVAL, "the socket's path is too long");
    return CM_OK;
}

enum cm_status
cm_dial_check(const char *address, struct cm_err *err)
{
    struct place place;
    return parse(&place, address, err);
}

enum cm_status
cm_dial_wait(int fd, short events, int64_t deadline_ms, int interrupt_fd,
             short *revents_r, struct cm_err *err)
{
    struct pollfd fds[2] = {{.fd = fd, .events = events},
                            {.fd = interrupt_fd, .events = POLLIN}};
    for (;;) {
        int64_t left = deadline_ms - cm_clock_mono_ms();
        int timeout = left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
        int n = poll(fds, 2, timeout);
        if (n < 0 && errno != EINTR) {
            char text[64];
            return cm_err_set(err, CM_EIO, "poll: %s",
                              error_text(errno, text, sizeof text));
        }
        if (n > 0 && fds[1].revents)
            return cm_err_set(err, CM_EIO, "interrupted");
        if (n > 0)
            break;
        if (left <= 0)
            return cm_err_set(err, CM_ETIMEOUT, "no answer in time");
    }
    if (revents_r)
        *revents_r = fds[0].revents;
    return CM_OK;
}

/* --- name resolution --- */

struct lookup {
    atomic_int refs; /* the asker and the thread */
    int done_fd;
    char host[256], port[6];
    atomic_bool done; /* then rc and list may be read, and done_fd says so */
    int rc;
    struct addrinfo *list;
};

static atomic_int lookups;

static void
lookup_release(struct lookup *lookup)
{
    if (atomic_fetch_sub(&lookup->refs, 1) != 1)
        return;
    if (lookup->list)
        freeaddrinfo(lookup->list);
    close(lookup->done_fd);
    free(lookup);
    atomic_fetch_sub(&lookups, 1);
}

static void *
lookup_main(void *arg)
{
    struct lookup *lookup = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV};
    lookup->rc = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->list);
    atomic_store(&lookup->done, true);
    uint64_t one = 1;
    if (write(lookup->done_fd, &one, sizeof one) < 0) {
        /* The asker's deadline ends its wait. */
    }
    lookup_release(lookup);
    return NULL;
}

static enum cm_status
lookup_new(struct lookup **lookup_r, const struct place *place,
           struct cm_err *err)
{
    if (atomic_fetch_add(&lookups, 1) >= CM_LOOKUPS_MAX) {
        atomic_fetch_sub(&lookups, 1);
        return cm_err_set(err, CM_EIO, "earlier lookups of %s still hang",
                          place->host);
    }
    struct lookup *lookup = calloc(1, sizeof *lookup);
    int fd = lookup ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    if (fd < 0) {
        free(lookup);
        atomic_fetch_sub(&lookups, 1);
        return cm_err_set(err, CM_ENOMEM, "out of memory or descriptors");
    }
    lookup->done_fd = fd;
    atomic_init(&lookup->refs, 2);
    memcpy(lookup->host, place->host, sizeof lookup->host);
    memcpy(lookup->port, place->port, sizeof lookup->port);
    *lookup_r = lookup;
    return CM_OK;
}

/* *list_r is the caller's to free with freeaddrinfo. */
static enum cm_status
resolve(struct addrinfo **list_r, const struct place *place,
        int64_t deadline_ms, int interrupt_fd, struct cm_err *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    if (getaddrinfo(place->host, place->port, &hints, list_r) == 0)
        return CM_OK;

    struct lookup *lookup = NULL;
    enum cm_status st = lookup_new(&lookup, place, err);
    if (st != CM_OK)
        return st;
    st = cm_thread_start(NULL, lookup_main, lookup, err);
    if (st != CM_OK)
        lookup_release(lookup); /* the thread's share */
    else
        st = cm_dial_wait(lookup->done_fd, POLLIN, deadline_ms, interrupt_fd,
                          NULL, err);
    if (st == CM_OK && !atomic_load(&lookup->done))
        st = cm_err_set(err, CM_EIO, "%s: lookup failed", place->host);
    if (st == CM_OK && lookup->rc != 0)
        st = cm_err_set(err, CM_EIO, "%s: %s", place->host,
                        gai_strerror(lookup->rc));
    if (st == CM_OK) {
        *list_r = lookup->list;
        lookup->list = NULL;
    }
    lookup_release(lookup);
    return st;
}

/* --- connecting --- */

static void
tune_tcp(int fd)
{
    const int on = 1, idle = CM_KEEPALIVE_IDLE_S,
              interval = CM_KEEPALIVE_INTERVAL_S, probes = CM_KEEPALIVE_PROBES;
    /* Each is a refinement: without it the link works all the same. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval,
                     sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static enum cm_status
connect_to(int *fd_r, const struct sockaddr *addr, socklen_t len,
           int64_t deadline_ms, int interrupt_fd, struct cm_err *err)
{
    char text[64];
    enum cm_status st = CM_OK;
    int error = 0;
    socklen_t error_len = sizeof error;
    int fd =
        socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cm_err_set(err, CM_EIO, "socket: %s",
                          error_text(errno, text, sizeof text));
    if (connect(fd, addr, len) < 0) {
        error = errno;
        if (error == EINPROGRESS) {
            st =
                cm_dial_wait(fd, POLLOUT, deadline_ms, interrupt_fd, NULL, err);
            if (st == CM_OK &&
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0)
                error = errno;
        }
        if (st == CM_OK && error != 0)
            st = cm_err_set(err, CM_EIO, "connect: %s",
                            error_text(error, text, sizeof text));
    }
    if (st != CM_OK) {
        close(fd);
        return st;
    }
    if (addr->sa_family != AF_UNIX)
        tune_tcp(fd);
    *fd_r = fd;
    return CM_OK;
}

static enum cm_status
dial_tcp(int *fd_r, const struct place *place, int64_t deadline_ms,
         int interrupt_fd, struct cm_err *err)
{
    struct addrinfo *list = NULL;
    enum cm_status st = resolve(&list, place, deadline_ms, interrupt_fd, err);
    if (st != CM_OK)
        return st;
    int left = 0;
    for (struct addrinfo *at = list; at; at = at->ai_next)
        left++;
    st = CM_EIO;
    for (struct addrinfo *at = list; at && st != CM_OK; at = at->ai_next) {
        /* One silent address must not use up the time of the others. */
        int64_t now = cm_clock_mono_ms();
        int64_t share = (deadline_ms - now) / left--;
        st = connect_to(fd_r, at->ai_addr, at->ai_addrlen, now + share,
                        interrupt_fd, err);
    }
    freeaddrinfo(list);
    return st;
}

enum cm_status
cm_dial(int *fd_r, const char *address, int64_t deadline_ms, int interrupt_fd,
        struct cm_err *err)
{
    struct place place;
    enum cm_status st = parse(&place, address, err);
    if (st != CM_OK)
        return st;
    if (!place.path)
        return dial_tcp(fd_r, &place, deadline_ms, interrupt_fd, err);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, place.path, strlen(place.path) + 1);
    return connect_to(fd_r, (struct sockaddr *)&addr, sizeof addr, deadline_ms,
                      interrupt_fd, err);
}
