/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FAULT_JSON_H
#define CM_FAULT_JSON_H

#include "milter/err.h"
#include "milter/model/fault.h"
#include "milter/model/problem.h"

struct json_t; /* jansson's */

/*
 * cm_fault_compile - a fault document, {"kind": "error", "code": 451, ...}.
 *
 * fault_r   the caller's storage, overwritten on CM_OK: then cm_fault_fini it
 * doc       borrowed; anything, NULL included
 * name      of the member that holds it, put before each path and sentence
 *           ("fault")
 * flags     as in cm_address_parse
 * problems  gets every fault; not NULL
 *
 * CM_OK, CM_EINVAL (see problems), CM_ENOMEM. The stage is the rule's to check.
 */
enum cm_status cm_fault_compile(struct cm_fault *fault_r,
                                const struct json_t *doc, const char *name,
                                unsigned flags,
                                struct cm_problems *problems) CM_MUST_CHECK;

#endif
