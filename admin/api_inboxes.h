/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_INBOXES_H
#define CM_API_INBOXES_H

#include "admin/router.h"

/*
 * /api/inboxes: make, list and remove inboxes.
 *
 * The list is ours (VaultSandbox has none): every inbox that was made or has a
 * configuration, in byte order, `?limit=` (1..1000, 100) at a time, from
 * `?prefix=` on, after the one named by `?after=`.
 */
cm_route_fn cm_api_inbox_list;
cm_route_fn cm_api_inbox_create;
cm_route_fn cm_api_inbox_delete;

#endif
