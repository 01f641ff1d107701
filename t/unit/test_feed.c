/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ring of events and the streams on it, without Redis and without HTTP: the
 * chronicle is a stand-in that says what the test wants, and the test takes
 * bytes as the HTTP server would. H18.
 */
#include "admin/feed.h"
#include "admin/outflow.h"
#include "admin/streams.h"
#include "milter/store/chronicle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the stand-in --- */

static struct cm_chronicle_ops told;

enum cm_status
cm_chronicle_start(struct cm_chronicle **chronicle_r,
                   const struct cm_link_opts *link, const char *prefix,
                   int history, const struct cm_chronicle_ops *ops,
                   struct cm_err *err)
{
    (void)link;
    (void)prefix;
    (void)err;
    assert_true(history <= CM_FEED_RING);
    told = *ops;
    *chronicle_r = NULL;
    return CM_OK;
}

void
cm_chronicle_stop(struct cm_chronicle **chronicle)
{
    *chronicle = NULL;
}

/* Events with the ids 1-0 to N-0, the number also being the rule. */
static void
happen(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i <= to; i++) {
        struct cm_record record = {.id = {i, 0}};
        char rule[24];
        for (int f = 0; f < CM_ENTRY_FIELDS; f++)
            record.at[f] = "";
        snprintf(rule, sizeof rule, "%d", (int)i);
        record.at[CM_ENTRY_TIME] = "0";
        record.at[CM_ENTRY_KIND] = i % 2 ? "error" : "latency";
        record.at[CM_ENTRY_RULE] = rule;
        told.read(told.arg, &record, 1);
    }
}

static struct cm_feed *feed;
static struct cm_streams *streams;

static int
set_up(void **state)
{
    struct cm_link_opts link = {.address = ""};
    (void)state;
    assert_int_equal(cm_feed_new(&feed, NULL), CM_OK);
    assert_int_equal(cm_streams_start(&streams, feed, NULL), CM_OK);
    assert_int_equal(cm_feed_start(feed, &link, "{cm}", NULL), CM_OK);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    cm_streams_stop(&streams);
    cm_feed_free(&feed);
    return 0;
}

/* The history was read, and there is none. */
static void
begin(void)
{
    told.read(told.arg, NULL, 0);
}

/* --- the feed --- */

static bool
take_rule(void *arg, const struct cm_news *news)
{
    snprintf(arg, 24, "%s", news->record->at[CM_ENTRY_RULE]);
    return true;
}

static bool
take_even(void *arg, const struct cm_news *news)
{
    return strcmp(news->record->at[CM_ENTRY_KIND], "latency") == 0 &&
           take_rule(arg, news);
}

static void
test_feed_next_gives_each_once_and_in_order(void **state)
{
    uint64_t pos = cm_feed_now(feed), missed = 0;
    char rule[24] = "";
    (void)state;
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                     CM_FEED_NOTHING);
    happen(1, 4);
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                         CM_FEED_TAKEN);
        assert_int_equal(atoi(rule), i);
    }
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                     CM_FEED_NOTHING);
    happen(5, 7);
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_even, rule),
                     CM_FEED_TAKEN);
    assert_string_equal(rule, "6");
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_even, rule),
                     CM_FEED_NOTHING);
}

static void
test_feed_next_counts_what_a_slow_reader_missed(void **state)
{
    uint64_t pos = cm_feed_now(feed), missed = 0;
    char rule[24];
    (void)state;
    happen(1, CM_FEED_RING + 10);
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                     CM_FEED_MISSED);
    assert_int_equal(missed, 10);
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                     CM_FEED_TAKEN);
    assert_string_equal(rule, "11");
}

