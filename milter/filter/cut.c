/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a session to a request to the dropper. Who serves the client is known
 * where the milter socket is a unix one; without that a FIN has to look through
 * many processes.
 */
#include "milter/filter/cut.h"
#include "milter/filter/dropper.h"
#include "milter/filter/peer.h"

#include <stdio.h>

bool
cm_cut(struct cm_session *session, enum cm_drop_how how, char *why, size_t cap)
{
    struct cm_err err = {CM_OK, "this filter cannot cut connections"};
    if (!session->tuple_known)
        snprintf(err.msg, sizeof err.msg, "%s", session->tuple_why);
    else if (session->filter->dropper &&
             cm_dropper_drop(session->filter->dropper, how, &session->tuple,
                             cm_peer_process(session->fd), &err) == CM_OK)
        return true;
    snprintf(why, cap, "%s", err.msg);
    return false;
}
