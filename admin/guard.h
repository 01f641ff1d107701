/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_GUARD_H
#define CM_GUARD_H

#include <stdbool.h>
#include <stddef.h>

struct cm_request;

/*
 * What the head of a request must not look like, checked before a byte of its
 * body is read and before any handler sees it. Whatever could be understood in
 * two ways (request smuggling, RFC 9112 11.2), comes from a foreign page
 * (CSRF, DNS rebinding) or would fill our memory is refused here.
 */
struct cm_guard {
    const char *const *hosts; /* names allowed in Host, without port */
    size_t nhosts;            /* beside localhost and IP loopback */
};

struct cm_refusal {
    int status;
    const char *detail; /* static; a whole sentence without a full stop */
};

/*
 * cm_guard_check - true when the request may go on; else *refusal_r is set, and
 * the connection must be closed after the answer, because where the next
 * request would begin is not certain.
 */
bool cm_guard_check(const struct cm_guard *guard, const struct cm_request *req,
                    struct cm_refusal *refusal_r);

/* cm_guard_is_json - is this Content-Type application/json in UTF-8? */
bool cm_guard_is_json(const char *content_type);

#endif
