/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PRIVS_H
#define CM_PRIVS_H

#include "milter/err.h"

/*
 * cm_privs_drop - let go of root for good, once sockets are bound and files
 * that only root may read are read.
 *
 * user         who to become when started as root; "root" stays root, and must
 *              be written for that: NULL or "" is CM_EINVAL
 * extra_group  a further group to be in, e.g. that of a socket; NULL or "" for
 *              none
 *
 * Started as anybody else, nobody is become. In every case the process and its
 * children can gain no privileges any more (PR_SET_NO_NEW_PRIVS), and neither
 * a core file nor another process of the same user shows its memory
 * (PR_SET_DUMPABLE 0): it holds passwords.
 *
 * CM_OK; CM_EINVAL: no such user or group, or the rule above; CM_EIO: the
 * kernel refused. After a failure the process must end. Call it once, before
 * any thread is started.
 */
enum cm_status cm_privs_drop(const char *user, const char *extra_group,
                             struct cm_err *err) CM_MUST_CHECK;

#endif
