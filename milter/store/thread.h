/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_THREAD_H
#define CM_THREAD_H

#include "milter/err.h"

#include <pthread.h>

/*
 * cm_thread_start - a thread that takes no signals, so that the daemon's own
 * handlers run where the daemon expects them. thread_r NULL: detached, nobody
 * joins it. CM_OK, CM_EIO (the system has no thread left).
 */
enum cm_status cm_thread_start(pthread_t *thread_r, void *(*fn)(void *),
                               void *arg, struct cm_err *err) CM_MUST_CHECK;

#endif
