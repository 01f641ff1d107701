/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_EVENTS_H
#define CM_API_EVENTS_H

#include "admin/router.h"

/*
 * GET /api/v1/events: what happened, a page at a time. Newest first, from
 * `?before=` on if given; with `?after=` oldest first from there on, which is
 * how to poll. `?limit=` 1..1000 (100), and the parameters of event_filter.h.
 * Who accepts text/event-stream gets a stream instead (api_stream.h). `next` of
 * the answer is the cursor for the next page in the same direction,
 * null when there is nothing older.
 */
cm_route_fn cm_api_events;

#endif
