/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FEED_H
#define CM_FEED_H

#include "milter/store/link.h"
#include "milter/store/record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The newest events in memory: one thread follows Redis for all that listen,
 * and each reader has a position of its own in one ring that all share. So a
 * reader costs nothing, however slow: one that falls behind the ring's first
 * event is told how many it missed. Thread-safe.
 */
#define CM_FEED_RING    1024 /* events kept */
#define CM_FEED_HISTORY 500  /* of them read from Redis at the start */

struct cm_feed;

/* An event as readers get it: borrowed for the call. */
struct cm_news {
    const struct cm_record *record;
    const char *json; /* as cm_event_print made it, once for all */
    size_t json_len;
};

enum cm_status cm_feed_new(struct cm_feed **feed_r,
                           struct cm_err *err) CM_MUST_CHECK;

/* cm_feed_listen - have fn called on the feed's thread whenever something came;
 * before cm_feed_start. At most CM_FEED_LISTENERS. */
#define CM_FEED_LISTENERS 4
void cm_feed_listen(struct cm_feed *feed, void (*fn)(void *arg), void *arg);

enum cm_status cm_feed_start(struct cm_feed *feed,
                             const struct cm_link_opts *link,
                             const char *prefix,
                             struct cm_err *err) CM_MUST_CHECK;
/* cm_feed_stop - end the thread; what is in the ring can still be read. */
void cm_feed_stop(struct cm_feed *feed);
void cm_feed_free(struct cm_feed **feed);

/* cm_feed_begun - was Redis read for the first time? Before that what comes may
 * be of the past, and no event is known. Listeners are told when it is. */
bool cm_feed_begun(struct cm_feed *feed);

/* cm_feed_now - the position of what comes next. */
uint64_t cm_feed_now(struct cm_feed *feed);

/* cm_feed_after - the position behind the event with that id. false: what
 * followed it is not all known here any more, or the id is of no event. */
bool cm_feed_after(struct cm_feed *feed, struct cm_record_id id,
                   uint64_t *pos_r);

/*
 * cm_feed_next - the next event that the reader wants; *pos moves on.
 *
 * take      called with the feed locked, so it only looks and copies; false:
 *           not wanted
 * missed_r  out on CM_FEED_MISSED: events that were gone before they were read
 */
enum cm_feed_answer {
    CM_FEED_NOTHING, /* not yet */
    CM_FEED_TAKEN,
    CM_FEED_MISSED, /* the reader was too slow */
    CM_FEED_LOST    /* Redis may have lost some before they came here */
};
typedef bool cm_feed_take(void *arg, const struct cm_news *news);
enum cm_feed_answer cm_feed_next(struct cm_feed *feed, uint64_t *pos,
                                 uint64_t *missed_r, cm_feed_take *take,
                                 void *arg);

#endif
