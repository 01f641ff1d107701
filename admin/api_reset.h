/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_RESET_H
#define CM_API_RESET_H

#include "admin/router.h"

/*
 * POST /api/v1/reset: everything back to quiet. All inbox configurations,
 * rules, faults, triggers and effects go as one change; with {"state": true}
 * also what greylisting and the other stateful faults remember. The answer
 * counts what was removed. A halt stays, and so do events, totals, API keys and
 * the audit.
 */
cm_route_fn cm_api_reset;

#endif
