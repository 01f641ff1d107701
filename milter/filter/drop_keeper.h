/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROP_KEEPER_H
#define CM_DROP_KEEPER_H

#include "milter/filter/drop_caps.h"
#include "milter/filter/dropper.h"

#include <sys/types.h>

/* cm_drop_keeper_wanted - the capabilities that these options ask for and this
 * process can hand on; 0: a keeper would be of no use. */
uint64_t cm_drop_keeper_wanted(const struct cm_dropper_opts *opts);

/*
 * cm_drop_keeper_run - what the forked child does: gives up all but caps, then
 * keeps one worker running (drop_worker.h), until the filter ends.
 *
 * fd      of the socket pair to the filter; all other descriptors are closed
 * filter  the process that forked us; its end, by whatever cause, is ours
 *
 * Reports (drop_wire.h) go to fd. Never returns.
 */
_Noreturn void cm_drop_keeper_run(int fd, pid_t filter,
                                  const struct cm_drop_user *user,
                                  uint64_t caps,
                                  const struct cm_dropper_opts *opts);

#endif
