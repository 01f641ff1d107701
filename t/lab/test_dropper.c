/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The drop against the running kernel, with this program as MTA and client.
 * What the client met is read from its raw socket, and what must not have been
 * touched is used afterwards.
 */
#include "milter/filter/sockdiag.h"
#include "t/lab/drop_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- the drop itself --- */

static const struct {
    const char *name;
    enum tcp_kind kind;
    bool any; /* the MTA's address is not told */
} ways[] = {
    {"IPv4", TCP_V4, false},
    {"IPv6", TCP_V6, false},
    {"IPv4 on [::]", TCP_MAPPED, false},
    {"IPv4, any", TCP_V4, true},
    {"IPv6, any", TCP_V6, true},
    {"IPv4 on [::], any", TCP_MAPPED, true},
};
#define WAYS (sizeof ways / sizeof *ways)

/* As at the end of a message: the client has said all and waits. What the
 * server says after the drop must reach nobody. */
static void
drop_one_way(size_t i, enum cm_drop_how how, bool unread)
{
    struct tcp_pair pair;
    char buf[16];
    int listener = tcp_listen(ways[i].kind, rig.port);
    tcp_connect(&pair, listener, ways[i].kind, rig.port);
    if (!tcp_works(&pair))
        fail_msg("%s: no connection", ways[i].name);
    if (ways[i].any)
        memset(pair.tuple.mta.addr, 0, sizeof pair.tuple.mta.addr);
    assert_int_equal(send(pair.client, ".\r\n", 3, MSG_NOSIGNAL), 3);
    if (!unread)
        assert_int_equal(recv(pair.server, buf, sizeof buf, 0), 3);
    if (rig_drop(how, &pair.tuple) != CM_OK)
        fail_msg("%s: not dropped", ways[i].name);
    assert_int_equal(send(pair.server, "250 ok\r\n", 8, MSG_NOSIGNAL), -1);
    assert_int_equal(tcp_client_end(&pair),
                     how == CM_DROP_RST ? TCP_RESET : TCP_EOF);
    tcp_close(&pair);
    tcp_connect(&pair, listener, ways[i].kind, rig.port);
    assert_true(tcp_works(&pair));
    tcp_close(&pair);
    close(listener);
}

static void
test_drop_rst_resets_and_leaks_no_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAYS; i++) {
        drop_one_way(i, CM_DROP_RST, false);
        drop_one_way(i, CM_DROP_RST, true);
    }
}

static void
test_drop_fin_ends_and_leaks_no_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAYS; i++) {
        drop_one_way(i, CM_DROP_FIN, false);
        drop_one_way(i, CM_DROP_FIN, true);
    }
}

static void
test_drop_fin_with_any_hint(void **state)
{
    (void)state;
    const pid_t hints[] = {
        0,          1, getppid(), rig_keeper(getpid()), rig_worker(getpid()),
        0x3fffffff, -1};
    int listener = tcp_listen(TCP_V4, rig.port);
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        struct tcp_pair pair;
        tcp_connect(&pair, listener, TCP_V4, rig.port);
        if (rig_drop_hinted(CM_DROP_FIN, &pair.tuple, hints[i]) != CM_OK)
            fail_msg("hint %d", (int)hints[i]);
        assert_int_equal(tcp_client_end(&pair), TCP_EOF);
        tcp_close(&pair);
    }
    close(listener);
}

/* The MTA's process: of another user, and not dumpable, as Postfix's are. */
static void
test_drop_fin_of_another_users_process(void **state)
{
    (void)state;
    const struct passwd *pw = getpwnam("daemon");
    for (int hinted = 0; pw && hinted < 2; hinted++) {
        struct tcp_pair pair;
        int how;
        int listener = tcp_listen(TCP_V4, rig.port);
        tcp_connect(&pair, listener, TCP_V4, rig.port);
        pid_t mta = fork();
        if (mta == 0) {
            char c;
            close(pair.client);
            CHECK(setgid(pw->pw_gid) == 0 && setuid(pw->pw_uid) == 0);
            CHECK(prctl(PR_GET_DUMPABLE) != 1);
            CHECK(send(pair.server, "2", 1, MSG_NOSIGNAL) == 1);
            CHECK(recv(pair.server, &c, 1, 0) == 0);
            _exit(0);
        }
        close(pair.server);
        pair.server = -1;
        assert_int_equal(tcp_client_end(&pair), TCP_BYTE);
        assert_int_equal(
            rig_drop_hinted(CM_DROP_FIN, &pair.tuple, hinted ? mta : 0), CM_OK);
        assert_int_equal(tcp_client_end(&pair), TCP_EOF);
        assert_int_equal(waitpid(mta, &how, 0), mta);
        assert_int_equal(how, 0);
        tcp_close(&pair);
        close(listener);
    }
}

