/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_OWN_INBOXES_H
#define CM_API_OWN_INBOXES_H

#include "admin/router.h"

/*
 * /api/v1/inboxes: the configurations of inboxes, the same documents as
 * VaultSandbox's API sets, for those who have many.
 *
 *   GET    /inboxes                    ?prefix= ?after= ?limit=, in byte order
 *   DELETE /inboxes?confirm=all        or ?prefix=load-&confirm=load-
 *   GET, PUT, DELETE /inboxes/ADDRESS  one; ETag, If-Match, If-None-Match;
 *                                      GET ?compiled=true: as rules
 *   POST   /inboxes/set                {"inboxes": [{"address", "chaos"}]}, or
 *                                      {"addresses": [...], "chaos": {...}}
 *   POST   /inboxes/clear              {"addresses": [...]}
 *   POST   /inboxes/populate           {"pattern": "u{1..9}@x", "chaos": {...}}
 *
 * The first two of these take up to CM_BULK_MAX inboxes and change all or none;
 * populate takes up to CM_POPULATE_MAX, so many at once, and can be repeated.
 */
#define CM_BULK_MAX     1000
#define CM_POPULATE_MAX 10000

cm_route_fn cm_api_own_inbox_list;
cm_route_fn cm_api_own_inbox_get;
cm_route_fn cm_api_own_inbox_put;
cm_route_fn cm_api_own_inbox_delete;
cm_route_fn cm_api_own_inbox_delete_many;
cm_route_fn cm_api_bulk_set;
cm_route_fn cm_api_bulk_clear;
cm_route_fn cm_api_populate;

#endif
