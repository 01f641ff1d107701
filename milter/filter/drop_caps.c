/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The opposite of milter/privs.c, which gives up everything: here a little
 * survives the change of user. PR_SET_KEEPCAPS carries the permitted set over
 * setresuid(), and capset() then takes away all but the list. The order
 * matters: the bounding set and the groups need what the next step gives up.
 *
 * The two system calls are made directly: libcap would be one more library for
 * two lines.
 */
#include "milter/filter/drop_caps.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CM_DROP_CAPS_WORDS _LINUX_CAPABILITY_U32S_3

_Static_assert(CM_CAP_NET_ADMIN == UINT64_C(1) << CAP_NET_ADMIN,
               "CAP_NET_ADMIN");
_Static_assert(CM_CAP_SYS_PTRACE == UINT64_C(1) << CAP_SYS_PTRACE,
               "CAP_SYS_PTRACE");

struct sets {
    uint64_t effective, permitted, inheritable;
};

enum cm_status
cm_drop_caps_user(struct cm_drop_user *user_r, const char *name,
                  struct cm_err *err)
{
    *user_r = (struct cm_drop_user){
        .change = geteuid() == 0, .uid = getuid(), .gid = getgid()};
    if (!user_r->change)
        return CM_OK;
    if (!name || !*name)
        return cm_err_set(err, CM_EINVAL,
                          "started as root: set the user to become, or "
                          "\"root\" to stay root");
    const struct passwd *pw = getpwnam(name);
    if (!pw)
        return cm_err_set(err, CM_EINVAL, "there is no user \"%s\"", name);
    user_r->uid = pw->pw_uid;
    user_r->gid = pw->pw_gid;
    return CM_OK;
}

static bool
get_sets(struct sets *sets_r)
{
    struct __user_cap_header_struct head = {.version =
                                                _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[CM_DROP_CAPS_WORDS];
    if (syscall(SYS_capget, &head, data) < 0)
        return false;
    sets_r->effective = (uint64_t)data[1].effective << 32 | data[0].effective;
    sets_r->permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
    sets_r->inheritable =
        (uint64_t)data[1].inheritable << 32 | data[0].inheritable;
    return true;
}

/* Both sets become keep, the inheritable one empty. */
static bool
set_sets(uint64_t keep)
{
    struct __user_cap_header_struct head = {.version =
                                                _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[CM_DROP_CAPS_WORDS] = {
        {.effective = (uint32_t)keep, .permitted = (uint32_t)keep},
        {.effective = (uint32_t)(keep >> 32),
         .permitted = (uint32_t)(keep >> 32)}};
    return syscall(SYS_capset, &head, data) == 0;
}

uint64_t
cm_drop_caps_permitted(void)
{
    struct sets sets;
    return get_sets(&sets) ? sets.permitted : 0;
}

/* PR_CAPBSET_READ fails on the first number that is no capability. */
static bool
empty_bounding_set(void)
{
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0;
         cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return false;
    return true;
}

static bool
become(const struct cm_drop_user *user)
{
    return empty_bounding_set() && setgroups(0, NULL) == 0 &&
           prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 &&
           setresgid(user->gid, user->gid, user->gid) == 0 &&
           setresuid(user->uid, user->uid, user->uid) == 0 &&
           prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) == 0;
}

static bool
seal(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
}

static bool
is_done(const struct cm_drop_user *user, uint64_t keep)
{
    struct sets sets;
    return get_sets(&sets) && sets.effective == keep &&
           sets.permitted == keep && sets.inheritable == 0 &&
           getuid() == user->uid && geteuid() == user->uid &&
           getgid() == user->gid && getegid() == user->gid;
}

enum cm_status
cm_drop_caps_keep(const struct cm_drop_user *user, uint64_t keep,
                  struct cm_err *err)
{
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (user->change && !become(user))
        return cm_err_set(err, CM_EIO, "cannot become user %u: %s",
                          (unsigned)user->uid, strerror(errno));
    if (!set_sets(keep) || !seal())
        return cm_err_set(err, CM_EIO, "cannot give up capabilities: %s",
                          strerror(errno));
    if (!is_done(user, keep))
        return cm_err_set(err, CM_EIO, "capabilities were not given up");
    return CM_OK;
}
