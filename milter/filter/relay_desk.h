/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RELAY_DESK_H
#define CM_RELAY_DESK_H

#include "milter/filter/flow.h"
#include "milter/filter/late.h"
#include "milter/filter/server.h"
#include "milter/filter/unix_socket.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_filter;
struct cm_hearing;
struct cm_relay_caller;

/* A question must have come within this time. */
#define CM_RELAY_QUESTION_US 10000000
/* And saslauthd must have answered within this: PAM and LDAP take their time,
 * and the library that asks would wait for ever. */
#define CM_RELAY_ANSWER_US 120000000

/*
 * The saslauthd relay behind its socket: who asks, and what becomes of it. All
 * of it belongs to the one thread of the server, save for the members marked
 * atomic.
 */
enum cm_relay_phase {
    CM_RELAY_ASKING,   /* the question is not whole yet */
    CM_RELAY_JUDGED,   /* it is with a clerk */
    CM_RELAY_HELD,     /* it is to be late */
    CM_RELAY_DIALLING, /* saslauthd has no place for it yet */
    CM_RELAY_PASSING   /* saslauthd has it, or is being given it */
};

/* What epoll names: one of the two sockets of a caller. */
struct cm_relay_end {
    struct cm_relay_caller *caller;
    int fd; /* -1: none */
};

struct cm_relay_caller {
    struct cm_caller base; /* its timer is set in every phase */
    enum cm_relay_phase phase;
    struct cm_relay_end client, saslauthd;
    struct cm_flow question, answer;
    struct cm_hearing *hearing; /* JUDGED */
    struct cm_late late;        /* HELD */
    int64_t give_up_us;         /* DIALLING, PASSING */
};

struct cm_relay_desk {
    struct cm_filter *filter; /* borrowed */
    struct cm_server *server; /* borrowed */
    char saslauthd[CM_UNIX_SOCKET_PATH_BYTES];
    atomic_bool quiet; /* every question passes */
    atomic_bool asked; /* ever */
    atomic_size_t open, held;
};

/* The trade of the relay's server; its arg is the desk. */
extern const struct cm_server_trade cm_relay_desk_trade;

/* cm_relay_desk_close - after the end of the server: what the clerks have left.
 */
void cm_relay_desk_close(struct cm_relay_desk *desk);

#endif
