/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads of this room. The signal mask is inherited, so it is set around
 * pthread_create rather than at the thread's start: no window in which a
 * SIGTERM could be delivered to the new thread.
 */
#include "milter/store/thread.h"

#include <signal.h>
#include <string.h>

enum cm_status
cm_thread_start(pthread_t *thread_r, void *(*fn)(void *), void *arg,
                struct cm_err *err)
{
    sigset_t all, saved;
    sigfillset(&all);
    pthread_t thread;
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    int rc = pthread_create(&thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    if (rc != 0)
        return cm_err_set(err, CM_EIO, "cannot start a thread (error %d)", rc);
    if (thread_r)
        *thread_r = thread;
    else
        pthread_detach(thread);
    return CM_OK;
}
