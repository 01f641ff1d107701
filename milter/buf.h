/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_BUF_H
#define CM_BUF_H

#include "milter/err.h"

#include <stddef.h>

/*
 * A growing byte buffer that cannot outgrow the ceiling given at init. A failed
 * append (ceiling or memory) latches: every later append is a no-op and
 * cm_buf_status tells, so a writer checks once, at the end.
 * data is always NUL-terminated once something was appended; NULL before.
 */
struct cm_buf {
    char *data;
    size_t len;
    size_t cap;
    size_t ceiling; /* most bytes of content, without the NUL */
    enum cm_status status;
};

void cm_buf_init(struct cm_buf *buf, size_t ceiling_bytes);
void cm_buf_fini(struct cm_buf *buf);
void cm_buf_reset(struct cm_buf *buf);

/* cm_buf_add - append len bytes (may hold NUL). */
void cm_buf_add(struct cm_buf *buf, const void *data, size_t len);
void cm_buf_puts(struct cm_buf *buf, const char *s);
void cm_buf_printf(struct cm_buf *buf, const char *fmt, ...) CM_PRINTF(2, 3);

/* cm_buf_status - CM_OK, CM_ENOMEM, or CM_EINVAL when the ceiling was hit. */
enum cm_status cm_buf_status(const struct cm_buf *buf) CM_MUST_CHECK;

/* cm_buf_take - the content, now the caller's to free(); NULL after a failed
 * append or when nothing was written. The buffer is empty afterwards. */
char *cm_buf_take(struct cm_buf *buf, size_t *len_r);

#endif
