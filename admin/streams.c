/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stream is a position in the feed and a little buffer. The HTTP server asks
 * it for bytes when the client can take some; when it has none it is parked,
 * and woken by the feed when something came or by the pulse for a sign of life.
 *
 * While a connection is parked nobody reads from it, so a client that leaves is
 * noticed by the pulse: it looks for a hang-up once a second. Otherwise those
 * who reconnect again and again would fill all places with their own ghosts. A
 * client that only closes its sending half counts as gone, too.
 */
#include "admin/streams.h"
#include "admin/event_json.h"
#include "admin/feed.h"
#include "admin/outflow.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/model/rfc3339.h"
#include "milter/store/quote.h"
#include "milter/store/thread.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CM_STREAMS_PULSE_MS 1000
#define CM_STREAMS_BYTES    ((size_t)128 * 1024) /* one event, and its frame */
#define CM_STREAMS_ENOUGH   4096 /* then it goes out before more is added */

struct stream;
struct style {
    void (*greet)(struct stream *stream);
    void (*put_news)(struct stream *stream, const struct cm_news *news);
    void (*put_missed)(struct stream *stream, uint64_t missed);
    void (*put_lost)(struct stream *stream, const char *why);
};

struct stream {
    struct cm_outflow flow; /* first: the wrapper holds a pointer to it */
    struct cm_streams *owner;
    const struct style *style;
    struct cm_event_filter filter;
    enum cm_streams_from from; /* where it wants to begin */
    struct cm_record_id id;
    bool placed;
    uint64_t pos;    /* in the feed, once placed */
    uint64_t number; /* of the console's last line */
    struct cm_buf out;
    size_t sent;

    /* the owner's lock: */
    struct stream *prev, *next;
    bool listed, beat_due, gone;
    int64_t spoke_ms; /* when it last had bytes to send */
};

struct cm_streams {
    struct cm_feed *feed; /* borrowed */
    pthread_t pulse;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* shut, for the pulse */
    bool shut;
    size_t n; /* open, listed or not */
    struct stream *first;
    uint64_t missed;
};

/* --- frames --- */

/* RFC 8895 and WHATWG know CR, LF and CRLF as ends of a line; JSON text has
 * none of them. */
static void
put_frame(struct cm_buf *out, const char *event, const char *json)
{
    cm_buf_printf(out, "event: %s\ndata: %s\n\n", event, json);
}

static void
greet_events(struct stream *stream)
{
    cm_buf_puts(&stream->out, "retry: 2000\n\n");
}

static void
put_news_event(struct stream *stream, const struct cm_news *news)
{
    char id[CM_RECORD_ID_BYTES];
    cm_record_id_print(news->record->id, id);
    cm_buf_printf(&stream->out, "id: %s\ndata: ", id);
    cm_buf_add(&stream->out, news->json, news->json_len);
    cm_buf_puts(&stream->out, "\n\n");
}

static void
put_missed_event(struct stream *stream, uint64_t missed)
{
    char json[48];
    snprintf(json, sizeof json, "{\"dropped\":%" PRIu64 "}", missed);
    put_frame(&stream->out, "dropped", json);
}

static void
put_lost_event(struct stream *stream, const char *why)
{
    char json[128];
    snprintf(json, sizeof json, "{\"reason\":\"%s\"}", why);
    put_frame(&stream->out, "reset", json);
}

static const struct style events_style = {greet_events, put_news_event,
                                          put_missed_event, put_lost_event};

/* One line of the console, as VaultSandbox sends them. */
static void
put_line(struct stream *stream, const char *type, int64_t time_ms,
         const char *text, size_t len)
{
    char time[32];
    cm_time_print(time_ms, time, sizeof time);
    cm_buf_printf(&stream->out,
                  "id: %" PRIu64 "\ndata: {\"type\":\"%s\",\"text\":",
                  ++stream->number, type);
    cm_quote_json(&stream->out, text, len);
    cm_buf_printf(&stream->out, ",\"timestamp\":\"%s\"}\n\n", time);
}

static void
greet_console(struct stream *stream)
{
    static const char text[] = "SSE Console connected";
    put_line(stream, "info", cm_clock_wall_ms(), text, sizeof text - 1);
}

static void
put_news_console(struct stream *stream, const struct cm_news *news)
{
    struct cm_buf text;
    cm_buf_init(&text, CM_RECORD_BYTES_MAX + 256);
    cm_event_console_text(&text, news->record);
    if (cm_buf_status(&text) == CM_OK)
        put_line(stream, "warning",
                 strtoll(news->record->at[CM_ENTRY_TIME], NULL, 10), text.data,
                 text.len);
    cm_buf_fini(&text);
}

static void
put_missed_console(struct stream *stream, uint64_t missed)
{
    char text[64];
    int n =
        snprintf(text, sizeof text, "%" PRIu64 " events were dropped", missed);
    put_line(stream, "error", cm_clock_wall_ms(), text, (size_t)n);
}

static void
put_lost_console(struct stream *stream, const char *why)
{
    put_line(stream, "error", cm_clock_wall_ms(), why, strlen(why));
}

