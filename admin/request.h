/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_REQUEST_H
#define CM_REQUEST_H

#include "admin/target.h"
#include "milter/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct cm_route;

/*
 * One HTTP request as the rest of the daemon sees it: complete, within its
 * limits, and checked (guard.h). http.c fills it; nobody else writes to it but
 * for the members marked so.
 */
#define CM_REQUEST_HEADERS_MAX   64
#define CM_REQUEST_BODY_MAX      (1024 * 1024)
#define CM_REQUEST_CAPTURES      2
#define CM_REQUEST_KEY_ID_SIZE   9
#define CM_REQUEST_KEY_NAME_SIZE 65

enum cm_method {
    CM_METHOD_GET,
    CM_METHOD_HEAD,
    CM_METHOD_POST,
    CM_METHOD_PUT,
    CM_METHOD_PATCH,
    CM_METHOD_DELETE,
    CM_METHOD_OTHER /* OPTIONS, TRACE and whatever else: no route takes it */
};
enum cm_method cm_method_parse(const char *name);
const char *cm_method_name(enum cm_method method); /* "GET"; static */
/* cm_method_is_safe - GET and HEAD: changes nothing (RFC 9110 9.2.1). */
bool cm_method_is_safe(enum cm_method method);

struct cm_header {
    const char *name, *value; /* borrowed for the life of the request */
};

struct cm_peer {
    struct sockaddr_storage addr;
    char text[64]; /* "192.0.2.1", "2001:db8::1" */
    bool loopback;
};
void cm_peer_set(struct cm_peer *peer, const struct sockaddr *sa);

struct cm_request {
    enum cm_method method;
    bool http11; /* false: 1.0 */
    struct cm_target target;
    size_t nheader; /* as received; only the first so many are kept */
    struct cm_header header[CM_REQUEST_HEADERS_MAX];
    struct cm_buf body;
    struct cm_peer peer;
    char local[64]; /* the address of ours that was spoken to */
    int64_t started_us;

    /* Set while it is admitted. */
    const struct cm_route *route;
    const char *capture[CM_REQUEST_CAPTURES]; /* the ":names" of the pattern */
    char key_id[CM_REQUEST_KEY_ID_SIZE];      /* "" without a key */
    char key_name[CM_REQUEST_KEY_NAME_SIZE];  /* "" for those of the settings */
    unsigned scopes;                          /* enum cm_scope bits */
};

/* cm_request_header - the first header of this name (without case) or NULL;
 * cm_request_count - how many there are. */
const char *cm_request_header(const struct cm_request *req, const char *name);
size_t cm_request_count(const struct cm_request *req, const char *name);

/* cm_request_has_body - does its head announce a body of at least a byte? */
bool cm_request_has_body(const struct cm_request *req);

/* cm_request_is_own_api - errors under /api/v1 are problem documents, those of
 * the other paths are shaped like VaultSandbox's. */
bool cm_request_is_own_api(const struct cm_request *req);

#endif
