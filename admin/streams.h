/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_STREAMS_H
#define CM_STREAMS_H

#include "admin/event_filter.h"
#include "milter/err.h"
#include "milter/store/record.h"

#include <stddef.h>
#include <stdint.h>

struct cm_feed;
struct cm_outflow;

/*
 * Everybody who listens: event streams (Server-Sent Events, WHATWG HTML 9.2) on
 * the feed, so many at once and no more, each with a sign of life when nothing
 * happens. Any thread.
 */
#define CM_STREAMS_MAX     64
#define CM_STREAMS_BEAT_MS 15000

struct cm_streams;

/* cm_streams_start - feed is borrowed, and not started yet. */
enum cm_status cm_streams_start(struct cm_streams **streams_r,
                                struct cm_feed *feed,
                                struct cm_err *err) CM_MUST_CHECK;
/* cm_streams_shut - let every stream come to its end and open no more; before
 * the HTTP server stops. cm_streams_stop - after it; NULL-safe. */
void cm_streams_shut(struct cm_streams *streams);
void cm_streams_stop(struct cm_streams **streams);

/* Up to where somebody has heard everything. */
enum cm_streams_from {
    CM_STREAMS_NOW,    /* only what is new */
    CM_STREAMS_AFTER,  /* what came after an event */
    CM_STREAMS_UNKNOWN /* an id that says nothing: "reset", and what is new */
};

/*
 * cm_streams_events - for our own API: each event as one `data:` line of JSON
 * with its id; `event: dropped` when the client was too slow, `event: reset`
 * when it has to read the list again.
 *
 * from   CM_STREAMS_AFTER: id is where
 * flow_r out: to be ended by its owner
 *
 * CM_OK; CM_ETIMEOUT: CM_STREAMS_MAX are open, try again later; CM_ENOMEM.
 */
enum cm_status cm_streams_events(struct cm_streams *streams,
                                 const struct cm_event_filter *filter,
                                 enum cm_streams_from from,
                                 struct cm_record_id id,
                                 struct cm_outflow **flow_r) CM_MUST_CHECK;

/* cm_streams_console - VaultSandbox's: what is new, as lines of text. */
enum cm_status cm_streams_console(struct cm_streams *streams,
                                  struct cm_outflow **flow_r) CM_MUST_CHECK;

/* cm_streams_count - open now; *missed_r: events that slow clients missed since
 * the start. */
size_t cm_streams_count(struct cm_streams *streams, uint64_t *missed_r);

#endif
