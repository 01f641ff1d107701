/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_STREAM_H
#define CM_API_STREAM_H

#include "admin/router.h"

#include <stdbool.h>

/*
 * GET /api/v1/events of who accepts text/event-stream: what happens, as it
 * happens. The parameters of event_filter.h select; the header Last-Event-ID,
 * or `?after=`, resumes behind an event; `?ticket=` will do for the key.
 */
cm_route_fn cm_api_stream;
/* cm_api_stream_wanted - does the request ask for that? */
bool cm_api_stream_wanted(const struct cm_request *req);

/* GET /api/sse-console/stream: VaultSandbox's console, a line for each event.
 */
cm_route_fn cm_api_console;

/* POST /api/v1/events/ticket: a ticket for one stream. */
cm_route_fn cm_api_ticket;

#endif
