/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/unit/mock_smfi.h"

#include <libmilter/mfapi.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct mock_smfi mock_smfi;

void
mock_smfi_reset(void)
{
    void *priv = mock_smfi.priv;
    memset(&mock_smfi, 0, sizeof mock_smfi);
    mock_smfi.priv = priv;
}

char *
smfi_getsymval(SMFICTX *ctx, char *name)
{
    const char *value = NULL;
    (void)ctx;
    if (strcmp(name, "i") == 0)
        value = mock_smfi.queue_id;
    else if (strcmp(name, "{auth_authen}") == 0)
        value = mock_smfi.auth_authen;
    else if (strcmp(name, "v") == 0)
        value = mock_smfi.version;
    return (char *)value;
}

int
smfi_setmlreply(SMFICTX *ctx, const char *code, const char *enhanced, ...)
{
    va_list ap;
    const char *line;
    (void)ctx;
    if (mock_smfi.refuse_reply)
        return MI_FAILURE;
    snprintf(mock_smfi.code, sizeof mock_smfi.code, "%s", code);
    snprintf(mock_smfi.enhanced, sizeof mock_smfi.enhanced, "%s",
             enhanced ? enhanced : "");
    mock_smfi.nlines = 0;
    va_start(ap, enhanced);
    while (mock_smfi.nlines < 32 && (line = va_arg(ap, const char *)))
        snprintf(mock_smfi.lines[mock_smfi.nlines++], 1024, "%s", line);
    va_end(ap);
    return MI_SUCCESS;
}

int
smfi_delrcpt(SMFICTX *ctx, char *rcpt)
{
    (void)ctx;
    if (mock_smfi.refuse_delete || mock_smfi.ndeleted == MOCK_DELETED_MAX)
        return MI_FAILURE;
    snprintf(mock_smfi.deleted[mock_smfi.ndeleted++], 400, "%s", rcpt);
    return MI_SUCCESS;
}

int
smfi_setpriv(SMFICTX *ctx, void *priv)
{
    (void)ctx;
    mock_smfi.priv = priv;
    return MI_SUCCESS;
}

void *
smfi_getpriv(SMFICTX *ctx)
{
    (void)ctx;
    return mock_smfi.priv;
}
