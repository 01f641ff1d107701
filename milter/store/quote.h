/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_QUOTE_H
#define CM_QUOTE_H

#include <stddef.h>

struct cm_buf;

/* cm_quote_json - append len bytes as a JSON string with its quotes. Bytes that
 * are not valid UTF-8 become "?": keys and replies may hold anything. */
void cm_quote_json(struct cm_buf *buf, const char *text, size_t len);

#endif
