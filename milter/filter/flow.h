/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FLOW_H
#define CM_FLOW_H

#include "milter/filter/secret.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * One direction of a conversation that goes through us untouched: bytes from
 * one socket to another, and the end of them. They may hold a password. Nothing
 * here waits.
 */
struct cm_flow {
    struct cm_secret bytes; /* received, and not sent yet */
    bool ended;             /* there will be no more */
    bool told;              /* and the other side knows */
};

/* cm_flow_open - for up to cap bytes under way at once. CM_OK, CM_ENOMEM. */
enum cm_status cm_flow_open(struct cm_flow *flow_r, size_t cap) CM_MUST_CHECK;
/* cm_flow_close - also one that is closed or zeroed. */
void cm_flow_close(struct cm_flow *flow);

/* cm_flow_receive - what has come from a socket. */
void cm_flow_receive(struct cm_flow *flow, int from);

/* cm_flow_send - what the other takes now; after the last byte it is told the
 * end. CM_OK, CM_EIO: it has gone, and what was meant for it is forgotten. */
enum cm_status cm_flow_send(struct cm_flow *flow, int to);

/* cm_flow_has_room - is there something to wait for from the one; cm_flow_waits
 * - and from the other? */
bool cm_flow_has_room(const struct cm_flow *flow);
bool cm_flow_waits(const struct cm_flow *flow);

#endif
