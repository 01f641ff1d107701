/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HOOK_DESK_H
#define CM_HOOK_DESK_H

#include "milter/filter/clerks.h"
#include "milter/filter/hook_hold.h"
#include "milter/filter/hook_line.h"
#include "milter/filter/timers.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_filter;
struct cm_hook_errand;

/*
 * The command hook behind its socket: who is connected, what they ask, and what
 * they are answered. All of it belongs to the one thread of the hook's loop
 * (hook.c), save for the members marked atomic.
 */
struct cm_hook_caller {
    struct cm_hook_line line;
    struct cm_hook_caller *prev, *next; /* of all, or of the graveyard */
    struct cm_timer timer;         /* while judged or held: the next look */
    bool deaf;                     /* not listened to, but for its end */
    struct cm_hook_errand *errand; /* its question is with a clerk */
    struct cm_hook_hold hold;
};

struct cm_hook_desk {
    struct cm_filter *filter; /* borrowed */
    struct cm_clerks *clerks; /* owned */
    int epoll_fd;             /* events carry the caller; owned by hook.c */
    int64_t deadline_us;
    struct cm_timers timers;
    struct cm_hook_caller *callers, *graveyard;
    size_t ncallers;
    uint64_t nquestions;
    atomic_bool quiet; /* every command passes */
    atomic_bool asked_commands, asked_keywords;
    atomic_size_t held;
};

/* cm_hook_desk_welcome - a new connection; fd is taken over. */
void cm_hook_desk_welcome(struct cm_hook_desk *desk, int fd);

/* cm_hook_desk_on_event - what epoll says of a caller. */
void cm_hook_desk_on_event(struct cm_hook_desk *desk,
                           struct cm_hook_caller *caller, uint32_t events);

/* cm_hook_desk_on_timer - a caller's timer is due. */
void cm_hook_desk_on_timer(struct cm_hook_desk *desk, struct cm_timer *timer);

/* cm_hook_desk_take_back - what the clerks have done. */
void cm_hook_desk_take_back(struct cm_hook_desk *desk);

/* cm_hook_desk_release_all - let every command pass that waits for anything. */
void cm_hook_desk_release_all(struct cm_hook_desk *desk);

/* cm_hook_desk_bury - free callers that have gone; between rounds of events,
 * since one of a round may still name them. */
void cm_hook_desk_bury(struct cm_hook_desk *desk);

/* cm_hook_desk_close - after the loop: end all connections, stop and free the
 * clerks. */
void cm_hook_desk_close(struct cm_hook_desk *desk);

#endif
