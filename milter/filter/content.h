/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CONTENT_H
#define CM_CONTENT_H

#include "milter/model/event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the session keeps of a message, because some rule asks for it, and no
 * more than these. Beyond the first two no header of the message is known;
 * beyond the third its body can be cut short, but no longer be kept whole.
 *
 * The second is well below 60,000 bytes, where Postfix cuts a header short that
 * it tells a milter (seen on 3.7): what is known is known whole.
 */
#define CM_CONTENT_HEADERS_MAX      1000
#define CM_CONTENT_HEADER_BYTES_MAX ((size_t)32 * 1024)
#define CM_CONTENT_BODY_BYTES_MAX   ((size_t)10 * 1024 * 1024)

struct cm_content {
    int64_t declared_bytes; /* SIZE= of MAIL; -1: not given */
    int64_t bytes;          /* received: headers and body, as SIZE= counts */
    bool bytes_lost;        /* a header may have been told in part */

    struct cm_header *headers; /* owned; those that a rule names, unfolded */
    size_t nheaders, headers_cap, header_bytes;
    const char *headers_lost; /* why none is known; NULL */

    unsigned char *body; /* owned; the first body_len bytes of it */
    size_t body_len, body_cap;
    int64_t body_bytes; /* received of the body */
    bool body_skipped;  /* the rest was declined */
    bool no_memory;
};

/* cm_content_init - nothing yet. cm_content_fini - free what was kept; a zeroed
 * content may be passed. */
void cm_content_init(struct cm_content *content);
void cm_content_fini(struct cm_content *content);

/* cm_content_declare - the parameters of MAIL, up to a NULL: SIZE=n is among
 * them or not (RFC 1870). */
void cm_content_declare(struct cm_content *content,
                        const char *const *parameters);

/* cm_content_header - one header came. It is kept when wanted. Names and values
 * without a name, or NULL, are counted and no more. */
void cm_content_header(struct cm_content *content, const char *name,
                       const char *value, bool wanted);

/* cm_content_body - more of the body came; its first `wanted` bytes are kept,
 * up to the ceiling. Returns false when nothing further is to be kept. */
bool cm_content_body(struct cm_content *content, const unsigned char *chunk,
                     size_t len, int64_t wanted);

/* cm_content_count - how many headers of this name were kept. */
int cm_content_count(const struct cm_content *content, const char *name);

#endif
