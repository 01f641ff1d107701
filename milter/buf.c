/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_BUF_FIRST 64

void
cm_buf_init(struct cm_buf *buf, size_t ceiling_bytes)
{
    memset(buf, 0, sizeof *buf);
    buf->ceiling = ceiling_bytes;
}

void
cm_buf_fini(struct cm_buf *buf)
{
    free(buf->data);
    buf->data = NULL;
    buf->len = buf->cap = 0;
}

void
cm_buf_reset(struct cm_buf *buf)
{
    buf->len = 0;
    buf->status = CM_OK;
    if (buf->data)
        buf->data[0] = '\0';
}

/* Makes room for more bytes and the NUL; false latches the status. */
static int
reserve(struct cm_buf *buf, size_t more)
{
    if (buf->status != CM_OK)
        return 0;
    if (more > buf->ceiling - buf->len) {
        buf->status = CM_EINVAL;
        return 0;
    }
    size_t need = buf->len + more + 1;
    if (need <= buf->cap)
        return 1;
    /* Twice what it was, so that many small appends copy little. */
    size_t cap = buf->cap > 0 ? buf->cap : CM_BUF_FIRST / 2;
    cap = cap > buf->ceiling / 2 ? buf->ceiling + 1 : cap * 2;
    if (cap < need)
        cap = need;
    char *data = realloc(buf->data, cap);
    if (!data) {
        buf->status = CM_ENOMEM;
        return 0;
    }
    buf->data = data;
    buf->cap = cap;
    return 1;
}

void
cm_buf_add(struct cm_buf *buf, const void *data, size_t len)
{
    if (!reserve(buf, len))
        return;
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void
cm_buf_puts(struct cm_buf *buf, const char *s)
{
    cm_buf_add(buf, s, strlen(s));
}

void
cm_buf_printf(struct cm_buf *buf, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && reserve(buf, (size_t)n)) {
        vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, again);
        buf->len += (size_t)n;
    }
    va_end(again);
}

enum cm_status
cm_buf_status(const struct cm_buf *buf)
{
    return buf->status;
}

char *
cm_buf_take(struct cm_buf *buf, size_t *len_r)
{
    char *data = NULL;
    if (buf->status == CM_OK)
        data = buf->data;
    else
        free(buf->data);
    if (len_r)
        *len_r = data ? buf->len : 0;
    buf->data = NULL;
    buf->len = buf->cap = 0;
    buf->status = CM_OK;
    return data;
}
