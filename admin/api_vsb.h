/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_VSB_H
#define CM_API_VSB_H

#include "admin/router.h"

/* The rest of VaultSandbox's face: what its clients ask before they begin, and
 * its metrics. */
cm_route_fn cm_api_check_key;
cm_route_fn cm_api_server_info;
cm_route_fn cm_api_metrics;

#endif
