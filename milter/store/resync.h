/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RESYNC_H
#define CM_RESYNC_H

#include "milter/store/tail.h"

/*
 * cm_resync - read every document into a new table, bring it up to date with
 * what the log gained meanwhile, swap it in.
 *
 * pos_r  where to go on in the log; also written on CM_NOTFOUND
 *
 * CM_OK; CM_NOTFOUND: Redis holds no epoch, so no data of ours: the replica is
 * as it was; CM_ECONFLICT: the data changed in a way that cannot be followed,
 * begin again; else as cm_link_command. The replica changes only on CM_OK.
 */
enum cm_status cm_resync(struct cm_link *link, const struct cm_keys *keys,
                         struct cm_replica *replica, int command_timeout_ms,
                         struct cm_position *pos_r,
                         struct cm_err *err) CM_MUST_CHECK;

#endif
