/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/hook_line.h"
#include "milter/filter/peer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_BYTES   CM_SOCKETMAP_BYTES_MAX
#define ANSWER_BYTES 512

enum cm_status
cm_hook_line_open(struct cm_hook_line *line_r, int fd)
{
    void *data = mmap(NULL, LINE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        close(fd);
        return CM_ENOMEM;
    }
    /* Not vital: the process as a whole is not dumpable (privs.c). */
    (void)madvise(data, LINE_BYTES, MADV_DONTDUMP);
    *line_r = (struct cm_hook_line){
        .fd = fd, .process = cm_peer_process(fd), .data = data};
    return CM_OK;
}

void
cm_hook_line_close(struct cm_hook_line *line)
{
    explicit_bzero(line->data, line->len);
    munmap(line->data, LINE_BYTES);
    close(line->fd);
}

bool
cm_hook_line_receive(struct cm_hook_line *line)
{
    ssize_t n;
    if (line->len == LINE_BYTES) /* there is a question to be read first */
        return true;
    do
        n = recv(line->fd, line->data + line->len, LINE_BYTES - line->len,
                 MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        line->len += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

/* The first n bytes are done with. */
static void
drop(struct cm_hook_line *line, size_t n)
{
    size_t rest = line->len - n;
    memmove(line->data, line->data + n, rest);
    explicit_bzero(line->data + rest, n);
    line->len = rest;
}

/* Passes over what there is of a long question; true at its end. */
static bool
pass_over(struct cm_hook_line *line)
{
    size_t n = line->skip < line->len ? line->skip : line->len;
    drop(line, n);
    line->skip -= n;
    return line->skip == 0;
}

enum cm_socketmap_state
cm_hook_line_next(struct cm_hook_line *line,
                  struct cm_socketmap_request *request_r)
{
    if (line->skip == 0) {
        enum cm_socketmap_state state =
            cm_socketmap_parse(line->data, line->len, request_r);
        if (state != CM_SOCKETMAP_LONG)
            return state;
        line->skip = request_r->bytes;
    }
    return pass_over(line) ? CM_SOCKETMAP_LONG : CM_SOCKETMAP_MORE;
}

void
cm_hook_line_forget(struct cm_hook_line *line,
                    const struct cm_socketmap_request *request)
{
    drop(line, request->bytes);
}

static bool
answer(struct cm_hook_line *line, const char *text, size_t len)
{
    return len > 0 && send(line->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL) ==
                          (ssize_t)len;
}

bool
cm_hook_line_found(struct cm_hook_line *line, const char *value)
{
    char text[ANSWER_BYTES];
    return answer(line, text, cm_socketmap_print_ok(text, sizeof text, value));
}

bool
cm_hook_line_pass(struct cm_hook_line *line)
{
    char text[ANSWER_BYTES];
    return answer(line, text, cm_socketmap_print_notfound(text, sizeof text));
}
