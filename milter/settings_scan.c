/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reader of just enough of libconfig's language to tell numbers, names and
 * @include lines from strings and comments. It judges no grammar: whatever it
 * does not know it steps over, and libconfig says what is wrong with it.
 * Reading the tree afterwards would be too late: by then the process has ended
 * or the number has been wrapped.
 */
#include "milter/settings_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (1024 * 1024)
#define INCLUDE_DEPTH  10 /* as libconfig's own limit */
#define NAME_FIRST     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ*"
#define DIGIT          "0123456789"
#define NAME_REST      NAME_FIRST DIGIT "-_"

struct scan {
    const char *file;
    const char *dir;
    const char *at;   /* next byte; the text is NUL-terminated */
    const char *name; /* the last name seen, for messages */
    int name_len;
    int line;
    int depth;
    struct cm_err *err;
};

static enum cm_status scan_file(const char *path, const char *dir, int depth,
                                struct cm_err *err);

/* Reads a regular file whole; *text_r is the caller's to free(). */
static enum cm_status
read_file(const char *path, char **text_r, struct cm_err *err)
{
    enum cm_status status = CM_EIO;
    struct stat st;
    char *text = NULL;
    size_t len = 0;
    ssize_t got;
    /* O_NONBLOCK: opening a pipe must not wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return cm_err_set(err, errno == ENOENT ? CM_NOTFOUND : CM_EIO,
                          "%s: cannot be read: %m", path);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        cm_err_set(err, CM_EIO, "%s: is not a regular file", path);
        goto out;
    }
    if (st.st_size > FILE_BYTES_MAX) {
        cm_err_set(err, CM_EIO, "%s: is larger than 1 MiB", path);
        goto out;
    }
    text = malloc((size_t)st.st_size + 1);
    if (!text) {
        status = cm_err_set(err, CM_ENOMEM, "out of memory");
        goto out;
    }
    while (len < (size_t)st.st_size &&
           (got = read(fd, text + len, (size_t)st.st_size - len)) > 0)
        len += (size_t)got;
    if (len < (size_t)st.st_size) {
        cm_err_set(err, CM_EIO, "%s: cannot be read: %m", path);
        goto out;
    }
    text[len] = '\0';
    *text_r = text;
    text = NULL;
    status = CM_OK;
out:
    free(text);
    close(fd);
    return status;
}

static void
skip_comment(struct scan *scan)
{
    const char *end;
    if (scan->at[0] != '/' || scan->at[1] != '*') {
        scan->at += strcspn(scan->at, "\n");
        return;
    }
    end = strstr(scan->at + 2, "*/");
    end = end ? end + 2 : scan->at + strlen(scan->at);
    for (; scan->at < end; scan->at++)
        scan->line += *scan->at == '\n';
}

static void
skip_string(struct scan *scan)
{
    for (scan->at++; *scan->at && *scan->at != '"'; scan->at++) {
        if (*scan->at == '\\' && scan->at[1])
            scan->at++;
        scan->line += *scan->at == '\n';
    }
    if (*scan->at)
        scan->at++;
}

static enum cm_status
check_number(struct scan *scan)
{
    bool hex = scan->at[0] == '0' && (scan->at[1] == 'x' || scan->at[1] == 'X');
    char *end;
    unsigned long long n;
    errno = 0;
    n = strtoull(scan->at, &end, hex ? 16 : 10);
    if (*end == '.' || (!hex && (*end == 'e' || *end == 'E'))) {
        scan->at = end + strspn(end, DIGIT ".eE+-");
        return CM_OK;
    }
    if (errno == ERANGE || n > INT32_MAX)
        return cm_err_set(scan->err, CM_EINVAL,
                          "%s:%d: %.*s: the number is out of range", scan->file,
                          scan->line, scan->name_len, scan->name);
    scan->at = end;
    return CM_OK;
}

/* At `@include "name"`: only what exists and is no regular file is refused. */
static enum cm_status
check_include(struct scan *scan)
{
    char path[PATH_MAX];
    struct stat st;
    const char *name = scan->at + strlen("@include");
    size_t len;
    scan->at = name;
    name += strspn(name, " \t");
    if (*name++ != '"')
        return CM_OK;
    len = strcspn(name, "\"\n");
    if ((size_t)snprintf(path, sizeof path, "%s/%.*s", scan->dir, (int)len,
                         name) >= sizeof path)
        return cm_err_set(scan->err, CM_EINVAL,
                          "%s:%d: @include: the path is too long", scan->file,
                          scan->line);
    if (stat(path, &st) < 0)
        return CM_OK;
    if (!S_ISREG(st.st_mode))
        return cm_err_set(scan->err, CM_EINVAL,
                          "%s:%d: @include: must name a regular file",
                          scan->file, scan->line);
    if (scan->depth >= INCLUDE_DEPTH)
        return cm_err_set(scan->err, CM_EINVAL,
                          "%s:%d: @include: nested more than %d deep (a loop?)",
                          scan->file, scan->line, INCLUDE_DEPTH);
    return scan_file(path, scan->dir, scan->depth + 1, scan->err);
}

static enum cm_status
scan_token(struct scan *scan)
{
    size_t n;
    if (*scan->at == '\n') {
        scan->line++;
        scan->at++;
    } else if (*scan->at == '"') {
        skip_string(scan);
    } else if (*scan->at == '#' || (*scan->at == '/' && (scan->at[1] == '/' ||
                                                         scan->at[1] == '*'))) {
        skip_comment(scan);
    } else if (strncmp(scan->at, "@include", strlen("@include")) == 0) {
        return check_include(scan);
    } else if (strchr(DIGIT, *scan->at)) {
        return check_number(scan);
    } else if (strchr(NAME_FIRST, *scan->at)) {
        n = strspn(scan->at, NAME_REST);
        scan->name = scan->at;
        scan->name_len = n > 64 ? 64 : (int)n;
        scan->at += n;
    } else {
        scan->at++;
    }
    return CM_OK;
}

static enum cm_status
scan_file(const char *path, const char *dir, int depth, struct cm_err *err)
{
    struct scan scan = {.file = path,
                        .dir = dir,
                        .name = "",
                        .line = 1,
                        .depth = depth,
                        .err = err};
    char *text = NULL;
    enum cm_status status = read_file(path, &text, err);
    if (status != CM_OK)
        return status;
    scan.at = text;
    while (status == CM_OK && *scan.at)
        status = scan_token(&scan);
    free(text);
    return status;
}

enum cm_status
cm_settings_scan(const char *path, const char *dir, struct cm_err *err)
{
    return scan_file(path, dir, 0, err);
}
