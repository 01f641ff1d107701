/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HOOK_DESK_H
#define CM_HOOK_DESK_H

#include "milter/filter/hook_line.h"
#include "milter/filter/late.h"
#include "milter/filter/server.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct cm_filter;
struct cm_hearing;

/*
 * The command hook behind its socket: who is connected, what they ask, and what
 * they are answered. All of it belongs to the one thread of the server, save
 * for the members marked atomic.
 */
struct cm_hook_caller {
    struct cm_caller base; /* its timer: while judged or held, the next look */
    struct cm_hook_line line;
    bool deaf;                  /* not listened to, but for its end */
    struct cm_hearing *hearing; /* its question is with a clerk */
    struct cm_late late;        /* its answer is held */
};

struct cm_hook_desk {
    struct cm_filter *filter; /* borrowed */
    struct cm_server *server; /* borrowed */
    atomic_bool quiet;        /* every command passes */
    atomic_bool asked_commands, asked_keywords;
    atomic_size_t held;
};

/* The trade of the hook's server; its arg is the desk. */
extern const struct cm_server_trade cm_hook_desk_trade;

/* cm_hook_desk_close - after the end of the server: what the clerks have left.
 */
void cm_hook_desk_close(struct cm_hook_desk *desk);

#endif
