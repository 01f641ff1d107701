/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EXITCODE_H
#define CM_EXITCODE_H

/* Exit codes of both daemons, from sysexits.h, which service managers know. */
#define CM_EXIT_USAGE       64
#define CM_EXIT_UNAVAILABLE 69 /* the socket or port is taken */
#define CM_EXIT_OSERR       71
#define CM_EXIT_CONFIG      78

#endif
