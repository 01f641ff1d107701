/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_RULES_H
#define CM_API_RULES_H

#include "admin/router.h"

/*
 * /api/v1/rules: the fault rules, an ordered list; the first that matches and
 * whose coin falls heads decides.
 *
 *   GET    /rules                page by page, with hits; ?limit= ?after=;
 *                                ?face=all: those of all APIs, in the order of
 *                                evaluation, with what each compiled to
 *   POST   /rules                a new one, at the end, or ?before= ?after= ID
 *   DELETE /rules?confirm=all    all of them
 *   GET, PUT, DELETE /rules/ID   one; ETag, If-Match, If-None-Match
 *   POST   /rules/ID/move        {"before": ID} or {"after": ID}
 *   POST   /rules/ID/enable, /rules/ID/disable
 */
cm_route_fn cm_api_rule_list;
cm_route_fn cm_api_rule_create;
cm_route_fn cm_api_rule_delete_all;
cm_route_fn cm_api_rule_get;
cm_route_fn cm_api_rule_put;
cm_route_fn cm_api_rule_delete;
cm_route_fn cm_api_rule_move;
cm_route_fn cm_api_rule_enable;
cm_route_fn cm_api_rule_disable;

#endif
