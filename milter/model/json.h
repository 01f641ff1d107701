/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_JSON_H
#define CM_JSON_H

#include "milter/err.h"

#include <stddef.h>

struct json_t; /* jansson's */

#define CM_JSON_DEPTH_MAX 32

/*
 * cm_json_parse - text to a JSON value, refusing what a careful server refuses:
 * duplicate members, NaN, trailing data, a BOM, NUL, invalid UTF-8, nesting
 * beyond CM_JSON_DEPTH_MAX. *json_r is a new reference (json_decref). Any value
 * may stand at the top: whether it is the right one, the reader of the document
 * can say better. CM_EINVAL with line and column in err, CM_ENOMEM.
 */
enum cm_status cm_json_parse(struct json_t **json_r, const char *text,
                             size_t len, struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_json_dump - one line, members in their order, integers as integers, reals
 * with at most 15 digits. NUL-terminated, the caller's to free(); NULL when out
 * of memory.
 */
char *cm_json_dump(const struct json_t *json, size_t *len_r);

/*
 * cm_json_canonical - a text that two values share when they are equal as JSON:
 * the order of members does not matter, nor whether a number is written 1 or
 * 1.0; everything else does. Reals count to 15 digits. As cm_json_dump.
 */
char *cm_json_canonical(const struct json_t *json);

#endif
