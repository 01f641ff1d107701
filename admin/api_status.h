/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_STATUS_H
#define CM_API_STATUS_H

#include "admin/router.h"

/*
 * How we and the filters are. /livez: this process answers. /readyz: and it
 * can work; the reasons are told to loopback only. /api/v1/status: the fleet,
 * which must be answered in trouble most of all, so Redis being away is a
 * member of it and not an error.
 */
cm_route_fn cm_api_livez;
cm_route_fn cm_api_readyz;
cm_route_fn cm_api_status;

#endif
