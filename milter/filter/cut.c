/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a session to a request to the dropper. Postfix's smtpd is at the other
 * end of a unix milter socket, so the kernel can name the process that serves
 * the client; without that a FIN has to look through many.
 */
#include "milter/filter/cut.h"
#include "milter/filter/dropper.h"

#include <stdio.h>
#include <sys/socket.h>

static pid_t
mta_process(int fd)
{
    struct ucred peer = {.pid = 0};
    socklen_t len = sizeof peer;
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return 0; /* not a unix socket */
    return peer.pid;
}

bool
cm_cut(struct cm_session *session, enum cm_drop_how how, char *why, size_t cap)
{
    struct cm_err err = {CM_OK, "this filter cannot cut connections"};
    if (!session->tuple_known)
        snprintf(err.msg, sizeof err.msg, "%s", session->tuple_why);
    else if (session->filter->dropper &&
             cm_dropper_drop(session->filter->dropper, how, &session->tuple,
                             mta_process(session->fd), &err) == CM_OK)
        return true;
    snprintf(why, cap, "%s", err.msg);
    return false;
}
