/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROPPER_H
#define CM_DROPPER_H

#include "milter/err.h"
#include "milter/filter/tuple.h"
#include "milter/model/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Cuts the SMTP client's TCP connection from beside the MTA, so that the client
 * sees a reset (RST) or the end of file (FIN), and no reply. What needs
 * privileges for that lives in a process of its own, which does nothing else;
 * this is the filter's side, and needs none.
 *
 * The drop comes first, the verdict to the MTA after it: with a temporary
 * failure the message is lost, with "continue" it is delivered and only its
 * acknowledgement is lost (RFC 1047).
 */
#define CM_DROPPER_PORTS_MAX 64

struct cm_dropper;

struct cm_dropper_opts {
    bool fin;         /* FIN too: needs CAP_SYS_PTRACE, which is nearly root */
    const char *user; /* as for cm_privs_drop; borrowed during the call */
    uint16_t ports[CM_DROPPER_PORTS_MAX]; /* of the MTA; no other is touched */
    size_t nports;                        /* 0: nothing can be dropped */
    int64_t deadline_ms; /* 1..; what one drop may take, e.g. 200 */
    unsigned per_second; /* 1..; drops beyond that are refused, e.g. 1000 */
};

/*
 * cm_dropper_start - fork the privileged process and wait for its self-test
 * (milliseconds; at most 3 s).
 *
 * Call it once sockets are open, before any thread exists and before privileges
 * are dropped. The capabilities can be root's or, for an ordinary user, given
 * by a service manager. Not to have them is no error: cm_dropper_why_not tells.
 *
 * dropper_r  out, the caller's until cm_dropper_stop
 *
 * CM_OK; CM_EINVAL: an option, or there is no such user; CM_ENOMEM; CM_EIO: no
 * socket or process. The child ends with this process, however that ends.
 */
enum cm_status cm_dropper_start(struct cm_dropper **dropper_r,
                                const struct cm_dropper_opts *opts,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_dropper_stop - end the child and free all; NULL inside is fine. Nobody may
 * be in another call. */
void cm_dropper_stop(struct cm_dropper **dropper);

/* cm_dropper_why_not - why this cannot be done now, NULL when it can. The text
 * lives as long as the dropper. Thread-safe, does not wait. */
const char *cm_dropper_why_not(struct cm_dropper *dropper,
                               enum cm_drop_how how);

/*
 * cm_dropper_drop - cut one connection.
 *
 * how       is done as asked, or not at all
 * pid_hint  for FIN: the process that probably serves the client (SO_PEERCRED
 *           of a unix milter socket), 0: not known
 *
 * Returns
 *   CM_OK        it happened: afterwards the kernel said so
 *   CM_NOTFOUND  there is no such connection: the client has left, or came
 *                through a proxy, a remote MTA or another namespace
 *   CM_EINVAL    a port that is not allowed, or more than one connection fits
 *   CM_ETIMEOUT  not done in time. If no answer came at all (err says so), it
 *                may yet have happened.
 *   CM_EIO       not available, too many in this second, the kernel refused,
 *                or the child ended (then it may have happened; err says so)
 *
 * Takes 70 to 350 microseconds, FIN without a hint up to 30 ms; never much more
 * than the deadline. Thread-safe; one at a time is done, the others wait.
 */
enum cm_status cm_dropper_drop(struct cm_dropper *dropper, enum cm_drop_how how,
                               const struct cm_tuple *tuple, pid_t pid_hint,
                               struct cm_err *err) CM_MUST_CHECK;

#endif
