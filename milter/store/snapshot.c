/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file, as an editor shows it:
 *
 *   chaosmilter-snapshot 1
 *   epoch 8d0af013...
 *   seq 1041
 *   inbox:a@example.com<TAB>{"rev":3,"seq":17,"doc":{...}}
 *   rule:r7<TAB>{...}
 *   sha256 <64 hex digits over everything before this line>
 *
 * A raw line break in a sound JSON document can only be white space, so it is
 * written as a blank; control bytes are not allowed in keys at all. Both
 * directions stream: neither the file nor the table is ever in memory twice
 * over. Reading fills the table aside while the sum is made, and the swap waits
 * for the sum.
 */
#include "milter/store/snapshot.h"
#include "milter/buf.h"
#include "milter/model/inbox.h"
#include "milter/store/envelope.h"
#include "milter/store/replica.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CM_SNAPSHOT_HEAD    "chaosmilter-snapshot "
#define CM_SNAPSHOT_VERSION 1
#define CM_CHUNK            ((size_t)256 * 1024)
#define CM_KEY_ROOM         2048
#define CM_LINE_MAX                                                            \
    ((size_t)CM_INBOX_DOC_MAX + CM_ENVELOPE_OVERHEAD + CM_KEY_ROOM)
#define CM_SUM_HEX 64

static enum cm_status
failed(struct cm_err *err, const char *doing, const char *name)
{
    char text[64];
    return cm_err_set(err, CM_EIO, "%s snapshot %s: %s", doing, name,
                      strerror_r(errno, text, sizeof text));
}

static bool
sum_start(EVP_MD_CTX **sum_r)
{
    *sum_r = EVP_MD_CTX_new();
    return *sum_r && EVP_DigestInit_ex(*sum_r, EVP_sha256(), NULL) == 1;
}

static bool
sum_hex(EVP_MD_CTX *sum, char hex[CM_SUM_HEX + 1])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_DigestFinal_ex(sum, md, &len) != 1 || len * 2 != CM_SUM_HEX)
        return false;
    for (unsigned i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
    return true;
}

/* --- writing --- */

struct writer {
    int fd;
    EVP_MD_CTX *sum;
    struct cm_buf out;
    enum cm_status status; /* latched: CM_OK, CM_EIO with errno, CM_ENOMEM */
    int error;
};

static void
flush_out(struct writer *w)
{
    if (w->status == CM_OK && cm_buf_status(&w->out) != CM_OK)
        w->status = CM_ENOMEM;
    if (w->status == CM_OK && w->sum &&
        EVP_DigestUpdate(w->sum, w->out.data, w->out.len) != 1)
        w->status = CM_ENOMEM;
    for (size_t done = 0; w->status == CM_OK && done < w->out.len;) {
        ssize_t n = write(w->fd, w->out.data + done, w->out.len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            w->error = errno;
            w->status = CM_EIO;
        } else {
            done += (size_t)n;
        }
    }
    cm_buf_reset(&w->out);
}

static bool
write_doc(void *arg, const char *key, const char *text, size_t len)
{
    struct writer *w = arg;
    cm_buf_puts(&w->out, key);
    cm_buf_puts(&w->out, "\t");
    size_t start = w->out.len;
    cm_buf_add(&w->out, text, len);
    cm_buf_puts(&w->out, "\n");
    if (cm_buf_status(&w->out) == CM_OK)
        for (size_t i = start; i < start + len; i++)
            if (w->out.data[i] == '\n' || w->out.data[i] == '\r')
                w->out.data[i] = ' ';
    if (w->out.len >= CM_CHUNK || cm_buf_status(&w->out) != CM_OK)
        flush_out(w);
    return w->status == CM_OK;
}

static void
write_all(struct writer *w, struct cm_replica *replica)
{
    struct cm_replica_state state;
    char hex[CM_SUM_HEX + 1];
    cm_replica_state(replica, &state);
    cm_buf_printf(&w->out, CM_SNAPSHOT_HEAD "%d\nepoch %s\nseq %" PRId64 "\n",
                  CM_SNAPSHOT_VERSION, state.epoch, state.seq);
    enum cm_status st = cm_replica_each(replica, write_doc, w);
    if (w->status == CM_OK)
        w->status = st;
    flush_out(w);
    if (w->status != CM_OK)
        return;
    if (!sum_hex(w->sum, hex)) {
        w->status = CM_ENOMEM;
        return;
    }
    EVP_MD_CTX_free(w->sum);
    w->sum = NULL;
    cm_buf_printf(&w->out, "sha256 %s\n", hex);
    flush_out(w);
}