static const struct style console_style = {
    greet_console, put_news_console, put_missed_console, put_lost_console};

/* --- one stream --- */

static bool
take(void *arg, const struct cm_news *news)
{
    struct stream *stream = arg;
    if (!cm_event_filter_match(&stream->filter, news->record))
        return false;
    stream->style->put_news(stream, news);
    return true;
}

/* What the feed has for it; false: nothing. */
static bool
put_next(struct stream *stream)
{
    uint64_t missed = 0;
    switch (cm_feed_next(stream->owner->feed, &stream->pos, &missed, take,
                         stream)) {
    case CM_FEED_NOTHING:
        return false;
    case CM_FEED_TAKEN:
        break;
    case CM_FEED_MISSED:
        stream->style->put_missed(stream, missed);
        pthread_mutex_lock(&stream->owner->lock);
        stream->owner->missed += missed;
        pthread_mutex_unlock(&stream->owner->lock);
        break;
    case CM_FEED_LOST:
        stream->style->put_lost(stream, "events may be missing here");
        break;
    }
    return true;
}

/* Lists it at its first call, for only then can it be woken. false: it is to
 * end. */
static bool
enter(struct stream *stream, bool *beat_due_r)
{
    struct cm_streams *owner = stream->owner;
    pthread_mutex_lock(&owner->lock);
    if (!stream->listed) {
        stream->listed = true;
        stream->next = owner->first;
        if (stream->next)
            stream->next->prev = stream;
        owner->first = stream;
        stream->spoke_ms = cm_clock_mono_ms();
    }
    *beat_due_r = stream->beat_due;
    stream->beat_due = false;
    bool on = !owner->shut && !stream->gone;
    pthread_mutex_unlock(&owner->lock);
    return on;
}

/* Finds where it begins; false: nobody knows before the feed has begun. */
static bool
place(struct stream *stream)
{
    struct cm_feed *feed = stream->owner->feed;
    if (stream->placed || !cm_feed_begun(feed))
        return stream->placed;
    stream->pos = cm_feed_now(feed);
    if (stream->from == CM_STREAMS_UNKNOWN ||
        (stream->from == CM_STREAMS_AFTER &&
         !cm_feed_after(feed, stream->id, &stream->pos)))
        stream->style->put_lost(stream, "that event is not known any more");
    stream->placed = true;
    return true;
}

static void
fill(struct stream *stream, bool beat_due)
{
    while (place(stream) && stream->out.len < CM_STREAMS_ENOUGH &&
           put_next(stream))
        ;
    if (beat_due && stream->out.len == 0)
        cm_buf_puts(&stream->out, ": still here\n\n");
}

static ssize_t
read_stream(struct cm_outflow *flow, char *buf, size_t cap)
{
    struct stream *stream = (struct stream *)flow;
    bool beat_due = false;
    if (!enter(stream, &beat_due))
        return CM_OUTFLOW_END;
    if (stream->sent == stream->out.len) {
        cm_buf_reset(&stream->out);
        stream->sent = 0;
        fill(stream, beat_due);
        if (cm_buf_status(&stream->out) != CM_OK)
            return CM_OUTFLOW_END; /* no memory: it may come again */
    }
    size_t n = stream->out.len - stream->sent;
    if (n > cap)
        n = cap;
    if (n == 0)
        return 0;
    memcpy(buf, stream->out.data + stream->sent, n);
    stream->sent += n;
    pthread_mutex_lock(&stream->owner->lock);
    stream->spoke_ms = cm_clock_mono_ms();
    pthread_mutex_unlock(&stream->owner->lock);
    return (ssize_t)n;
}

static void
end_stream(struct cm_outflow *flow)
{
    struct stream *stream = (struct stream *)flow;
    struct cm_streams *owner = stream->owner;
    pthread_mutex_lock(&owner->lock);
    if (stream->listed) {
        if (stream->prev)
            stream->prev->next = stream->next;
        else
            owner->first = stream->next;
        if (stream->next)
            stream->next->prev = stream->prev;
    }
    owner->n--;
    pthread_mutex_unlock(&owner->lock);
    cm_buf_fini(&stream->out);
    free(stream);
}

/* --- all of them --- */

/* Called with the lock. */
static void
wake(struct stream *stream)
{
    stream->flow.wake(stream->flow.waker);
}

static void
on_news(void *arg)
{
    struct cm_streams *streams = arg;
    pthread_mutex_lock(&streams->lock);
    for (struct stream *s = streams->first; s; s = s->next)
        wake(s);
    pthread_mutex_unlock(&streams->lock);
}

/* Who hung up? With the lock, under which no socket of the list is closed. */
static void
look_for_ghosts(struct cm_streams *streams)
{
    struct pollfd fds[CM_STREAMS_MAX];
    nfds_t n = 0;
    for (struct stream *s = streams->first; s; s = s->next)
        fds[n++] = (struct pollfd){.fd = s->flow.fd, .events = POLLRDHUP};
    if (n == 0 || poll(fds, n, 0) <= 0)
        return;
    n = 0;
    for (struct stream *s = streams->first; s; s = s->next) {
        if (fds[n++].revents && !s->gone) {
            s->gone = true;
            wake(s);
        }
    }
}