static void
test_drop_half_closed_client(void **state)
{
    (void)state;
    const enum cm_drop_how hows[] = {CM_DROP_RST, CM_DROP_FIN};
    int listener = tcp_listen(TCP_V4, rig.port);
    for (int i = 0; i < 2; i++) {
        struct tcp_pair pair;
        tcp_connect(&pair, listener, TCP_V4, rig.port);
        shutdown(pair.client, SHUT_WR);
        WAIT_UNTIL(tcp_kernel_state(&pair.tuple) == TCP_CLOSE_WAIT, 1000);
        assert_int_equal(rig_drop(hows[i], &pair.tuple), CM_OK);
        assert_int_equal(tcp_client_end(&pair),
                         hows[i] == CM_DROP_RST ? TCP_RESET : TCP_EOF);
        tcp_close(&pair);
    }
    close(listener);
}

/* --- what must not be hit --- */

/* The trap: for the tuple of a client that has left, the kernel's lookup gives
 * the listener. A destroy by that answer would end the MTA's service. */
static void
test_drop_stale_tuple_leaves_the_listener_alive(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAYS; i++) {
        struct tcp_pair pair;
        int listener = tcp_listen(ways[i].kind, rig.port);
        tcp_connect(&pair, listener, ways[i].kind, rig.port);
        struct cm_tuple stale = pair.tuple;
        close(pair.client); /* first, so that nothing of the server's stays */
        pair.client = -1;
        WAIT_UNTIL(tcp_kernel_state(&stale) == TCP_CLOSE_WAIT, 1000);
        tcp_close(&pair);
        WAIT_UNTIL(tcp_kernel_state(&stale) == TCP_LISTEN, 1000);
        if (ways[i].any)
            memset(stale.mta.addr, 0, sizeof stale.mta.addr);
        assert_int_equal(rig_drop(CM_DROP_RST, &stale), CM_NOTFOUND);
        assert_int_equal(rig_drop(CM_DROP_FIN, &stale), CM_NOTFOUND);
        tcp_connect(&pair, listener, ways[i].kind, rig.port);
        assert_true(tcp_works(&pair));
        tcp_close(&pair);
        close(listener);
    }
}

/* The same between lookup and destroy: there the cookie alone protects. */
static void
test_destroy_of_a_stale_answer_leaves_the_listener_alive(void **state)
{
    (void)state;
    struct cm_sockdiag diag;
    assert_int_equal(cm_sockdiag_open(&diag, NULL), CM_OK);
    for (size_t i = 0; i < WAYS; i++) {
        struct tcp_pair pair;
        struct cm_sockdiag_conn conn;
        int listener = tcp_listen(ways[i].kind, rig.port);
        tcp_connect(&pair, listener, ways[i].kind, rig.port);
        if (ways[i].any)
            memset(pair.tuple.mta.addr, 0, sizeof pair.tuple.mta.addr);
        assert_int_equal(cm_sockdiag_find(&diag, &pair.tuple, &conn, NULL),
                         CM_OK);
        assert_int_equal(cm_sockdiag_is_open(&diag, &conn, NULL), CM_OK);
        close(pair.client);
        pair.client = -1;
        WAIT_UNTIL(tcp_kernel_state(&conn.tuple) == TCP_CLOSE_WAIT, 1000);
        tcp_close(&pair);
        WAIT_UNTIL(tcp_kernel_state(&conn.tuple) == TCP_LISTEN, 1000);
        assert_int_equal(cm_sockdiag_is_open(&diag, &conn, NULL), CM_NOTFOUND);
        assert_int_equal(cm_sockdiag_destroy(&diag, &conn, NULL), CM_NOTFOUND);
        tcp_connect(&pair, listener, ways[i].kind, rig.port);
        assert_true(tcp_works(&pair));
        tcp_close(&pair);
        close(listener);
    }
    cm_sockdiag_close(&diag);
}

static void
test_drop_connection_that_the_server_ended_is_not_found(void **state)
{
    (void)state;
    struct tcp_pair pair;
    int listener = tcp_listen(TCP_V4, rig.port);
    tcp_connect(&pair, listener, TCP_V4, rig.port);
    shutdown(pair.server, SHUT_WR);
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_NOTFOUND);
    assert_int_equal(rig_drop(CM_DROP_FIN, &pair.tuple), CM_NOTFOUND);
    tcp_close(&pair);
    close(listener);
}

static void
test_drop_twice_is_not_found(void **state)
{
    (void)state;
    struct tcp_pair pair;
    int listener = tcp_listen(TCP_V6, rig.port);
    tcp_connect(&pair, listener, TCP_V6, rig.port);
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_OK);
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_NOTFOUND);
    assert_int_equal(rig_drop(CM_DROP_FIN, &pair.tuple), CM_NOTFOUND);
    tcp_close(&pair);
    close(listener);
}

