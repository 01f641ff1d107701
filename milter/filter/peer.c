/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Postfix's smtpd is at the other end of a unix milter socket, and of the
 * command hook's: the kernel names the process that serves the client.
 */
#include "milter/filter/peer.h"

#include <sys/socket.h>

pid_t
cm_peer_process(int fd)
{
    struct ucred peer = {.pid = 0};
    socklen_t len = sizeof peer;
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return 0;
    return peer.pid;
}