/* With the lock. */
static void
beat(struct cm_streams *streams)
{
    int64_t before_ms = cm_clock_mono_ms() - CM_STREAMS_BEAT_MS;
    for (struct stream *s = streams->first; s; s = s->next) {
        if (s->spoke_ms <= before_ms && !s->beat_due) {
            s->beat_due = true;
            wake(s);
        }
    }
}

static void *
pulse_main(void *arg)
{
    struct cm_streams *streams = arg;
    pthread_mutex_lock(&streams->lock);
    while (!streams->shut) {
        int64_t due_ms = cm_clock_mono_ms() + CM_STREAMS_PULSE_MS;
        struct timespec until = {.tv_sec = due_ms / 1000,
                                 .tv_nsec = due_ms % 1000 * 1000000};
        pthread_cond_timedwait(&streams->changed, &streams->lock, &until);
        look_for_ghosts(streams);
        beat(streams);
    }
    pthread_mutex_unlock(&streams->lock);
    return NULL;
}

enum cm_status
cm_streams_start(struct cm_streams **streams_r, struct cm_feed *feed,
                 struct cm_err *err)
{
    pthread_condattr_t attr;
    struct cm_streams *streams = calloc(1, sizeof *streams);
    if (!streams)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    streams->feed = feed;
    pthread_mutex_init(&streams->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&streams->changed, &attr);
    pthread_condattr_destroy(&attr);
    enum cm_status st =
        cm_thread_start(&streams->pulse, pulse_main, streams, err);
    if (st != CM_OK) {
        pthread_cond_destroy(&streams->changed);
        pthread_mutex_destroy(&streams->lock);
        free(streams);
        return st;
    }
    cm_feed_listen(feed, on_news, streams);
    *streams_r = streams;
    return CM_OK;
}

void
cm_streams_shut(struct cm_streams *streams)
{
    pthread_mutex_lock(&streams->lock);
    streams->shut = true;
    pthread_cond_signal(&streams->changed);
    for (struct stream *s = streams->first; s; s = s->next)
        wake(s);
    pthread_mutex_unlock(&streams->lock);
}

void
cm_streams_stop(struct cm_streams **streams_p)
{
    struct cm_streams *streams = *streams_p;
    if (!streams)
        return;
    cm_streams_shut(streams);
    pthread_join(streams->pulse, NULL);
    pthread_cond_destroy(&streams->changed);
    pthread_mutex_destroy(&streams->lock);
    free(streams);
    *streams_p = NULL;
}

/* A place for one more; false: there is none. When all are taken, ghosts are
 * looked for at once: theirs is free within moments. */
static bool
reserve(struct cm_streams *streams)
{
    pthread_mutex_lock(&streams->lock);
    bool ok = !streams->shut && streams->n < CM_STREAMS_MAX;
    if (ok)
        streams->n++;
    else
        look_for_ghosts(streams);
    pthread_mutex_unlock(&streams->lock);
    return ok;
}

/* The greeting and the place are settled here: from the moment on that a client
 * sees its answer begin, it misses nothing. */
static enum cm_status
open_stream(struct cm_streams *streams, const struct style *style,
            const struct cm_event_filter *filter, enum cm_streams_from from,
            struct cm_record_id id, struct cm_outflow **flow_r)
{
    if (!reserve(streams))
        return CM_ETIMEOUT;
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream) {
        pthread_mutex_lock(&streams->lock);
        streams->n--;
        pthread_mutex_unlock(&streams->lock);
        return CM_ENOMEM;
    }
    stream->flow.read = read_stream;
    stream->flow.end = end_stream;
    stream->owner = streams;
    stream->style = style;
    stream->filter = *filter;
    stream->from = from;
    stream->id = id;
    cm_buf_init(&stream->out, CM_STREAMS_BYTES);
    style->greet(stream);
    (void)place(stream);
    *flow_r = &stream->flow;
    return CM_OK;
}

enum cm_status
cm_streams_events(struct cm_streams *streams,
                  const struct cm_event_filter *filter,
                  enum cm_streams_from from, struct cm_record_id id,
                  struct cm_outflow **flow_r)
{
    return open_stream(streams, &events_style, filter, from, id, flow_r);
}

enum cm_status
cm_streams_console(struct cm_streams *streams, struct cm_outflow **flow_r)
{
    static const struct cm_event_filter all;
    return open_stream(streams, &console_style, &all, CM_STREAMS_NOW,
                       (struct cm_record_id){0, 0}, flow_r);
}

size_t
cm_streams_count(struct cm_streams *streams, uint64_t *missed_r)
{
    pthread_mutex_lock(&streams->lock);
    size_t n = streams->n;
    *missed_r = streams->missed;
    pthread_mutex_unlock(&streams->lock);
    return n;
}
