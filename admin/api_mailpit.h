/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_MAILPIT_H
#define CM_API_MAILPIT_H

#include "admin/router.h"

/*
 * Mailpit's chaos API, /api/v1/chaos: three triggers, which PUT replaces all at
 * once. Its errors are bare text, as Mailpit's are, also while chaos is not
 * armed.
 */
cm_route_fn cm_api_mailpit_get;
cm_route_fn cm_api_mailpit_set;

#endif
