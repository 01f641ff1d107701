/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_CHAOS_H
#define CM_API_CHAOS_H

#include "admin/router.h"

/* /api/inboxes/:addr/chaos: one inbox's configuration, as VaultSandbox has it.
 * POST replaces it whole and answers its normalized form; DELETE forgets it. */
cm_route_fn cm_api_chaos_get;
cm_route_fn cm_api_chaos_set;
cm_route_fn cm_api_chaos_delete;

#endif
