/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_STAGE_H
#define CM_STAGE_H

#include "milter/err.h"

#include <stddef.h>

/*
 * Where in an SMTP session a rule is matched and its fault acts: the command
 * whose reply it changes; message is the reply after the final dot.
 */
enum cm_stage {
    CM_STAGE_CONNECT,
    CM_STAGE_HELO,
    CM_STAGE_STARTTLS,
    CM_STAGE_AUTH,
    CM_STAGE_MAIL,
    CM_STAGE_RCPT,
    CM_STAGE_DATA,
    CM_STAGE_MESSAGE,
    CM_STAGE_NOOP,
    CM_STAGE_RSET,
    CM_STAGE_VRFY,
    CM_STAGE_QUIT,
    CM_STAGE_COUNT
};

#define CM_STAGE_BIT(stage) (1u << (stage))
#define CM_STAGES_ALL       (CM_STAGE_BIT(CM_STAGE_COUNT) - 1u)

/* cm_stage_name - lower-case name as documents spell it; static, never NULL. */
const char *cm_stage_name(enum cm_stage stage);

/* cm_stage_parse - by name, without case. CM_OK or CM_NOTFOUND. */
enum cm_status cm_stage_parse(const char *name,
                              enum cm_stage *stage_r) CM_MUST_CHECK;

/* cm_stage_list - "rcpt, data, message": the stages of a set of CM_STAGE_BITs,
 * cut to cap with its NUL. */
void cm_stage_list(unsigned stages, char *out, size_t cap);

#endif
