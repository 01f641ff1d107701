/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROP_WORKER_H
#define CM_DROP_WORKER_H

#include "milter/filter/dropper.h"

#include <stdint.h>

/* How a worker's process ends by itself. */
enum cm_drop_worker_end {
    CM_DROP_WORKER_HUNG_UP = 0, /* the filter is gone: no more work */
    CM_DROP_WORKER_BROKEN = 1,  /* a new one may do better */
    CM_DROP_WORKER_USELESS = 2  /* the self-test says that nothing works */
};

/*
 * cm_drop_worker_run - the whole life of a worker process: self-test, report,
 * then one request after the other. It believes none of them: port, rate,
 * lookup, cookie and process are its own.
 *
 * fd      to the filter
 * number  of this worker
 * caps    the capabilities that it has, a mask of CM_CAP_*
 *
 * Returns how the process is to end. One thread; allocates next to nothing.
 */
enum cm_drop_worker_end cm_drop_worker_run(int fd, uint32_t number,
                                           uint64_t caps,
                                           const struct cm_dropper_opts *opts);

#endif
