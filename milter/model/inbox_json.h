/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_INBOX_JSON_H
#define CM_INBOX_JSON_H

#include "milter/err.h"
#include "milter/model/inbox.h"
#include "milter/model/problem.h"

#include <stddef.h>

struct json_t; /* jansson's */

/*
 * cm_inbox_normalize - check a VaultSandbox chaos configuration and fill its
 * defaults: *out_r is a new reference to the canonical object (members in
 * VaultSandbox's order, `null` and absent alike, 1.0 as 1).
 *
 * prefix    put before each sentence and path, e.g. "chaos." or ""
 * problems  gets every fault; not NULL
 *
 * CM_OK, CM_EINVAL (see problems), CM_ENOMEM.
 *
 * Members of our own, all optional and absent from the answer unless given:
 * `seed` 0..2^63-1, `description` up to 8192 characters, and `stage` where the
 * fault acts: of latency rcpt, data or message (default message), of
 * randomError the same (default rcpt), of greylist rcpt or message (default
 * rcpt). Not mail: at MAIL nobody knows yet which inbox is meant.
 */
enum cm_status cm_inbox_normalize(struct json_t **out_r,
                                  const struct json_t *in, const char *prefix,
                                  struct cm_problems *problems) CM_MUST_CHECK;

/*
 * cm_inbox_compile - a configuration (normalized or not) as rules. doc/len is
 * JSON text of at most CM_INBOX_DOC_MAX bytes. *inbox_r has one reference. The
 * rules of an inbox carry the ids "drop", "greylist", "randomError",
 * "blackhole", "latency".
 *
 * Numbers that the API takes but no run can reach are brought into the model's
 * range: a window beyond a year is a year, more attempts than a million are a
 * million. Fractions: of an attempt, the next whole one; of a millisecond, the
 * nearest.
 *
 * CM_OK, CM_EINVAL, CM_ENOMEM; err holds the first fault's sentence.
 */
enum cm_status cm_inbox_compile(struct cm_inbox **inbox_r, const char *doc,
                                size_t len, struct cm_err *err) CM_MUST_CHECK;

#endif
