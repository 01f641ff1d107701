/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULE_JSON_H
#define CM_RULE_JSON_H

#include "milter/err.h"
#include "milter/model/inbox_json.h"
#include "milter/model/json.h"
#include "milter/model/problem.h"
#include "milter/model/rfc3339.h"
#include "milter/model/rule.h"

#include <stddef.h>

struct json_t; /* jansson's; only callers that hold one see it */

/*
 * Where JSON meets the model; json.h, inbox_json.h and rfc3339.h belong to it.
 * The same checks run when a document is written by the API and when it is read
 * back from Redis, where anybody may have put anything.
 *
 * cm_rule_compile - one rule document of our own API.
 *
 * rule_r    the caller's storage, overwritten on CM_OK: then cm_rule_fini it
 * id        used when the document has none of its own, which must equal it
 *           when both are there; NULL: the document must have one.
 *           `[A-Za-z0-9._-]{1,64}`
 * flags     as in cm_address_parse
 * problems  gets every fault, also a stage where the fault cannot act or a
 *           condition cannot be known; not NULL
 *
 * CM_OK, CM_EINVAL (see problems), CM_ENOMEM.
 */
enum cm_status cm_rule_compile(struct cm_rule *rule_r, const char *id,
                               const struct json_t *doc, unsigned flags,
                               struct cm_problems *problems) CM_MUST_CHECK;

#endif