/* A leftover of a crash goes first, so that O_EXCL can be asked for: what is
 * opened is a new file and never somebody's link. */
static enum cm_status
create(int *fd_r, int dir_fd, const char *temp, struct cm_err *err)
{
    if (unlinkat(dir_fd, temp, 0) < 0 && errno != ENOENT)
        return failed(err, "cannot replace", temp);
    *fd_r = openat(dir_fd, temp,
                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (*fd_r < 0)
        return failed(err, "cannot create", temp);
    return CM_OK;
}

enum cm_status
cm_snapshot_write(int dir_fd, const char *name, struct cm_replica *replica,
                  struct cm_err *err)
{
    struct writer w = {.fd = -1, .status = CM_OK};
    char temp[256];
    int n = snprintf(temp, sizeof temp, "%s.new", name);
    if (strchr(name, '/') || n < 0 || (size_t)n >= sizeof temp)
        return cm_err_set(err, CM_EINVAL, "not a plain file name: %s", name);
    enum cm_status st = create(&w.fd, dir_fd, temp, err);
    if (st != CM_OK)
        return st;
    cm_buf_init(&w.out, CM_CHUNK + CM_LINE_MAX);
    if (!sum_start(&w.sum))
        w.status = CM_ENOMEM;
    else
        write_all(&w, replica);
    st = w.status;
    errno = w.error;
    if (st == CM_OK && (fchmod(w.fd, 0640) < 0 || fsync(w.fd) < 0 ||
                        renameat(dir_fd, temp, dir_fd, name) < 0))
        st = CM_EIO;
    if (st == CM_EIO)
        failed(err, "cannot write", name);
    else if (st != CM_OK)
        cm_err_set(err, st, "out of memory for snapshot %s", name);
    if (st != CM_OK)
        unlinkat(dir_fd, temp, 0);
    else
        (void)fsync(dir_fd); /* the name; some file systems cannot */
    close(w.fd);
    EVP_MD_CTX_free(w.sum);
    cm_buf_fini(&w.out);
    return st;
}

/* --- reading --- */

struct reader {
    int fd;
    char *buf; /* CM_CHUNK + CM_LINE_MAX bytes */
    size_t at, end;
    EVP_MD_CTX *sum;
    const char *name;
    unsigned long line;
};

static enum cm_status
bad(const struct reader *r, struct cm_err *err, const char *what)
{
    return cm_err_set(err, CM_EPROTO, "snapshot %s line %lu: %s", r->name,
                      r->line, what);
}

/* The next line without its end, NUL in its place; *next_r is where it begins
 * and raw_len counts the end. CM_NOTFOUND at the end of the file. */
static enum cm_status
next_line(struct reader *r, char **line_r, size_t *len_r, struct cm_err *err)
{
    r->line++;
    for (;;) {
        char *start = r->buf + r->at;
        char *stop = memchr(start, '\n', r->end - r->at);
        if (stop) {
            *line_r = start;
            *len_r = (size_t)(stop - start);
            r->at += *len_r + 1;
            return CM_OK;
        }
        if (r->end - r->at > CM_LINE_MAX)
            return bad(r, err, "the line is too long");
        memmove(r->buf, start, r->end - r->at);
        r->end -= r->at;
        r->at = 0;
        ssize_t n = read(r->fd, r->buf + r->end, CM_CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(err, "cannot read", r->name);
        if (n == 0 && r->end > 0)
            return bad(r, err, "the file ends within a line");
        if (n == 0)
            return CM_NOTFOUND;
        r->end += (size_t)n;
    }
}

/* A header line "word value"; the value is copied to out. */
static enum cm_status
header(struct reader *r, const char *word, char *out, size_t cap,
       struct cm_err *err)
{
    char *line;
    size_t len, skip = strlen(word);
    enum cm_status st = next_line(r, &line, &len, err);
    if (st == CM_NOTFOUND)
        return bad(r, err, "the file ends within the header");
    if (st != CM_OK)
        return st;
    if (len < skip || memcmp(line, word, skip) != 0 || len - skip >= cap)
        return bad(r, err, "not the header of a snapshot");
    if (EVP_DigestUpdate(r->sum, line, len + 1) != 1)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    memcpy(out, line + skip, len - skip);
    out[len - skip] = '\0';
    return CM_OK;
}

static enum cm_status
check_sum(struct reader *r, const char *line, size_t len, struct cm_err *err)
{
    char hex[CM_SUM_HEX + 1];
    char *more;
    size_t more_len;
    if (!sum_hex(r->sum, hex))
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    if (len != 7 + CM_SUM_HEX || memcmp(line + 7, hex, CM_SUM_HEX) != 0)
        return bad(r, err, "the checksum is wrong");
    enum cm_status st = next_line(r, &more, &more_len, err);
    if (st == CM_OK)
        return bad(r, err, "something follows the checksum");
    return st == CM_NOTFOUND ? CM_OK : st;
}

/* Documents up to and with the checksum's line. */
static enum cm_status
read_docs(struct reader *r, struct cm_replica *replica, struct cm_err *err)
{
    for (;;) {
        char *line;
        size_t len;
        enum cm_status st = next_line(r, &line, &len, err);
        if (st == CM_NOTFOUND)
            return bad(r, err, "the checksum is missing");
        if (st != CM_OK)
            return st;
        if (len >= 7 && memcmp(line, "sha256 ", 7) == 0)
            return check_sum(r, line, len, err);
        char *tab = memchr(line, '\t', len);
        if (!tab || memchr(line, '\0', (size_t)(tab - line)))
            return bad(r, err, "not a document");
        if (EVP_DigestUpdate(r->sum, line, len + 1) != 1)
            return cm_err_set(err, CM_ENOMEM, "out of memory");
        *tab = '\0';
        st = cm_replica_load(replica, line, tab + 1,
                             len - (size_t)(tab + 1 - line));
        if (st != CM_OK)
            return cm_err_set(err, st, "out of memory");
    }
}

static enum cm_status
read_all(struct reader *r, struct cm_replica *replica, struct cm_err *err)
{
    char version[16], epoch[64], number[24], *rest;
    enum cm_status st =
        header(r, CM_SNAPSHOT_HEAD, version, sizeof version, err);
    if (st == CM_OK && strcmp(version, "1") != 0)
        st = bad(r, err, "written by another version of this program");
    if (st == CM_OK)
        st = header(r, "epoch ", epoch, sizeof epoch, err);
    if (st == CM_OK)
        st = header(r, "seq ", number, sizeof number, err);
    if (st != CM_OK)
        return st;
    errno = 0;
    int64_t seq = strtoll(number, &rest, 10);
    if (errno != 0 || rest == number || *rest || seq < 0)
        return bad(r, err, "not a sequence number");
    st = read_docs(r, replica, err);
    if (st != CM_OK)
        return st;
    st = cm_replica_swap(replica, epoch, seq);
    if (st != CM_OK)
        cm_err_set(err, st, "out of memory");
    return st;
}

/* Only what nobody but us or root can have written is believed. */
static enum cm_status
open_trusted(int *fd_r, int dir_fd, const char *name, struct cm_err *err)
{
    struct stat status;
    int fd =
        openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return cm_err_set(err, CM_NOTFOUND, "there is no snapshot %s", name);
    if (fd < 0 && errno == ELOOP)
        return cm_err_set(err, CM_EPROTO,
                          "snapshot %s is a symbolic link: ignored", name);
    if (fd < 0)
        return failed(err, "cannot open", name);
    const char *why = NULL;
    if (fstat(fd, &status) < 0)
        why = "cannot be looked at";
    else if (!S_ISREG(status.st_mode))
        why = "is not a regular file";
    else if (status.st_uid != geteuid() && status.st_uid != 0)
        why = "belongs to another user";
    else if (status.st_mode & (S_IWGRP | S_IWOTH))
        why = "may be written by others";
    if (why) {
        close(fd);
        return cm_err_set(err, CM_EPROTO, "snapshot %s %s: ignored", name, why);
    }
    *fd_r = fd;
    return CM_OK;
}

enum cm_status
cm_snapshot_read(int dir_fd, const char *name, struct cm_replica *replica,
                 struct cm_err *err)
{
    struct reader r = {.fd = -1, .name = name};
    enum cm_status st = open_trusted(&r.fd, dir_fd, name, err);
    if (st != CM_OK)
        return st;
    r.buf = malloc(CM_CHUNK + CM_LINE_MAX + 1);
    if (!r.buf || !sum_start(&r.sum) || cm_replica_begin(replica) != CM_OK)
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
    else
        st = read_all(&r, replica, err);
    cm_replica_abandon(replica); /* nothing after a swap */
    EVP_MD_CTX_free(r.sum);
    free(r.buf);
    close(r.fd);
    return st;
}
