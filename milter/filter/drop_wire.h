/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROP_WIRE_H
#define CM_DROP_WIRE_H

#include "milter/filter/tuple.h"
#include "milter/model/fault.h"

#include <stdint.h>

/*
 * What the filter and its privileged child say to each other, one message a
 * packet of a SOCK_SEQPACKET pair. Both are one program, forked, so the structs
 * go as they are; the version catches what is no message at all.
 *
 * Workers are numbered from 1. A request names the worker that it is meant for,
 * and the next one leaves it alone: its asker has been told that it failed.
 */
#define CM_DROP_WIRE_VERSION 1
#define CM_DROP_WIRE_HOWS    2 /* CM_DROP_RST and CM_DROP_FIN */
#define CM_DROP_WIRE_TEXT    200

struct cm_drop_request {
    uint32_t version;
    uint32_t worker;
    uint64_t id;
    int64_t deadline_us; /* CLOCK_MONOTONIC; nothing is begun after it */
    struct cm_tuple tuple;
    int32_t how;      /* enum cm_drop_how */
    int32_t pid_hint; /* 0: not known */
};

enum cm_drop_kind {
    CM_DROP_READY,  /* by a worker after its self-test */
    CM_DROP_ANSWER, /* by a worker to a request */
    CM_DROP_DOWN    /* by the keeper: this worker has ended */
};

struct cm_drop_report {
    uint32_t version;
    uint32_t worker;
    uint32_t kind;
    int32_t status; /* ANSWER: enum cm_status */
    uint64_t id;    /* ANSWER: the request's */
    /* READY: why not, by how, "" for able. ANSWER, DOWN: what happened, in the
     * first. */
    char text[CM_DROP_WIRE_HOWS][CM_DROP_WIRE_TEXT];
};

#endif
