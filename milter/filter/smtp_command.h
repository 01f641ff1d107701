/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SMTP_COMMAND_H
#define CM_SMTP_COMMAND_H

#include "milter/model/stage.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * What one line of an SMTP client says, as far as rules ask: which stage it is,
 * and of AUTH the mechanism and the login. Never the password: it is decoded
 * on the stack, and the stack is wiped.
 */
#define CM_SMTP_COMMAND_TEXT 256

struct cm_smtp_command {
    enum cm_stage stage;
    char mechanism[21]; /* upper case; "" when not known (RFC 4422 3.1) */
    char user[CM_SMTP_COMMAND_TEXT]; /* the login; "" when not known */
    char helo[CM_SMTP_COMMAND_TEXT]; /* the name; "" when not known */
};

/*
 * cm_smtp_command_read - line is len bytes without its end; it may hold
 * anything.
 *
 * false: a command that is answered elsewhere (MAIL, RCPT, DATA) or that
 * nobody can name a rule for; command_r is untouched. A known verb with any
 * arguments, good or bad, is true: what cannot be told stays "".
 *
 * The login of AUTH is known for PLAIN (the name whose password follows, not
 * the one acted for) and LOGIN, when they come with an initial response; RFC
 * 4954 4, RFC 4616 2. Allocates nothing. Thread-safe.
 */
bool cm_smtp_command_read(struct cm_smtp_command *command_r, const char *line,
                          size_t len);

#endif
