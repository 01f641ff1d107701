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
smfi_setreply(SMFICTX *ctx, char *code, char *enhanced, char *line)
{
    return smfi_setmlreply(ctx, code, enhanced, line, NULL);
}

/* One line of what was asked of the MTA, in its order. */
__attribute__((format(printf, 2, 3))) static int
note_edit(unsigned long action, const char *format, ...)
{
    size_t at = strlen(mock_smfi.edits);
    va_list ap;
    if (mock_smfi.refuse & action)
        return MI_FAILURE;
    va_start(ap, format);
    vsnprintf(mock_smfi.edits + at, sizeof mock_smfi.edits - at, format, ap);
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
    return note_edit(SMFIF_DELRCPT, "delrcpt %s\n", rcpt);
}

int
smfi_addrcpt(SMFICTX *ctx, char *rcpt)
{
    const char *refused = mock_smfi.refuse_adding;
    (void)ctx;
    if (refused && (*refused == '*' || strcmp(refused, rcpt) == 0))
        return MI_FAILURE;
    return note_edit(SMFIF_ADDRCPT, "addrcpt %s\n", rcpt);
}

int
smfi_quarantine(SMFICTX *ctx, char *reason)
{
    (void)ctx;
    return note_edit(SMFIF_QUARANTINE, "quarantine %s\n", reason);
}

int
smfi_addheader(SMFICTX *ctx, char *name, char *value)
{
    (void)ctx;
    return note_edit(SMFIF_ADDHDRS, "addheader %s: %s\n", name, value);
}

int
smfi_chgheader(SMFICTX *ctx, char *name, int index, char *value)
{
    (void)ctx;
    return note_edit(SMFIF_CHGHDRS, "chgheader %s %d %s\n", name, index,
                     value ? value : "(gone)");
}

/* As libmilter does, what is written twice is appended. */
int
smfi_replacebody(SMFICTX *ctx, unsigned char *body, int len)
{
    (void)ctx;
    if (len < 0 || (len > 0 && !body) ||
        (size_t)len > MOCK_BODY_MAX - mock_smfi.body_len)
        return MI_FAILURE;
    if (note_edit(SMFIF_CHGBODY, "replacebody %d\n", len) != MI_SUCCESS)
        return MI_FAILURE;
    if (len > 0)
        memcpy(mock_smfi.body + mock_smfi.body_len, body, (size_t)len);
    mock_smfi.body_len += (size_t)len;
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
