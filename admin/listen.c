/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SO_REUSEADDR lets a restarted daemon bind while old connections linger;
 * SO_REUSEPORT stays off, so a second daemon on the port is refused.
 */
#include "admin/listen.h"
#include "admin/request.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CM_LISTEN_BACKLOG 128

static enum cm_status
malformed(const char *address, struct cm_err *err)
{
    return cm_err_set(err, CM_EINVAL,
                      "\"%s\" is not host:port (IPv6: [address]:port)",
                      address);
}

/* Parts "host:port"; host_r keeps the brackets, *port_r points into address. */
static enum cm_status
split(const char *address, char *host_r, size_t cap, const char **port_r,
      struct cm_err *err)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || (size_t)(colon - address) >= cap)
        return malformed(address, err);
    size_t len = (size_t)(colon - address);
    memcpy(host_r, address, len);
    host_r[len] = '\0';
    bool bracketed = host_r[0] == '[' && host_r[len - 1] == ']' && len > 2;
    if (!bracketed && strpbrk(host_r, "[]:"))
        return malformed(address, err);
    const char *port = colon + 1;
    size_t digits = strspn(port, "0123456789");
    long number = strtol(port, NULL, 10);
    if (digits == 0 || digits > 5 || port[digits] || number < 1 ||
        number > 65535)
        return cm_err_set(err, CM_EINVAL,
                          "the port in \"%s\" must be between 1 and 65535",
                          address);
    *port_r = port;
    return CM_OK;
}

enum cm_status
cm_listen_check(struct cm_listen *listen_r, const char *address,
                struct cm_err *err)
{
    const char *port;
    memset(listen_r, 0, sizeof *listen_r);
    listen_r->fd = -1;
    return split(address, listen_r->host, sizeof listen_r->host, &port, err);
}

static enum cm_status
resolve(const char *host, const char *port, struct addrinfo **ai_r,
        struct cm_err *err)
{
    char name[256];
    size_t len = strlen(host);
    bool bracketed = host[0] == '[';
    memcpy(name, host + bracketed, len - 2 * bracketed);
    name[len - 2 * bracketed] = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int rc = getaddrinfo(name, port, &hints, ai_r);
    if (rc != 0)
        return cm_err_set(err, CM_EIO, "cannot resolve %s: %s", name,
                          gai_strerror(rc));
    return CM_OK;
}

static enum cm_status
bind_socket(int *fd_r, const struct addrinfo *ai, const char *address,
            struct cm_err *err)
{
    int on = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cm_err_set(err, CM_EIO, "socket for %s: %m", address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
        listen(fd, CM_LISTEN_BACKLOG) < 0) {
        const char *hint =
            errno == EADDRINUSE ? " (is another chaosadmin running?)" : "";
        cm_err_set(err, CM_EIO, "cannot listen on %s: %m%s", address, hint);
        close(fd);
        return CM_EIO;
    }
    *fd_r = fd;
    return CM_OK;
}

enum cm_status
cm_listen_open(struct cm_listen *listen_r, const char *address,
               struct cm_err *err)
{
    const char *port;
    struct addrinfo *ai = NULL;
    struct cm_peer self;
    memset(listen_r, 0, sizeof *listen_r);
    listen_r->fd = -1;
    enum cm_status status =
        split(address, listen_r->host, sizeof listen_r->host, &port, err);
    if (status != CM_OK)
        return status;
    status = resolve(listen_r->host, port, &ai, err);
    if (status != CM_OK)
        return status;
    cm_peer_set(&self, ai->ai_addr);
    listen_r->loopback = self.loopback;
    status = bind_socket(&listen_r->fd, ai, address, err);
    freeaddrinfo(ai);
    return status;
}
