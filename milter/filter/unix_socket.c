/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What holds for every unix socket that a mail server connects to, whoever
 * listens on it: libmilter, or we ourselves.
 */
#include "milter/filter/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(sizeof((struct sockaddr_un *)0)->sun_path ==
                   CM_UNIX_SOCKET_PATH_BYTES,
               "a name is as long as a path may be");

const char *
cm_unix_socket_path(const char *spec)
{
    if (strncmp(spec, "unix:", 5) == 0)
        return spec + 5;
    return strncmp(spec, "local:", 6) == 0 ? spec + 6 : NULL;
}

enum cm_status
cm_unix_socket_check(const char *path, struct cm_err *err)
{
    if (path[0] != '/')
        return cm_err_set(err, CM_EINVAL, "the path must begin with \"/\"");
    if (strlen(path) >= CM_UNIX_SOCKET_PATH_BYTES)
        return cm_err_set(err, CM_EINVAL,
                          "the path is longer than a socket's may be");
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

static enum cm_status
split_path(struct cm_unix_socket *sock, const char *path, struct cm_err *err)
{
    const char *slash = strrchr(path, '/');
    char dir[sizeof sock->name];
    snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path),
             path);
    snprintf(sock->name, sizeof sock->name, "%s", slash + 1);
    sock->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (sock->dir_fd < 0)
        return cm_err_set(err, CM_EIO, "%s: %s", dir, strerror(errno));
    return CM_OK;
}

enum cm_status
cm_unix_socket_open(struct cm_unix_socket *sock_r, const char *path,
                    struct cm_err *err)
{
    sock_r->dir_fd = -1;
    enum cm_status status = split_path(sock_r, path, err);
    return status == CM_OK ? clear_stale(path, err) : status;
}

/* By name in the folder that is kept open, and never through a symbolic link:
 * the user we become may write there, and we are root still. The mode is right
 * from the start, by the umask. */
enum cm_status
cm_unix_socket_give(const struct cm_unix_socket *sock, const char *user,
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
    if (fchownat(sock->dir_fd, sock->name, geteuid() == 0 ? uid : (uid_t)-1,
                 gid, AT_SYMLINK_NOFOLLOW) < 0)
        return cm_err_set(err, CM_EIO, "%s: %s", sock->name, strerror(errno));
    return CM_OK;
}

enum cm_status
cm_unix_socket_point_to(const struct cm_unix_socket *sock, const char *target,
                        struct cm_err *err)
{
    char fresh[sizeof sock->name + 8];
    snprintf(fresh, sizeof fresh, "%s.new", sock->name);
    (void)unlinkat(sock->dir_fd, fresh, 0);
    if (symlinkat(target, sock->dir_fd, fresh) < 0 ||
        renameat(sock->dir_fd, fresh, sock->dir_fd, sock->name) < 0)
        return cm_err_set(err, CM_EIO, "%s: %s", sock->name, strerror(errno));
    return CM_OK;
}

enum cm_status
cm_unix_socket_unpoint(const char *path, const char *target, struct cm_err *err)
{
    char leads_to[CM_UNIX_SOCKET_PATH_BYTES];
    ssize_t n = readlink(path, leads_to, sizeof leads_to - 1);
    if (n < 0)
        return CM_OK; /* no link: cm_unix_socket_open says what else it is */
    leads_to[n] = '\0';
    if (strcmp(leads_to, target) == 0 && unlink(path) < 0)
        return cm_err_set(err, CM_EIO, "%s: %s", path, strerror(errno));
    return CM_OK;
}

void
cm_unix_socket_remove(const struct cm_unix_socket *sock)
{
    if (sock->dir_fd >= 0)
        unlinkat(sock->dir_fd, sock->name, 0);
}

void
cm_unix_socket_fini(struct cm_unix_socket *sock)
{
    if (sock->dir_fd >= 0)
        close(sock->dir_fd);
    sock->dir_fd = -1;
}
