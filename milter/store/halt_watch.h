/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HALT_WATCH_H
#define CM_HALT_WATCH_H

#include "milter/err.h"
#include "milter/store/link.h"

#include <stdbool.h>

struct cm_buf;

/*
 * The thread by which a filter obeys the halt. It has a link of its own and
 * does nothing else, so neither a resync of a million documents nor ten
 * thousand rules being compiled stand before a halt: it is in force a few
 * milliseconds after Redis has it.
 *
 * When nobody can say, nothing is hurt: halted is also what a filter is from
 * its start until Redis has answered (or cannot be had), and while Redis
 * refuses to tell. While Redis is away, or holds no such key any more, the last
 * known state stays; a file beside the snapshot keeps it over a restart.
 */
struct cm_halt_watch;

struct cm_halt_watch_opts {
    struct cm_link_opts link; /* deep-copied */
    const char *prefix;
    int dir_fd;       /* of the file; borrowed; -1: none is kept */
    const char *name; /* without "/"; there exactly while halted */
    /* The state changed; on the watching thread, must not block. NULL: none. */
    void (*changed)(void *arg, bool halted);
    void *arg;
};

/* cm_halt_watch_start - does not wait for Redis. */
enum cm_status cm_halt_watch_start(struct cm_halt_watch **watch_r,
                                   const struct cm_halt_watch_opts *opts,
                                   struct cm_err *err) CM_MUST_CHECK;
/* cm_halt_watch_stop - end the thread, at once; what is asked below stays
 * valid until cm_halt_watch_free. Both are NULL-safe. */
void cm_halt_watch_stop(struct cm_halt_watch *watch);
void cm_halt_watch_free(struct cm_halt_watch **watch);

/* cm_halt_watch_on - must nothing be hurt now? Any thread, never waits. */
bool cm_halt_watch_on(const struct cm_halt_watch *watch);

/* cm_halt_watch_report - for the heartbeat: `,"halted":true,"halt":{...}` as
 * cm_halt_print has it, and `,"halt_problem":"..."` when something is wrong.
 * Any thread. */
void cm_halt_watch_report(struct cm_halt_watch *watch, struct cm_buf *json);

#endif
