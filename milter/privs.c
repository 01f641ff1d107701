/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups first, then the group id, then the user id: each needs what the next
 * gives up. The way back is tried at the end, because a drop that only looks
 * done is worse than none. From setresuid() on the kernel clears all
 * capabilities; ambient ones, which would survive, are cleared before.
 */
#include "milter/privs.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define CM_PRIVS_GROUPS_MAX 256

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[CM_PRIVS_GROUPS_MAX + 1];
    int ngroups;
};

static enum cm_status
look_up(struct identity *id, const char *user, const char *extra_group,
        struct cm_err *err)
{
    const struct passwd *pw = getpwnam(user);
    if (!pw)
        return cm_err_set(err, CM_EINVAL, "there is no user \"%s\"", user);
    id->uid = pw->pw_uid;
    id->gid = pw->pw_gid;
    id->ngroups = CM_PRIVS_GROUPS_MAX;
    if (getgrouplist(user, id->gid, id->groups, &id->ngroups) < 0)
        return cm_err_set(err, CM_EINVAL, "user \"%s\" is in too many groups",
                          user);
    if (!extra_group || !*extra_group)
        return CM_OK;
    const struct group *gr = getgrnam(extra_group);
    if (!gr)
        return cm_err_set(err, CM_EINVAL, "there is no group \"%s\"",
                          extra_group);
    id->groups[id->ngroups++] = gr->gr_gid;
    return CM_OK;
}

static enum cm_status
become(const struct identity *id, const char *user, struct cm_err *err)
{
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (setgroups((size_t)id->ngroups, id->groups) < 0 ||
        setresgid(id->gid, id->gid, id->gid) < 0 ||
        setresuid(id->uid, id->uid, id->uid) < 0)
        return cm_err_set(err, CM_EIO, "cannot become \"%s\": %s", user,
                          strerror(errno));
    if (id->uid != 0 && (setuid(0) == 0 || geteuid() != id->uid ||
                         getuid() != id->uid || getegid() != id->gid))
        return cm_err_set(err, CM_EIO, "privileges were not given up");
    return CM_OK;
}

static enum cm_status
seal(struct cm_err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return cm_err_set(err, CM_EIO, "prctl: %s", strerror(errno));
    return CM_OK;
}

/* Without root, capabilities can only have come from a service manager, for the
 * dropper, which has its own by now. capset() is not called for nothing: a
 * hardened unit may forbid it. */
static enum cm_status
drop_capabilities(struct cm_err *err)
{
    struct __user_cap_header_struct head = {.version =
                                                _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
    static const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    memset(caps, 0, sizeof caps);
    if (syscall(SYS_capget, &head, caps) < 0)
        return cm_err_set(err, CM_EIO, "capget: %s", strerror(errno));
    if (memcmp(caps, none, sizeof caps) != 0 &&
        syscall(SYS_capset, &head, none) < 0)
        return cm_err_set(err, CM_EIO, "capset: %s", strerror(errno));
    return CM_OK;
}

enum cm_status
cm_privs_drop(const char *user, const char *extra_group, struct cm_err *err)
{
    struct identity id;
    if (geteuid() != 0) {
        enum cm_status status = drop_capabilities(err);
        return status == CM_OK ? seal(err) : status;
    }
    if (!user || !*user)
        return cm_err_set(err, CM_EINVAL,
                          "started as root: set the user to become, or "
                          "\"root\" to stay root");
    enum cm_status status = look_up(&id, user, extra_group, err);
    if (status == CM_OK)
        status = become(&id, user, err);
    if (status == CM_OK)
        status = seal(err);
    return status;
}
