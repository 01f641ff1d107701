/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROP_CAPS_H
#define CM_DROP_CAPS_H

#include "milter/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Privileges of this process cut down to a list. A set of capabilities is a
 * mask of CM_CAP_* bits (capabilities(7)).
 */
#define CM_CAP_NET_ADMIN  (UINT64_C(1) << 12)
#define CM_CAP_SYS_PTRACE (UINT64_C(1) << 19)

/* Who to become. */
struct cm_drop_user {
    bool change; /* false: not started as root, so stay who we are */
    uid_t uid;
    gid_t gid;
};

/*
 * cm_drop_caps_user - look the user up, while its database can still be read.
 *
 * name  as for cm_privs_drop: must be given when started as root
 *
 * CM_OK, CM_EINVAL (no such user). Not thread-safe.
 */
enum cm_status cm_drop_caps_user(struct cm_drop_user *user_r, const char *name,
                                 struct cm_err *err) CM_MUST_CHECK;

/* cm_drop_caps_permitted - which capabilities this process may use; 0 when the
 * kernel does not tell. */
uint64_t cm_drop_caps_permitted(void);

/*
 * cm_drop_caps_keep - become that user, with exactly the capabilities of keep,
 * effective and permitted, and for good: no other groups, none inheritable,
 * ambient or bounding, no_new_privs, not dumpable.
 *
 * Without root the groups stay, and the bounding set, which no_new_privs makes
 * worthless. CM_OK, or CM_EIO: the process must then end. Looks at the result,
 * because a drop that only looks done is worse than none.
 */
enum cm_status cm_drop_caps_keep(const struct cm_drop_user *user, uint64_t keep,
                                 struct cm_err *err) CM_MUST_CHECK;

#endif
