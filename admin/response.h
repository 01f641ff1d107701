/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RESPONSE_H
#define CM_RESPONSE_H

#include "milter/err.h"

#include <stddef.h>

struct cm_outflow;
struct cm_request;
struct json_t;

/*
 * The answer to one request, filled by a handler and sent by http.c. Errors are
 * written in the shape that the path's clients expect: VaultSandbox's
 * {"message","error","statusCode"}, or problem JSON (RFC 9457) for our own API.
 */
#define CM_RESPONSE_HEADERS_MAX 8

struct cm_response_header {
    char name[32];
    char value[160];
};
struct cm_response {
    int status;               /* 0 until set */
    const char *content_type; /* static; NULL: no body, no type */
    char *body;               /* owned */
    size_t len;
    struct cm_outflow *outflow; /* owned; instead of a body */
    size_t nheader;
    struct cm_response_header header[CM_RESPONSE_HEADERS_MAX];
};

void cm_response_fini(struct cm_response *res);

/* cm_response_header - add a header; too many, too long or with bytes outside
 * 0x20..0x7E is our own bug and asserted. */
void cm_response_header(struct cm_response *res, const char *name,
                        const char *fmt, ...) CM_PRINTF(3, 4);

/* cm_response_empty - a status alone, e.g. 204. */
void cm_response_empty(struct cm_response *res, int status);

/* cm_response_json - take the reference to json and print it as the body; a
 * NULL json (out of memory while it was built) becomes a 500. */
void cm_response_json(struct cm_response *res, int status, struct json_t *json);

/* cm_response_text - JSON (or other text of this type) that is already
 * printed; text is taken, NULL becomes a 500. */
void cm_response_text(struct cm_response *res, int status,
                      const char *content_type, char *text, size_t len);

/* cm_response_flow - a body of this type that goes on; flow is taken. */
void cm_response_flow(struct cm_response *res, const char *content_type,
                      struct cm_outflow *flow);

/* cm_response_fail - an error with one sentence, in the shape of req's face.
 * What was set before is replaced, headers stay. */
void cm_response_fail(struct cm_response *res, const struct cm_request *req,
                      int status, const char *fmt, ...) CM_PRINTF(4, 5);

/* cm_response_fail_all - the same with several: an array of sentences as
 * "message", or "errors" of the problem document. */
struct cm_problems;
void cm_response_fail_all(struct cm_response *res, const struct cm_request *req,
                          int status, const struct cm_problems *problems);

#endif
