/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A loopback port is chosen by the kernel; the listener is closed before the
 * test begins, so that nobody else can come in. Reading the kernel's build
 * configuration instead was rejected: it is not always there, and says nothing
 * about namespaces and security modules.
 */
#include "milter/filter/drop_selftest.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void
close_both(struct cm_drop_selftest *test)
{
    if (test->client >= 0)
        close(test->client);
    if (test->server >= 0)
        close(test->server);
    test->client = test->server = -1;
}

static socklen_t
loopback(struct sockaddr_storage *ss, int family)
{
    memset(ss, 0, sizeof *ss);
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        memcpy(ss, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    memcpy(ss, &in6, sizeof in6);
    return sizeof in6;
}

static bool
connect_pair(struct cm_drop_selftest *test, int family)
{
    struct sockaddr_storage ss;
    socklen_t len = loopback(&ss, family);
    struct sockaddr *sa = (struct sockaddr *)&ss;
    int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = listener >= 0 && bind(listener, sa, len) == 0 &&
              listen(listener, 1) == 0 && getsockname(listener, sa, &len) == 0;
    if (ok) {
        test->client = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ok = test->client >= 0 && connect(test->client, sa, len) == 0;
    }
    if (ok) {
        cm_client_from_sockaddr(&test->tuple.mta, sa);
        test->server = accept4(listener, sa, &len, SOCK_CLOEXEC);
        cm_client_from_sockaddr(&test->tuple.client, sa);
        ok = test->server >= 0;
    }
    int saved = errno;
    if (listener >= 0)
        close(listener);
    errno = saved;
    return ok;
}

enum cm_status
cm_drop_selftest_open(struct cm_drop_selftest *test_r, struct cm_err *err)
{
    static const int families[] = {AF_INET, AF_INET6};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        *test_r = (struct cm_drop_selftest){.client = -1, .server = -1};
        if (connect_pair(test_r, families[i]))
            return CM_OK;
        close_both(test_r);
    }
    return cm_err_set(err, CM_EIO, "self-test: no loopback connection: %s",
                      strerror(errno));
}

enum cm_status
cm_drop_selftest_run(struct cm_drop_selftest *test, struct cm_sockdiag *diag,
                     struct cm_err *err)
{
    struct cm_sockdiag_conn conn;
    struct cm_err why = {CM_OK, ""};
    char byte;
    enum cm_status status = cm_sockdiag_find(diag, &test->tuple, &conn, &why);
    if (status == CM_OK)
        status = cm_sockdiag_destroy(diag, &conn, &why);
    if (status != CM_OK) {
        status = cm_err_set(err, CM_EIO, "self-test: %s", why.msg);
    } else {
        ssize_t got = recv(test->client, &byte, 1, MSG_DONTWAIT);
        if (got >= 0 || errno != ECONNRESET)
            status = cm_err_set(err, CM_EIO,
                                "self-test: SOCK_DESTROY did not reset the "
                                "connection");
    }
    close_both(test);
    return status;
}
