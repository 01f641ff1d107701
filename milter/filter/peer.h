/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PEER_H
#define CM_PEER_H

#include <sys/types.h>

/* cm_peer_process - the process that connected the unix socket at whose other
 * end we are; 0 when the kernel does not tell: another kind of socket, or a
 * process that this PID namespace does not see. fd may be -1. */
pid_t cm_peer_process(int fd);

#endif
