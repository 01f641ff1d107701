/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A queue per reader was rejected: sixty-four of them would hold sixty-four
 * copies of the same texts, and a slow one would still have to lose some. A
 * place in the ring without a text says that something may be missing there.
 *
 * An event is printed before the lock is taken; with it, the ring's place is
 * changed and the old one taken out, and the rest is done without it again.
 */
#include "admin/feed.h"
#include "admin/event_json.h"
#include "milter/buf.h"
#include "milter/log.h"
#include "milter/store/chronicle.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CM_FEED_EVENT_BYTES                                                    \
    ((size_t)64 * 1024) /* one, escaped at its worst                           \
                         */

struct place {
    struct cm_record record; /* a copy */
    char *json;              /* owned; NULL: something may be missing here */
    size_t json_len;
};

struct cm_feed {
    struct cm_chronicle *chronicle;
    struct {
        void (*fn)(void *arg);
        void *arg;
    } listener[CM_FEED_LISTENERS];
    size_t nlisteners;

    pthread_mutex_t lock;
    bool begun;
    struct place ring[CM_FEED_RING]; /* position p is at p % CM_FEED_RING */
    uint64_t first, end;             /* positions first..end-1 are held */
    /* All that came after floor, up to newest, is in the ring; while there is
     * no floor, the next event is it. */
    bool has_floor;
    struct cm_record_id floor, newest;
};

enum cm_status
cm_feed_new(struct cm_feed **feed_r, struct cm_err *err)
{
    struct cm_feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    pthread_mutex_init(&feed->lock, NULL);
    feed->first = feed->end = 1;
    *feed_r = feed;
    return CM_OK;
}

void
cm_feed_listen(struct cm_feed *feed, void (*fn)(void *arg), void *arg)
{
    assert(feed->nlisteners < CM_FEED_LISTENERS);
    feed->listener[feed->nlisteners].fn = fn;
    feed->listener[feed->nlisteners++].arg = arg;
}

/* --- what comes --- */

static void
free_place(struct place *place)
{
    cm_record_fini(&place->record);
    free(place->json);
    memset(place, 0, sizeof *place);
}

/* Puts fresh at the end; what it displaces comes back in it, to be freed. */
static void
append(struct cm_feed *feed, struct place *fresh)
{
    struct place *at = &feed->ring[feed->end % CM_FEED_RING], old = *at;
    if (feed->end - feed->first == CM_FEED_RING) {
        feed->first++;
        if (old.json)
            feed->floor = old.record.id;
    }
    *at = *fresh;
    feed->end++;
    *fresh = old;
}

static enum cm_status
print(struct place *fresh, const struct cm_record *record)
{
    struct cm_buf buf;
    cm_buf_init(&buf, CM_FEED_EVENT_BYTES);
    cm_event_print(&buf, record);
    fresh->json = cm_buf_take(&buf, &fresh->json_len);
    return fresh->json ? cm_record_dup(&fresh->record, record) : CM_ENOMEM;
}

static void
take_in(struct cm_feed *feed, const struct cm_record *record)
{
    struct place fresh = {.json = NULL};
    if (print(&fresh, record) != CM_OK) {
        /* No memory: an empty place says that something is missing. */
        free_place(&fresh);
    }
    pthread_mutex_lock(&feed->lock);
    if (!feed->has_floor)
        feed->floor = record->id;
    feed->has_floor = true;
    feed->newest = record->id;
    append(feed, &fresh);
    pthread_mutex_unlock(&feed->lock);
    free_place(&fresh);
}

static void
tell(struct cm_feed *feed)
{
    for (size_t i = 0; i < feed->nlisteners; i++)
        feed->listener[i].fn(feed->listener[i].arg);
}

static void
on_read(void *arg, const struct cm_record *records, size_t n)
{
    struct cm_feed *feed = arg;
    for (size_t i = 0; i < n; i++)
        take_in(feed, &records[i]);
    pthread_mutex_lock(&feed->lock);
    feed->begun = true;
    pthread_mutex_unlock(&feed->lock);
    tell(feed);
}

static void
on_lost(void *arg)
{
    struct cm_feed *feed = arg;
    struct place gap = {.json = NULL};
    pthread_mutex_lock(&feed->lock);
    append(feed, &gap);
    feed->has_floor = false; /* nobody resumes across it */
    pthread_mutex_unlock(&feed->lock);
    free_place(&gap);
    tell(feed);
}

enum cm_status
cm_feed_start(struct cm_feed *feed, const struct cm_link_opts *link,
              const char *prefix, struct cm_err *err)
{
    struct cm_chronicle_ops ops = {on_read, on_lost, feed};
    return cm_chronicle_start(&feed->chronicle, link, prefix, CM_FEED_HISTORY,
                              &ops, err);
}

void
cm_feed_stop(struct cm_feed *feed)
{
    cm_chronicle_stop(&feed->chronicle);
}

void
cm_feed_free(struct cm_feed **feed_p)
{
    struct cm_feed *feed = *feed_p;
    if (!feed)
        return;
    cm_feed_stop(feed);
    for (size_t i = 0; i < CM_FEED_RING; i++)
        free_place(&feed->ring[i]);
    pthread_mutex_destroy(&feed->lock);
    free(feed);
    *feed_p = NULL;
}

/* --- readers --- */

bool
cm_feed_begun(struct cm_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    bool begun = feed->begun;
    pthread_mutex_unlock(&feed->lock);
    return begun;
}

uint64_t
cm_feed_now(struct cm_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    uint64_t end = feed->end;
    pthread_mutex_unlock(&feed->lock);
    return end;
}

bool
cm_feed_after(struct cm_feed *feed, struct cm_record_id id, uint64_t *pos_r)
{
    pthread_mutex_lock(&feed->lock);
    bool known = feed->has_floor &&
                 cm_record_id_compare(id, feed->floor) >= 0 &&
                 cm_record_id_compare(id, feed->newest) <= 0;
    uint64_t pos = feed->end;
    while (known && pos > feed->first) {
        const struct place *before = &feed->ring[(pos - 1) % CM_FEED_RING];
        if (before->json && cm_record_id_compare(before->record.id, id) <= 0)
            break;
        pos--;
        if (!before->json)
            break; /* the reader is to see that, too */
    }
    pthread_mutex_unlock(&feed->lock);
    *pos_r = pos;
    return known;
}

/* One place; false: it was of no interest. Called with the lock. */
static bool
look(const struct place *place, cm_feed_take *take, void *arg,
     enum cm_feed_answer *answer_r)
{
    struct cm_news news = {&place->record, place->json, place->json_len};
    *answer_r = place->json ? CM_FEED_TAKEN : CM_FEED_LOST;
    return !place->json || take(arg, &news);
}

enum cm_feed_answer
cm_feed_next(struct cm_feed *feed, uint64_t *pos, uint64_t *missed_r,
             cm_feed_take *take, void *arg)
{
    enum cm_feed_answer answer = CM_FEED_NOTHING;
    bool found = false;
    pthread_mutex_lock(&feed->lock);
    if (*pos < feed->first) {
        *missed_r = feed->first - *pos;
        *pos = feed->first;
        answer = CM_FEED_MISSED;
        found = true;
    }
    while (!found && *pos < feed->end)
        found = look(&feed->ring[(*pos)++ % CM_FEED_RING], take, arg, &answer);
    pthread_mutex_unlock(&feed->lock);
    return found ? answer : CM_FEED_NOTHING;
}
