/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The names of the stages, in one table: documents, events and logs all spell
 * them through here.
 */
#include "milter/model/stage.h"
#include "milter/model/ascii.h"

#include <stdio.h>

static const char *const names[CM_STAGE_COUNT] = {
    [CM_STAGE_CONNECT] = "connect",   [CM_STAGE_HELO] = "helo",
    [CM_STAGE_STARTTLS] = "starttls", [CM_STAGE_AUTH] = "auth",
    [CM_STAGE_MAIL] = "mail",         [CM_STAGE_RCPT] = "rcpt",
    [CM_STAGE_DATA] = "data",         [CM_STAGE_MESSAGE] = "message",
    [CM_STAGE_NOOP] = "noop",         [CM_STAGE_RSET] = "rset",
    [CM_STAGE_VRFY] = "vrfy",         [CM_STAGE_QUIT] = "quit",
};

const char *
cm_stage_name(enum cm_stage stage)
{
    if ((unsigned)stage >= CM_STAGE_COUNT)
        return "unknown";
    return names[stage];
}

enum cm_status
cm_stage_parse(const char *name, enum cm_stage *stage_r)
{
    for (int i = 0; i < CM_STAGE_COUNT; i++) {
        if (cm_ascii_equal(name, names[i])) {
            *stage_r = (enum cm_stage)i;
            return CM_OK;
        }
    }
    return CM_NOTFOUND;
}

void
cm_stage_list(unsigned stages, char *out, size_t cap)
{
    size_t at = 0;
    if (cap > 0)
        out[0] = '\0';
    for (int i = 0; i < CM_STAGE_COUNT && at < cap; i++) {
        if (stages & CM_STAGE_BIT(i))
            at += (size_t)snprintf(out + at, cap - at, "%s%s",
                                   at > 0 ? ", " : "", names[i]);
    }
}
