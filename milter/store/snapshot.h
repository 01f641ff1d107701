/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SNAPSHOT_H
#define CM_SNAPSHOT_H

#include "milter/err.h"

struct cm_replica;

/*
 * The replica on disk, so that a filter can start with the last known rules
 * while Redis is away. Text, one document per line, with a header naming format
 * version, epoch and sequence number, and a SHA-256 of the rest at the end.
 *
 * dir_fd  an open directory (kept from before privileges were dropped);
 * borrowed name    a file name without "/"
 */

/* cm_snapshot_write - to a temporary file, fsync, rename: the old one is whole
 * until the new one is. Mode 0640. CM_OK, CM_EIO (disk full, read-only),
 * CM_ENOMEM. */
enum cm_status cm_snapshot_write(int dir_fd, const char *name,
                                 struct cm_replica *replica,
                                 struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_snapshot_read - load it into the replica as one swap. Refuses a symbolic
 * link, a file that others may write or that belongs to neither us nor root, a
 * newer version, a bad checksum: CM_EPROTO, and the replica is as it was.
 * CM_NOTFOUND when there is none; CM_EIO; CM_ENOMEM.
 */
enum cm_status cm_snapshot_read(int dir_fd, const char *name,
                                struct cm_replica *replica,
                                struct cm_err *err) CM_MUST_CHECK;

#endif
