/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CTL_CLIENT_H
#define CM_CTL_CLIENT_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

struct json_t;

/*
 * HTTP to the admin daemon. One connection, kept open between calls. Not
 * thread-safe.
 */
struct cm_ctl_client;

struct cm_ctl_answer {
    long status;         /* of HTTP */
    struct json_t *json; /* owned; NULL: no body, or none that is JSON */
    char *text;          /* owned, NUL-terminated; "" without a body */
    char etag[64];       /* "" without */
};

/* All texts are copied. key, ca_file (PEM, trusted instead of the system's)
 * may be NULL. CM_OK, CM_EINVAL (the URL), CM_ENOMEM. */
enum cm_status cm_ctl_client_new(struct cm_ctl_client **client_r,
                                 const char *url, const char *key,
                                 const char *ca_file,
                                 struct cm_err *err) CM_MUST_CHECK;
void cm_ctl_client_free(struct cm_ctl_client **client);

/*
 * cm_ctl_call - one request.
 *
 * path      from "/" on; what a person typed goes through cm_ctl_escape first
 * body      borrowed; NULL: none
 * if_match  an ETag that must still hold, or NULL
 * answer_r  out on CM_OK, whatever the status; cm_ctl_answer_fini it
 *
 * CM_OK; CM_EIO, CM_ETIMEOUT: nobody answered, err says why; CM_ENOMEM.
 */
enum cm_status cm_ctl_call(struct cm_ctl_client *client, const char *method,
                           const char *path, const struct json_t *body,
                           const char *if_match, struct cm_ctl_answer *answer_r,
                           struct cm_err *err) CM_MUST_CHECK;
void cm_ctl_answer_fini(struct cm_ctl_answer *answer);

/* cm_ctl_stream - read an event stream for as long as it lasts: `line` gets
 * each line without its end, and ends it by returning false. */
typedef bool cm_ctl_line_fn(void *arg, const char *line);
enum cm_status cm_ctl_stream(struct cm_ctl_client *client, const char *path,
                             const char *last_id, cm_ctl_line_fn *line,
                             void *arg, long *http_status_r,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_ctl_escape - text for one segment or value of a URL, in %XX; the caller's
 * to free(). NULL: no memory. */
char *cm_ctl_escape(const char *text);

#endif
