/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/hook_line.h"
#include "milter/filter/peer.h"

#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES 512

enum cm_status
cm_hook_line_open(struct cm_hook_line *line_r, int fd)
{
    *line_r = (struct cm_hook_line){.fd = fd, .process = cm_peer_process(fd)};
    enum cm_status status =
        cm_secret_open(&line_r->asked, CM_SOCKETMAP_BYTES_MAX);
    if (status != CM_OK)
        close(fd);
    return status;
}

void
cm_hook_line_close(struct cm_hook_line *line)
{
    cm_secret_close(&line->asked);
    close(line->fd);
    line->fd = -1;
}

bool
cm_hook_line_receive(struct cm_hook_line *line)
{
    return cm_secret_receive(&line->asked, line->fd) != CM_SECRET_END;
}

/* Passes over what there is of a long question; true at its end. */
static bool
pass_over(struct cm_hook_line *line)
{
    size_t n = line->skip < line->asked.len ? line->skip : line->asked.len;
    cm_secret_forget(&line->asked, n);
    line->skip -= n;
    return line->skip == 0;
}

enum cm_socketmap_state
cm_hook_line_next(struct cm_hook_line *line,
                  struct cm_socketmap_request *request_r)
{
    if (line->skip == 0) {
        enum cm_socketmap_state state =
            cm_socketmap_parse(line->asked.data, line->asked.len, request_r);
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
    cm_secret_forget(&line->asked, request->bytes);
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
