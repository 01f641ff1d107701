/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_HALT_H
#define CM_API_HALT_H

#include "admin/router.h"

/*
 * /api/v1/halt and /api/v1/resume: the switch that beats every rule on every
 * filter, also while chaos is not armed. Both answer what is there now, and may
 * be repeated.
 */
cm_route_fn cm_api_halt_get;
cm_route_fn cm_api_halt;
cm_route_fn cm_api_resume;

#endif
