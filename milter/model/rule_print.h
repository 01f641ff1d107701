/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULE_PRINT_H
#define CM_RULE_PRINT_H

#include "milter/model/rule.h"

struct json_t; /* jansson's */

/*
 * The other way round of rule_json.h: what a document of any face compiled to,
 * as a rule document of our own, with every default said. Compiled again it is
 * the same rule. What a document did not say and no default fills (an expiry, a
 * seed) is left out.
 *
 * Both return a new reference, NULL when out of memory.
 */
struct json_t *cm_rule_json(const struct cm_rule *rule);
struct json_t *cm_fault_json(const struct cm_fault *fault);

#endif
