/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DROP_SELFTEST_H
#define CM_DROP_SELFTEST_H

#include "milter/err.h"
#include "milter/filter/sockdiag.h"

/*
 * A TCP connection of our own over loopback, to be destroyed by the very code
 * that will destroy others': the one proof that the kernel can, and lets us. In
 * two steps, because the sockets are made before the seccomp filter is in force
 * and destroyed after.
 */
struct cm_drop_selftest {
    int client, server; /* descriptors, or -1 */
    struct cm_tuple tuple;
};

/* cm_drop_selftest_open - over IPv4, or IPv6 where that is all there is. CM_OK
 * or CM_EIO. */
enum cm_status cm_drop_selftest_open(struct cm_drop_selftest *test_r,
                                     struct cm_err *err) CM_MUST_CHECK;

/* cm_drop_selftest_run - destroy it, and see that its client was reset. Closes
 * both sockets. CM_OK, or CM_EIO with the reason. */
enum cm_status cm_drop_selftest_run(struct cm_drop_selftest *test,
                                    struct cm_sockdiag *diag,
                                    struct cm_err *err) CM_MUST_CHECK;

#endif