static void
test_drop_other_port_is_refused(void **state)
{
    (void)state;
    struct tcp_pair pair;
    struct cm_err err;
    int listener = tcp_listen(TCP_V4, rig.other_port);
    tcp_connect(&pair, listener, TCP_V4, rig.other_port);
    assert_int_equal(
        cm_dropper_drop(rig.dropper, CM_DROP_RST, &pair.tuple, 0, &err),
        CM_EINVAL);
    assert_non_null(strstr(err.msg, strerror(EACCES)));
    assert_int_equal(rig_drop(CM_DROP_FIN, &pair.tuple), CM_EINVAL);
    assert_true(tcp_works(&pair));
    tcp_close(&pair);
    close(listener);
}

static void
test_drop_wrong_tuples_hit_nobody(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAYS; i++) {
        struct tcp_pair pair;
        struct cm_tuple wrong[4];
        int listener = tcp_listen(ways[i].kind, rig.port);
        tcp_connect(&pair, listener, ways[i].kind, rig.port);
        if (ways[i].any)
            memset(pair.tuple.mta.addr, 0, sizeof pair.tuple.mta.addr);
        for (int k = 0; k < 4; k++)
            wrong[k] = pair.tuple;
        wrong[0].client.port ^= 1;
        wrong[1].client.addr[3] ^= 6; /* 127.0.0.7, or an IPv6 neighbour */
        wrong[2].mta.addr[3] ^= 6;
        /* Both ends the other way round: the client's own socket. */
        wrong[3] = (struct cm_tuple){.client = pair.tuple.mta,
                                     .mta = pair.tuple.client};
        for (int k = 0; k < 4; k++) {
            assert_int_not_equal(rig_drop(CM_DROP_RST, &wrong[k]), CM_OK);
            assert_int_not_equal(rig_drop(CM_DROP_FIN, &wrong[k]), CM_OK);
        }
        assert_true(tcp_works(&pair));
        tcp_close(&pair);
        close(listener);
    }
}

static void
test_drop_malformed_tuple_is_refused(void **state)
{
    (void)state;
    struct cm_tuple empty = {.client = {.port = 1}, .mta = {.port = rig.port}};
    assert_int_equal(rig_drop(CM_DROP_RST, &empty), CM_EINVAL);
}

static int
connect_to(const char *addr, uint16_t from)
{
    struct sockaddr_in here = {.sin_family = AF_INET,
                               .sin_port = htons(from),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in there = {.sin_family = AF_INET,
                                .sin_port = htons(rig.port)};
    int on = 1;
    inet_pton(AF_INET, addr, &there.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0 ||
        connect(fd, (struct sockaddr *)&there, sizeof there) < 0)
        fail_msg("connect to %s: %s", addr, strerror(errno));
    return fd;
}

/* One client address and rig.port, two addresses of the MTA: which is meant? */
static void
test_drop_ambiguous_is_refused(void **state)
{
    (void)state;
    uint16_t from = tcp_free_port();
    int listener = tcp_listen(TCP_MAPPED, rig.port);
    int a = connect_to("127.0.0.1", from), b = connect_to("127.0.0.2", from);
    struct cm_tuple tuple = {
        .client = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = from},
        .mta = {.family = AF_INET, .port = rig.port}};
    assert_int_equal(rig_drop(CM_DROP_RST, &tuple), CM_EINVAL);
    memcpy(tuple.mta.addr, (uint8_t[]){127, 0, 0, 2}, 4);
    assert_int_equal(rig_drop(CM_DROP_RST, &tuple), CM_OK);
    assert_int_equal(
        tcp_client_end(&(struct tcp_pair){.client = b, .server = -1}),
        TCP_RESET);
    /* Now there is but one. */
    memset(tuple.mta.addr, 0, 4);
    assert_int_equal(rig_drop(CM_DROP_RST, &tuple), CM_OK);
    assert_int_equal(
        tcp_client_end(&(struct tcp_pair){.client = a, .server = -1}),
        TCP_RESET);
    close(a);
    close(b);
    close(listener);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_drop_rst_resets_and_leaks_no_byte),
        RIG_TEST(test_drop_fin_ends_and_leaks_no_byte),
        RIG_TEST(test_drop_fin_with_any_hint),
        RIG_TEST(test_drop_fin_of_another_users_process),
        RIG_TEST(test_drop_half_closed_client),
        RIG_TEST(test_drop_stale_tuple_leaves_the_listener_alive),
        RIG_TEST(test_destroy_of_a_stale_answer_leaves_the_listener_alive),
        RIG_TEST(test_drop_connection_that_the_server_ended_is_not_found),
        RIG_TEST(test_drop_twice_is_not_found),
        RIG_TEST(test_drop_other_port_is_refused),
        RIG_TEST(test_drop_wrong_tuples_hit_nobody),
        RIG_TEST(test_drop_malformed_tuple_is_refused),
        RIG_TEST(test_drop_ambiguous_is_refused),
    };
    return rig_is_ready() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
