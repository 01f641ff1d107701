/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SOCKETMAP_H
#define CM_SOCKETMAP_H

#include <stddef.h>

/*
 * The wire of a socketmap, Sendmail's and Postfix's protocol for a table that a
 * process answers: a netstring "<len>:<map> <key>," for each question, and one
 * "<len>:OK <value>," or "<len>:NOTFOUND ," for each answer. Pure: bytes in,
 * bytes out. Source: socketmap_table(5), Postfix 3.7.
 */

/* The longest question that is looked at: an AUTH line may have 12288 bytes
 * (RFC 4954 4), and the map's name comes before it. */
#define CM_SOCKETMAP_REQUEST_MAX 12800
/* With its length, colon and comma: what a buffer must hold. */
#define CM_SOCKETMAP_BYTES_MAX (CM_SOCKETMAP_REQUEST_MAX + 16)
/* Beyond this it is no line of SMTP, but a peer that speaks something else. */
#define CM_SOCKETMAP_SKIP_MAX (1 << 20)

enum cm_socketmap_state {
    CM_SOCKETMAP_MORE,  /* not whole yet */
    CM_SOCKETMAP_WHOLE, /* a question */
    CM_SOCKETMAP_LONG,  /* a question longer than we look at */
    CM_SOCKETMAP_BAD    /* not this protocol: close the connection */
};

/* One question; the texts lie in the buffer that was parsed and are not
 * NUL-terminated. */
struct cm_socketmap_request {
    const char *map;
    size_t map_len;
    const char *key;
    size_t key_len;
    size_t bytes; /* of the whole netstring; when LONG more than there are */
};

/*
 * cm_socketmap_parse - the first question among len bytes at data.
 *
 * request_r  WHOLE: all of it; LONG: bytes alone, all of which must be passed
 *            over; else untouched
 *
 * Allocates nothing. Thread-safe.
 */
enum cm_socketmap_state
cm_socketmap_parse(const char *data, size_t len,
                   struct cm_socketmap_request *request_r);

/* cm_socketmap_print_ok, cm_socketmap_print_notfound - an answer into out, at
 * most cap bytes without a NUL. The number of bytes, 0 when it does not fit. */
size_t cm_socketmap_print_ok(char *out, size_t cap, const char *value);
size_t cm_socketmap_print_notfound(char *out, size_t cap);

#endif