static void
assert_after(uint64_t ms, bool known, const char *next)
{
    uint64_t pos, missed;
    char rule[24] = "none";
    bool is_known = cm_feed_after(feed, (struct cm_record_id){ms, 0}, &pos);
    if (is_known != known)
        fail_msg("%d: known %d", (int)ms, is_known);
    enum cm_feed_answer answer =
        cm_feed_next(feed, &pos, &missed, take_rule, rule);
    if (answer == CM_FEED_LOST)
        strcpy(rule, "lost");
    assert_string_equal(rule, next);
}

static void
test_feed_after_knows_what_followed_or_says_that_it_does_not(void **state)
{
    (void)state;
    assert_after(1, false, "none");
    happen(10, 10);
    happen(20, 25);
    assert_after(9, false, "none"); /* what was before 10 is not known */
    assert_after(10, true, "20");
    assert_after(15, true, "20"); /* no event, but nothing was between */
    assert_after(24, true, "25");
    assert_after(25, true, "none");
    assert_after(26, false, "none"); /* of another Redis? */
    told.lost(told.arg);
    assert_after(24, false, "none");
    happen(30, 31);
    assert_after(25, false, "none");
    assert_after(30, true, "31");
    happen(100, 100 + CM_FEED_RING - 1);
    assert_after(30, false, "none");
    assert_after(31, true, "100");
    happen(9000, 9000);
    assert_after(31, false, "none");
    assert_after(100, true, "101");
}

static void
test_feed_tells_readers_that_something_may_be_missing(void **state)
{
    uint64_t pos = cm_feed_now(feed), missed;
    char rule[24];
    (void)state;
    happen(1, 1);
    told.lost(told.arg);
    happen(2, 2);
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                     CM_FEED_TAKEN);
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_even, rule),
                     CM_FEED_LOST);
    assert_int_equal(cm_feed_next(feed, &pos, &missed, take_rule, rule),
                     CM_FEED_TAKEN);
    assert_string_equal(rule, "2");
}

/* --- the streams --- */

static int woken;

static void
wake(void *waker)
{
    (void)waker;
    woken++;
}

static struct cm_outflow *
open_stream(enum cm_streams_from from, uint64_t ms)
{
    static const struct cm_event_filter all;
    struct cm_outflow *flow = NULL;
    assert_int_equal(cm_streams_events(streams, &all, from,
                                       (struct cm_record_id){ms, 0}, &flow),
                     CM_OK);
    flow->wake = wake;
    flow->fd = -1;
    return flow;
}

/* All that it has, read in pieces of `piece` bytes. */
static const char *
drain(struct cm_outflow *flow, size_t piece)
{
    static char text[1024 * 1024];
    size_t len = 0;
    ssize_t n;
    while ((n = flow->read(flow, text + len, piece)) > 0) {
        assert_true((size_t)n <= piece);
        len += (size_t)n;
        assert_true(len + piece < sizeof text);
    }
    assert_int_equal(n, 0);
    text[len] = '\0';
    return text;
}

static void
assert_begins(const char *text, const char *with)
{
    if (strncmp(text, with, strlen(with)) != 0)
        fail_msg("%.80s does not begin with %s", text, with);
}

static void
test_stream_frames_are_whole_whatever_the_pieces(void **state)
{
    begin();
    struct cm_outflow *flow = open_stream(CM_STREAMS_NOW, 0);
    (void)state;
    assert_string_equal(drain(flow, 3), "retry: 2000\n\n");
    woken = 0;
    happen(1, 3);
    assert_true(woken > 0);
    char *whole = strdup(drain(flow, 4096));
    assert_non_null(whole);
    assert_begins(whole, "id: 1-0\ndata: {\"id\":\"1-0\",");
    struct cm_outflow *again = open_stream(CM_STREAMS_NOW, 0);
    drain(again, 4096);
    happen(4, 4);
    const char *one = drain(again, 1);
    assert_begins(one, "id: 4-0\ndata: {");
    assert_string_equal(one + strlen(one) - 3, "}\n\n");
    free(whole);
    flow->end(flow);
    again->end(again);
}

