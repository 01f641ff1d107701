/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/halt_file.h"
#include "milter/buf.h"
#include "milter/model/json.h"
#include "milter/model/rfc3339.h"
#include "milter/store/halt.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CM_FILE_BYTES_MAX 4096

static enum cm_status
failed(struct cm_err *err, const char *doing, const char *name)
{
    char text[64];
    return cm_err_set(err, CM_EIO,
                      "the halt would not survive a restart while Redis is "
                      "away: %s %s: %s",
                      doing, name, strerror_r(errno, text, sizeof text));
}

static enum cm_status
write_text(int dir_fd, const char *temp, const struct cm_buf *text,
           struct cm_err *err)
{
    if (unlinkat(dir_fd, temp, 0) < 0 && errno != ENOENT)
        return failed(err, "cannot replace", temp);
    int fd = openat(dir_fd, temp,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd < 0)
        return failed(err, "cannot create", temp);
    enum cm_status st = CM_OK;
    /* One write: a disk either has these few bytes left or not. */
    if (write(fd, text->data, text->len) != (ssize_t)text->len || fsync(fd) < 0)
        st = failed(err, "cannot write", temp);
    close(fd);
    return st;
}

enum cm_status
cm_halt_file_write(int dir_fd, const char *name, const struct cm_halt *halt,
                   struct cm_err *err)
{
    char temp[256];
    struct cm_buf text;
    if (!halt->halted) {
        if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
            return failed(err, "cannot remove", name);
        (void)fsync(dir_fd);
        return CM_OK;
    }
    snprintf(temp, sizeof temp, "%s.new", name);
    cm_buf_init(&text, CM_FILE_BYTES_MAX);
    cm_halt_print(&text, halt);
    cm_buf_puts(&text, "\n");
    enum cm_status st = cm_buf_status(&text);
    if (st != CM_OK)
        cm_err_set(err, st, "out of memory");
    else
        st = write_text(dir_fd, temp, &text, err);
    if (st == CM_OK && renameat(dir_fd, temp, dir_fd, name) < 0)
        st = failed(err, "cannot write", name);
    if (st == CM_OK)
        (void)fsync(dir_fd); /* the name; some file systems cannot */
    cm_buf_fini(&text);
    return st;
}

/* Who, when and why, as far as the text tells. */
static void
read_text(struct cm_halt *halt, const char *text, size_t len)
{
    json_t *json = NULL;
    if (cm_json_parse(&json, text, len, NULL) != CM_OK)
        return;
    const char *by = json_string_value(json_object_get(json, "by"));
    const char *reason = json_string_value(json_object_get(json, "reason"));
    const char *since = json_string_value(json_object_get(json, "since"));
    snprintf(halt->by, sizeof halt->by, "%s", by ? by : "");
    snprintf(halt->reason, sizeof halt->reason, "%s", reason ? reason : "");
    if (!since || cm_time_parse(since, &halt->at_ms) != CM_OK)
        halt->at_ms = 0;
    json_decref(json);
}

void
cm_halt_file_read(int dir_fd, const char *name, struct cm_halt *halt_r)
{
    char text[CM_FILE_BYTES_MAX];
    struct stat status;
    memset(halt_r, 0, sizeof *halt_r);
    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 &&
        errno == ENOENT)
        return;
    halt_r->halted = true;
    int fd =
        openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
    if (n > 0)
        read_text(halt_r, text, (size_t)n);
    if (fd >= 0)
        close(fd);
}
