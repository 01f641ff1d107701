/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_NOTIFY_H
#define CM_NOTIFY_H

/*
 * cm_notify - tell systemd, when it asked to be told ($NOTIFY_SOCKET):
 * "READY=1", "STATUS=...", "STOPPING=1". Nothing happens elsewhere; a failure
 * is of no consequence to us and is not reported. The protocol is one datagram
 * (sd_notify(3)), which is not worth a library.
 */
void cm_notify(const char *state);

#endif