static void
test_stream_says_dropped_and_reset(void **state)
{
    begin();
    struct cm_outflow *flow = open_stream(CM_STREAMS_NOW, 0);
    uint64_t missed;
    (void)state;
    drain(flow, 4096);
    happen(1, CM_FEED_RING + 2);
    assert_begins(drain(flow, 4096),
                  "event: dropped\ndata: {\"dropped\":2}\n\nid: 3-0");
    told.lost(told.arg);
    assert_string_equal(drain(flow, 4096),
                        "event: reset\ndata: {\"reason\":\"events may be "
                        "missing here\"}\n\n");
    assert_int_equal(cm_streams_count(streams, &missed), 1);
    assert_int_equal(missed, 2);
    flow->end(flow);
    flow = open_stream(CM_STREAMS_AFTER, 1);
    assert_string_equal(drain(flow, 4096),
                        "retry: 2000\n\nevent: reset\ndata: {\"reason\":\"that "
                        "event is not known any more\"}\n\n");
    flow->end(flow);
    assert_int_equal(cm_streams_count(streams, &missed), 0);
}

static void
test_stream_waits_for_the_feed_to_begin(void **state)
{
    struct cm_outflow *fresh = open_stream(CM_STREAMS_NOW, 0);
    struct cm_outflow *again = open_stream(CM_STREAMS_AFTER, 2);
    (void)state;
    assert_string_equal(drain(fresh, 4096), "retry: 2000\n\n");
    assert_string_equal(drain(again, 4096), "retry: 2000\n\n");
    struct cm_record history[3];
    for (uint64_t i = 0; i < 3; i++) {
        history[i] = (struct cm_record){.id = {i + 1, 0}};
        for (int f = 0; f < CM_ENTRY_FIELDS; f++)
            history[i].at[f] = "";
    }
    woken = 0;
    told.read(told.arg, history, 3);
    assert_int_equal(woken, 2);
    assert_string_equal(drain(fresh, 4096), ""); /* that was before it came */
    assert_begins(drain(again, 4096), "id: 3-0\n");
    happen(4, 4);
    assert_begins(drain(fresh, 4096), "id: 4-0\n");
    fresh->end(fresh);
    again->end(again);
}

static void
test_streams_are_so_many_and_no_more(void **state)
{
    struct cm_outflow *open[CM_STREAMS_MAX], *one = NULL;
    (void)state;
    for (int i = 0; i < CM_STREAMS_MAX; i++)
        open[i] = open_stream(CM_STREAMS_NOW, 0);
    assert_int_equal(cm_streams_console(streams, &one), CM_ETIMEOUT);
    assert_null(one);
    open[5]->end(open[5]); /* never read: it was in no list */
    assert_int_equal(cm_streams_console(streams, &open[5]), CM_OK);
    for (int i = 0; i < CM_STREAMS_MAX; i++)
        open[i]->end(open[i]);
}

static void
test_streams_shut_ends_them_all(void **state)
{
    struct cm_outflow *flow = open_stream(CM_STREAMS_NOW, 0), *late = NULL;
    char byte;
    (void)state;
    drain(flow, 4096);
    woken = 0;
    cm_streams_shut(streams);
    assert_int_equal(woken, 1);
    assert_int_equal(flow->read(flow, &byte, 1), CM_OUTFLOW_END);
    assert_int_equal(cm_streams_console(streams, &late), CM_ETIMEOUT);
    flow->end(flow);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_feed_next_gives_each_once_and_in_order),
        TEST(test_feed_next_counts_what_a_slow_reader_missed),
        TEST(test_feed_after_knows_what_followed_or_says_that_it_does_not),
        TEST(test_feed_tells_readers_that_something_may_be_missing),
        TEST(test_stream_frames_are_whole_whatever_the_pieces),
        TEST(test_stream_says_dropped_and_reset),
        TEST(test_stream_waits_for_the_feed_to_begin),
        TEST(test_streams_are_so_many_and_no_more),
        TEST(test_streams_shut_ends_them_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
