/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LAYOUT_H
#define CM_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

struct cm_header;

/*
 * The head of a request as libmicrohttpd cut it up: pointers into the one
 * buffer that it was received into.
 */
struct cm_layout {
    const char *method; /* the first byte of the head */
    size_t len;         /* bytes of the head, with the empty line */
    const char *target;
    size_t target_len; /* as received, with the query */
    const char *version;
    const struct cm_header *header; /* in the order received */
    size_t nheader;
};

/*
 * cm_layout_adds_up - do the pieces make up the very bytes that were received,
 * one blank between the words of the first line, CRLF after every line, and
 * nothing skipped? Looks at the pieces only, never at the bytes between them.
 */
bool cm_layout_adds_up(const struct cm_layout *layout);

#endif
