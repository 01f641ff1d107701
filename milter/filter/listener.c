/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmilter opens the listener inside smfi_opensocket() and keeps its
 * descriptor to itself; it is found again as the one descriptor of ours that
 * accepts connections and did not before. The directory of a unix socket is
 * kept open, so that the name can be removed after privileges are dropped even
 * where the path above it is closed to us.
 */
#include "milter/filter/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libmilter/mfapi.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CM_LISTENER_BACKLOG  1024
#define CM_LISTENER_SCAN_MAX 4096

struct cm_listener {
    int fd;     /* libmilter's; borrowed */
    int dir_fd; /* of the unix socket, or -1 */
    char name[sizeof((struct sockaddr_un *)0)->sun_path];
};

/* The path of a unix socket, NULL for another kind. "local:" is Sendmail's
 * word. */
static const char *
unix_path(const char *spec)
{
    if (strncmp(spec, "unix:", 5) == 0)
        return spec + 5;
    return strncmp(spec, "local:", 6) == 0 ? spec + 6 : NULL;
}

enum cm_status
cm_listener_check(const char *spec, struct cm_err *err)
{
    const char *path = unix_path(spec);
    if (path) {
        if (path[0] != '/')
            return cm_err_set(err, CM_EINVAL, "the path must begin with \"/\"");
        if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
            return cm_err_set(err, CM_EINVAL,
                              "the path is longer than a socket's may be");
        return CM_OK;
    }
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
somebody_answers(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answered =
        fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0;
    if (fd >= 0)
        close(fd);
    return answered;
}

static enum cm_status
clear_stale(const char *path, struct cm_err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT
                   ? CM_OK
                   : cm_err_set(err, CM_EIO, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return cm_err_set(err, CM_ECONFLICT,
                          "%s is there and is no socket: it is left alone",
                          path);
    if (somebody_answers(path))
        return cm_err_set(err, CM_ECONFLICT,
                          "another process already listens on %s", path);
    if (unlink(path) < 0)
        return cm_err_set(err, CM_EIO, "cannot remove the stale %s: %s", path,
                          strerror(errno));
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

/* By name in the folder that is kept open, and never through a symbolic link:
 * the user we become may write there, and we are root still. The mode is right
 * from the start, by the umask. */
static enum cm_status
set_owner(const struct cm_listener *listener, const char *user,
          const char *group, struct cm_err *err)
{
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    if (user[0]) {
        struct passwd *pw = getpwnam(user);
        if (!pw)
            return cm_err_set(err, CM_EINVAL, "milter.user: no user \"%s\"",
                              user);
        uid = pw->pw_uid;
    }
    if (group[0]) {
        struct group *gr = getgrnam(group);
        if (!gr)
            return cm_err_set(err, CM_EINVAL,
                              "milter.socket_group: no group \"%s\"", group);
        gid = gr->gr_gid;
    }
    if (fchownat(listener->dir_fd, listener->name,
                 geteuid() == 0 ? uid : (uid_t)-1, gid,
                 AT_SYMLINK_NOFOLLOW) < 0)
        return cm_err_set(err, CM_EIO, "%s: %s", listener->name,
                          strerror(errno));
    return CM_OK;
}

static enum cm_status
split_path(struct cm_listener *listener, const char *path, struct cm_err *err)
{
    const char *slash = strrchr(path, '/');
    char dir[sizeof listener->name];
    snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path),
             path);
    snprintf(listener->name, sizeof listener->name, "%s", slash + 1);
    listener->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (listener->dir_fd < 0)
        return cm_err_set(err, CM_EIO, "%s: %s", dir, strerror(errno));
    return CM_OK;
}

enum cm_status
cm_listener_open(struct cm_listener **listener_r, const char *spec, mode_t mode,
                 const char *user, const char *group, struct cm_err *err)
{
    const char *path = unix_path(spec);
    bool before[CM_LISTENER_SCAN_MAX];
    enum cm_status status = cm_listener_check(spec, err);
    if (status != CM_OK)
        return status;
    struct cm_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    listener->fd = listener->dir_fd = -1;
    if (path && (status = split_path(listener, path, err)) != CM_OK)
        goto out;
    if (path && (status = clear_stale(path, err)) != CM_OK)
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
    if (path && (status = set_owner(listener, user, group, err)) != CM_OK)
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
    if (listener->dir_fd >= 0)
        unlinkat(listener->dir_fd, listener->name, 0);
}

void
cm_listener_free(struct cm_listener **listener)
{
    if (*listener && (*listener)->dir_fd >= 0)
        close((*listener)->dir_fd);
    free(*listener);
    *listener = NULL;
}
