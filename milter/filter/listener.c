/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmilter opens the listener inside smfi_opensocket() and keeps its
 * descriptor to itself; it is found again as the one descriptor of ours that
 * accepts connections and did not before.
 */
#include "milter/filter/listener.h"
#include "milter/filter/unix_socket.h"

#include <errno.h>
#include <libmilter/mfapi.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define CM_LISTENER_BACKLOG  1024
#define CM_LISTENER_SCAN_MAX 4096

struct cm_listener {
    int fd; /* libmilter's; borrowed */
    struct cm_unix_socket sock;
};

enum cm_status
cm_listener_check(const char *spec, struct cm_err *err)
{
    const char *path = cm_unix_socket_path(spec);
    if (path)
        return cm_unix_socket_check(path, err);
    const char *rest = NULL;
    if (strncmp(spec, "inet:", 5) == 0)
        rest = spec + 5;
    else if (strncmp(spec, "inet6:", 6) == 0)
        rest = spec + 6;
    char *end = NULL;
    long port = rest ? strtol(rest, &end, 10) : 0;
    if (!rest || end == rest || port < 1 || port > 65535 || *end != '@' ||
        !end[1])
        return cm_err_set(err, CM_EINVAL,
                          "must be \"unix:/path\", \"inet:port@host\" or "
                          "\"inet6:port@host\"");
    return CM_OK;
}

static bool
is_listening(int fd)
{
    int on = 0;
    socklen_t len = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

/* Marks the descriptors that listen now. */
static void
mark_listening(bool listening_r[CM_LISTENER_SCAN_MAX])
{
    for (int fd = 0; fd < CM_LISTENER_SCAN_MAX; fd++)
        listening_r[fd] = is_listening(fd);
}

static int
new_listener(const bool before[CM_LISTENER_SCAN_MAX])
{
    for (int fd = 0; fd < CM_LISTENER_SCAN_MAX; fd++)
        if (!before[fd] && is_listening(fd))
            return fd;
    return -1;
}

enum cm_status
cm_listener_open(struct cm_listener **listener_r, const char *spec, mode_t mode,
                 const char *user, const char *group, struct cm_err *err)
{
    const char *path = cm_unix_socket_path(spec);
    bool before[CM_LISTENER_SCAN_MAX];
    enum cm_status status = cm_listener_check(spec, err);
    if (status != CM_OK)
        return status;
    struct cm_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    listener->fd = listener->sock.dir_fd = -1;
    if (path &&
        (status = cm_unix_socket_open(&listener->sock, path, err)) != CM_OK)
        goto out;
    mark_listening(before);
    mode_t saved = umask(0777 & ~mode);
    bool opened = smfi_setconn((char *)spec) == MI_SUCCESS &&
                  smfi_setbacklog(CM_LISTENER_BACKLOG) == MI_SUCCESS &&
                  smfi_opensocket(false) == MI_SUCCESS;
    umask(saved);
    if (!opened) {
        status = cm_err_set(err, path ? CM_EIO : CM_ECONFLICT,
                            "cannot listen on %s: %s", spec, strerror(errno));
        goto out;
    }
    listener->fd = new_listener(before);
    if (path && (status = cm_unix_socket_give(&listener->sock, user, group,
                                              err)) != CM_OK)
        cm_listener_shut(listener);
out:
    if (status == CM_OK)
        *listener_r = listener;
    else
        cm_listener_free(&listener);
    return status;
}

void
cm_listener_shut(struct cm_listener *listener)
{
    if (listener->fd >= 0)
        shutdown(listener->fd, SHUT_RDWR);
    cm_unix_socket_remove(&listener->sock);
}

void
cm_listener_free(struct cm_listener **listener)
{
    if (*listener)
        cm_unix_socket_fini(&(*listener)->sock);
    free(*listener);
    *listener = NULL;
}
