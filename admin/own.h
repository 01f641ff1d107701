/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_OWN_H
#define CM_OWN_H

#include "milter/err.h"

#include <stdbool.h>

struct cm_member;
struct cm_problems;
struct cm_request;
struct cm_response;
struct json_t;

/*
 * What the handlers below /api/v1 have in common: bodies checked by a table,
 * 422 with every fault at once, queries without surprises. Where one returns
 * false, res is the answer.
 */

/* cm_own_body - the body as an object with the table's members alone, defaults
 * filled in; the caller's to json_decref. An empty body is {} where it may be
 * left out. */
bool cm_own_body(const struct cm_request *req, const struct cm_member *table,
                 bool may_be_empty, struct json_t **json_r,
                 struct cm_response *res);

/* cm_own_invalid - 422 with what is in problems. */
void cm_own_invalid(struct cm_response *res, const struct cm_request *req,
                    const struct cm_problems *problems);

/* cm_own_no_memory - 503. */
void cm_own_no_memory(struct cm_response *res, const struct cm_request *req);

/* cm_own_query - 400 when a query parameter is none of known (ended by NULL):
 * what is misspelt must not be passed over. */
bool cm_own_query(const struct cm_request *req, const char *const *known,
                  struct cm_response *res);

/* cm_own_number - the parameter as a whole number lo..hi; preset when it is not
 * there. */
bool cm_own_number(const struct cm_request *req, const char *name, int lo,
                   int hi, int preset, int *number_r, struct cm_response *res);

/* cm_own_confirmed - 400 unless ?confirm= is exactly this: for what removes
 * more than one thing. */
bool cm_own_confirmed(const struct cm_request *req, const char *wanted,
                      struct cm_response *res);

#endif
