/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PRESENCE_H
#define CM_PRESENCE_H

#include "milter/filter/sockdiag.h"
#include "milter/filter/tuple.h"

/*
 * Is the SMTP client still there, while its reply is held? An MTA that waits
 * for its milter does not look at its client, so the kernel is asked, in the
 * table of TCP sockets (sockdiag.h). Any thread; a look takes 1 to 2
 * microseconds and needs no privilege.
 */
enum cm_presence_now {
    CM_PRESENCE_UNKNOWN, /* no such connection to look at on this host */
    CM_PRESENCE_HERE,
    CM_PRESENCE_CLOSED, /* it has closed its side (FIN): gone for good, or only
                           done with sending and still waiting for the reply;
                           nothing tells which */
    CM_PRESENCE_GONE    /* the connection is no more: reset */
};

struct cm_presence {
    bool known;
    struct cm_sockdiag_conn conn;
};

/*
 * cm_presence_begin - the connection to look at from now on.
 *
 * tuple  NULL, or one that leaves the MTA's address open: nothing is known, for
 *        finding that connection would be a walk over all sockets
 */
void cm_presence_begin(struct cm_presence *presence_r,
                       const struct cm_tuple *tuple);

/* cm_presence_look - CM_PRESENCE_CLOSED and _GONE only when that has happened
 * since the begin. */
enum cm_presence_now cm_presence_look(const struct cm_presence *presence);

#endif
