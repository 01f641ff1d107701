/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HOOK_LINE_H
#define CM_HOOK_LINE_H

#include "milter/err.h"
#include "milter/filter/secret.h"
#include "milter/filter/socketmap.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * One connection of the mail server to the command hook: questions come in,
 * answers go out, one at a time. A question may hold a password. Nothing here
 * waits.
 */
struct cm_hook_line {
    int fd;
    pid_t process; /* that asks; 0 when the kernel does not tell */
    struct cm_secret asked;
    size_t skip; /* of a question that is too long: bytes to pass over */
};

/* cm_hook_line_open - fd is taken over, also on failure. CM_OK, CM_ENOMEM. */
enum cm_status cm_hook_line_open(struct cm_hook_line *line_r,
                                 int fd) CM_MUST_CHECK;
void cm_hook_line_close(struct cm_hook_line *line);

/* cm_hook_line_receive - what has come. false: the other side has gone. */
bool cm_hook_line_receive(struct cm_hook_line *line);

/* cm_hook_line_next - the first question of what was received. WHOLE: it lies
 * in the line's memory until cm_hook_line_forget, which must follow. LONG: one
 * that must be answered, and no more is known of it. */
enum cm_socketmap_state
cm_hook_line_next(struct cm_hook_line *line,
                  struct cm_socketmap_request *request_r);
void cm_hook_line_forget(struct cm_hook_line *line,
                         const struct cm_socketmap_request *request);

/* cm_hook_line_found, cm_hook_line_pass - answer with a value, or that there is
 * none. false: the other side does not read its answers, or has gone. */
bool cm_hook_line_found(struct cm_hook_line *line, const char *value);
bool cm_hook_line_pass(struct cm_hook_line *line);

#endif
