/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROP_SECCOMP_H
#define CM_DROP_SECCOMP_H

#include "milter/err.h"

#include <stdbool.h>

/*
 * cm_drop_seccomp_enter - from now on only the system calls that the worker
 * needs; any other ends the process (SIGSYS).
 *
 * fin  also those for FIN: borrow descriptors, read /proc
 *
 * Needs no_new_privs. CM_OK; CM_EIO: the kernel has no seccomp filter, so the
 * caller must not go on. For one thread only.
 */
enum cm_status cm_drop_seccomp_enter(bool fin,
                                     struct cm_err *err) CM_MUST_CHECK;

#endif
