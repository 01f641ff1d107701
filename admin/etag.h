/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ETAG_H
#define CM_ETAG_H

#include <stdbool.h>
#include <stdint.h>

struct cm_request;
struct cm_response;

/*
 * Lost updates, avoided as RFC 9110 13 says: the entity tag of a document is
 * its revision in quotes, "0" while there is none.
 */

/* cm_etag_asked - does the request have If-Match or If-None-Match? */
bool cm_etag_asked(const struct cm_request *req);

/* cm_etag_holds - may a change go on, given the revision that is there now (0:
 * none)? If-Match: "*" or a list of tags, one of which must be it; a weak tag
 * never is. If-None-Match: the other way round. */
bool cm_etag_holds(const struct cm_request *req, int64_t rev);

void cm_etag_set(struct cm_response *res, int64_t rev);

#endif
