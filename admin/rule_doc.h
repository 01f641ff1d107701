/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULE_DOC_H
#define CM_RULE_DOC_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

struct cm_api;
struct cm_doc;
struct cm_request;
struct cm_response;
struct json_t;

/*
 * A rule document on its way from a request to Redis: checked by the model, its
 * id put in, printed. Where one returns false, res is the answer.
 */
#define CM_RULE_ID_BYTES 65

struct cm_rule_text {
    char id[CM_RULE_ID_BYTES];
    char *text; /* owned */
    size_t len;
};

/*
 * cm_rule_doc_read - the body of the request as a rule.
 *
 * id  under which it is kept, and which the document's own must equal; NULL:
 *     the document's, or else a new one is made
 *
 * 422 names every member that is wrong.
 */
bool cm_rule_doc_read(struct cm_api *api, const struct cm_request *req,
                      const char *id, struct cm_rule_text *text_r,
                      struct cm_response *res);
void cm_rule_text_fini(struct cm_rule_text *text);

/* cm_rule_doc_json - a stored rule as JSON, a new reference; NULL: it is none,
 * and why (256 bytes, may be NULL) says so. What is JSON and no valid rule is
 * returned with why set, "" otherwise. */
struct json_t *cm_rule_doc_json(const struct cm_api *api, const char *id,
                                const struct cm_doc *doc, char *why);

#endif
