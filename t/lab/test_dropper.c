/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The dropper against the running kernel, with this program as MTA and client.
 * What the client met is read from its raw socket, and what must not have been
 * touched is used afterwards. As root; 77 where the kernel has no SOCK_DESTROY
 * or we are not root, which is found out without the code under test.
 */
#include "milter/clock.h"
#include "milter/filter/drop_caps.h"
#include "milter/filter/dropper.h"
#include "milter/filter/sockdiag.h"
#include "milter/log.h"
#include "milter/privs.h"
#include "t/lab/tcp_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER        "nobody"
#define DEADLINE_MS 1000 /* the machine may be busy */
#define BOTH        (CM_CAP_NET_ADMIN | CM_CAP_SYS_PTRACE)

#define WAIT_UNTIL(condition, ms)                                              \
    do {                                                                       \
        int64_t until_ = cm_clock_mono_ms() + (ms);                            \
        while (!(condition)) {                                                 \
            if (cm_clock_mono_ms() >= until_)                                  \
                fail_msg("not within %d ms: %s", (int)(ms), #condition);       \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

/* In a forked child cmocka's asserts would run on into the next test. */
#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "child: line %d: %s\n", __LINE__, #condition);     \
            _exit(1);                                                          \
        }                                                                      \
    } while (0)

static uint16_t port;       /* allowed */
static uint16_t other_port; /* not allowed */
static struct cm_dropper *dropper;

static struct cm_dropper_opts
usual(void)
{
    return (struct cm_dropper_opts){.fin = true,
                                    .user = USER,
                                    .ports = {1, port},
                                    .nports = 2,
                                    .deadline_ms = DEADLINE_MS,
                                    .per_second = 100000};
}

static void
start(const struct cm_dropper_opts *opts)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_dropper_start(&dropper, opts, &err) != CM_OK)
        fail_msg("start: %s", err.msg);
}

static int
set_up(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = usual();
    start(&opts);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    cm_dropper_stop(&dropper);
    return 0;
}

static enum cm_status
drop_hinted(enum cm_drop_how how, const struct cm_tuple *tuple, pid_t hint)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status status = cm_dropper_drop(dropper, how, tuple, hint, &err);
    if (status != CM_OK && !err.msg[0])
        fail_msg("%s without a reason", cm_status_name(status));
    return status;
}

static enum cm_status
drop(enum cm_drop_how how, const struct cm_tuple *tuple)
{
    return drop_hinted(how, tuple, getpid());
}

/* --- what /proc says --- */

/* The rest of the line "NAME:\t..."; "" when there is none. */
static void
status_line(pid_t pid, const char *name, char *out, size_t cap)
{
    char path[64], line[512];
    size_t len = strlen(name);
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    out[0] = '\0';
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, cap, "%s", line + len + 2);
        }
    }
    if (f)
        fclose(f);
}

static uint64_t
status_hex(pid_t pid, const char *name)
{
    char text[64];
    status_line(pid, name, text, sizeof text);
    return text[0] ? strtoull(text, NULL, 16) : UINT64_MAX;
}

/* The one child of that name, or 0. */
static pid_t
child_of(pid_t parent, const char *name)
{
    char text[64];
    pid_t found = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc");
    while (dir && (entry = readdir(dir))) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0)
            continue;
        status_line(pid, "PPid", text, sizeof text);
        if (atoi(text) != parent)
            continue;
        status_line(pid, "State", text, sizeof text);
        if (text[0] == 'Z')
            continue;
        status_line(pid, "Name", text, sizeof text);
        if (strcmp(text, name) == 0)
            found = pid;
    }
    if (dir)
        closedir(dir);
    return found;
}

/* A zombie is gone too: in a container nobody may collect it. */
static bool
is_gone(pid_t pid)
{
    char text[64];
    status_line(pid, "State", text, sizeof text);
    return text[0] == '\0' || text[0] == 'Z';
}

static pid_t
keeper_pid(pid_t filter)
{
    return child_of(filter, "drop-keeper");
}

static pid_t
worker_pid(pid_t filter)
{
    pid_t keeper = keeper_pid(filter);
    return keeper ? child_of(keeper, "drop-worker") : 0;
}

static int
descriptors(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

static int
run_child(void (*body)(void))
{
    int how = 0;
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &how, 0) != pid)
        fail_msg("fork: %s", strerror(errno));
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

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
    int listener = tcp_listen(ways[i].kind, port);
    tcp_connect(&pair, listener, ways[i].kind, port);
    if (!tcp_works(&pair))
        fail_msg("%s: no connection", ways[i].name);
    if (ways[i].any)
        memset(pair.tuple.mta.addr, 0, sizeof pair.tuple.mta.addr);
    assert_int_equal(send(pair.client, ".\r\n", 3, MSG_NOSIGNAL), 3);
    if (!unread)
        assert_int_equal(recv(pair.server, buf, sizeof buf, 0), 3);
    if (drop(how, &pair.tuple) != CM_OK)
        fail_msg("%s: not dropped", ways[i].name);
    assert_int_equal(send(pair.server, "250 ok\r\n", 8, MSG_NOSIGNAL), -1);
    assert_int_equal(tcp_client_end(&pair),
                     how == CM_DROP_RST ? TCP_RESET : TCP_EOF);
    tcp_close(&pair);
    tcp_connect(&pair, listener, ways[i].kind, port);
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
        0,          1, getppid(), keeper_pid(getpid()), worker_pid(getpid()),
        0x3fffffff, -1};
    int listener = tcp_listen(TCP_V4, port);
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        struct tcp_pair pair;
        tcp_connect(&pair, listener, TCP_V4, port);
        if (drop_hinted(CM_DROP_FIN, &pair.tuple, hints[i]) != CM_OK)
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
        int listener = tcp_listen(TCP_V4, port);
        tcp_connect(&pair, listener, TCP_V4, port);
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
            drop_hinted(CM_DROP_FIN, &pair.tuple, hinted ? mta : 0), CM_OK);
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
    int listener = tcp_listen(TCP_V4, port);
    for (int i = 0; i < 2; i++) {
        struct tcp_pair pair;
        tcp_connect(&pair, listener, TCP_V4, port);
        shutdown(pair.client, SHUT_WR);
        WAIT_UNTIL(tcp_kernel_state(&pair.tuple) == TCP_CLOSE_WAIT, 1000);
        assert_int_equal(drop(hows[i], &pair.tuple), CM_OK);
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
        int listener = tcp_listen(ways[i].kind, port);
        tcp_connect(&pair, listener, ways[i].kind, port);
        struct cm_tuple stale = pair.tuple;
        close(pair.client); /* first, so that nothing of the server's stays */
        pair.client = -1;
        WAIT_UNTIL(tcp_kernel_state(&stale) == TCP_CLOSE_WAIT, 1000);
        tcp_close(&pair);
        WAIT_UNTIL(tcp_kernel_state(&stale) == TCP_LISTEN, 1000);
        if (ways[i].any)
            memset(stale.mta.addr, 0, sizeof stale.mta.addr);
        assert_int_equal(drop(CM_DROP_RST, &stale), CM_NOTFOUND);
        assert_int_equal(drop(CM_DROP_FIN, &stale), CM_NOTFOUND);
        tcp_connect(&pair, listener, ways[i].kind, port);
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
        int listener = tcp_listen(ways[i].kind, port);
        tcp_connect(&pair, listener, ways[i].kind, port);
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
        tcp_connect(&pair, listener, ways[i].kind, port);
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
    int listener = tcp_listen(TCP_V4, port);
    tcp_connect(&pair, listener, TCP_V4, port);
    shutdown(pair.server, SHUT_WR);
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_NOTFOUND);
    assert_int_equal(drop(CM_DROP_FIN, &pair.tuple), CM_NOTFOUND);
    tcp_close(&pair);
    close(listener);
}

static void
test_drop_twice_is_not_found(void **state)
{
    (void)state;
    struct tcp_pair pair;
    int listener = tcp_listen(TCP_V6, port);
    tcp_connect(&pair, listener, TCP_V6, port);
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_OK);
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_NOTFOUND);
    assert_int_equal(drop(CM_DROP_FIN, &pair.tuple), CM_NOTFOUND);
    tcp_close(&pair);
    close(listener);
}

static void
test_drop_other_port_is_refused(void **state)
{
    (void)state;
    struct tcp_pair pair;
    struct cm_err err;
    int listener = tcp_listen(TCP_V4, other_port);
    tcp_connect(&pair, listener, TCP_V4, other_port);
    assert_int_equal(
        cm_dropper_drop(dropper, CM_DROP_RST, &pair.tuple, 0, &err), CM_EINVAL);
    assert_non_null(strstr(err.msg, strerror(EACCES)));
    assert_int_equal(drop(CM_DROP_FIN, &pair.tuple), CM_EINVAL);
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
        int listener = tcp_listen(ways[i].kind, port);
        tcp_connect(&pair, listener, ways[i].kind, port);
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
            assert_int_not_equal(drop(CM_DROP_RST, &wrong[k]), CM_OK);
            assert_int_not_equal(drop(CM_DROP_FIN, &wrong[k]), CM_OK);
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
    struct cm_tuple empty = {.client = {.port = 1}, .mta = {.port = port}};
    assert_int_equal(drop(CM_DROP_RST, &empty), CM_EINVAL);
}

static int
connect_to(const char *addr, uint16_t from)
{
    struct sockaddr_in here = {.sin_family = AF_INET,
                               .sin_port = htons(from),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    inet_pton(AF_INET, addr, &there.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0 ||
        connect(fd, (struct sockaddr *)&there, sizeof there) < 0)
        fail_msg("connect to %s: %s", addr, strerror(errno));
    return fd;
}

/* One client address and port, two addresses of the MTA: which is meant? */
static void
test_drop_ambiguous_is_refused(void **state)
{
    (void)state;
    uint16_t from = tcp_free_port();
    int listener = tcp_listen(TCP_MAPPED, port);
    int a = connect_to("127.0.0.1", from), b = connect_to("127.0.0.2", from);
    struct cm_tuple tuple = {
        .client = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = from},
        .mta = {.family = AF_INET, .port = port}};
    assert_int_equal(drop(CM_DROP_RST, &tuple), CM_EINVAL);
    memcpy(tuple.mta.addr, (uint8_t[]){127, 0, 0, 2}, 4);
    assert_int_equal(drop(CM_DROP_RST, &tuple), CM_OK);
    assert_int_equal(
        tcp_client_end(&(struct tcp_pair){.client = b, .server = -1}),
        TCP_RESET);
    /* Now there is but one. */
    memset(tuple.mta.addr, 0, 4);
    assert_int_equal(drop(CM_DROP_RST, &tuple), CM_OK);
    assert_int_equal(
        tcp_client_end(&(struct tcp_pair){.client = a, .server = -1}),
        TCP_RESET);
    close(a);
    close(b);
    close(listener);
}

/* --- privileges --- */

static void
check_process(pid_t pid, uint64_t caps, const char *seccomp)
{
    char text[64], uids[64];
    unsigned uid = (unsigned)getpwnam(USER)->pw_uid;
    assert_int_not_equal(pid, 0);
    assert_true(status_hex(pid, "CapEff") == caps);
    assert_true(status_hex(pid, "CapPrm") == caps);
    assert_true(status_hex(pid, "CapInh") == 0);
    assert_true(status_hex(pid, "CapBnd") == 0);
    assert_true(status_hex(pid, "CapAmb") == 0);
    status_line(pid, "NoNewPrivs", text, sizeof text);
    assert_string_equal(text, "1");
    status_line(pid, "Seccomp", text, sizeof text);
    assert_string_equal(text, seccomp);
    status_line(pid, "Groups", text, sizeof text);
    assert_int_equal(strspn(text, " "), strlen(text));
    snprintf(uids, sizeof uids, "%u\t%u\t%u\t%u", uid, uid, uid, uid);
    status_line(pid, "Uid", text, sizeof text);
    assert_string_equal(text, uids);
}

/* How many descriptors opendir() finds: ".", "..", and those that are meant. */
static void
check_descriptors(pid_t pid, int meant)
{
    assert_int_equal(descriptors(pid), meant + 2);
}

static void
test_privileges_with_fin(void **state)
{
    (void)state;
    check_process(keeper_pid(getpid()), BOTH, "0");
    check_process(worker_pid(getpid()), BOTH, "2");
    check_descriptors(keeper_pid(getpid()), 4);
    check_descriptors(worker_pid(getpid()), 6); /* netlink and /proc too */
}

static void
test_privileges_without_fin(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = usual();
    struct tcp_pair pair;
    cm_dropper_stop(&dropper);
    opts.fin = false;
    start(&opts);
    check_process(keeper_pid(getpid()), CM_CAP_NET_ADMIN, "0");
    check_process(worker_pid(getpid()), CM_CAP_NET_ADMIN, "2");
    check_descriptors(worker_pid(getpid()), 5);
    assert_null(cm_dropper_why_not(dropper, CM_DROP_RST));
    assert_non_null(cm_dropper_why_not(dropper, CM_DROP_FIN));
    int listener = tcp_listen(TCP_V4, port);
    tcp_connect(&pair, listener, TCP_V4, port);
    assert_int_equal(drop(CM_DROP_FIN, &pair.tuple), CM_EIO);
    assert_true(tcp_works(&pair));
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_OK);
    assert_int_equal(tcp_client_end(&pair), TCP_RESET);
    tcp_close(&pair);
    close(listener);
}

/* As in main: start, give up everything, and then drop. */
static void
filter_without_privileges(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = usual();
    struct tcp_pair pair;
    struct cm_err err;
    const enum cm_drop_how hows[] = {CM_DROP_RST, CM_DROP_FIN};
    int listener = tcp_listen(TCP_V4, port);
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    CHECK(cm_privs_drop(USER, NULL, &err) == CM_OK);
    CHECK(status_hex(getpid(), "CapEff") == 0);
    CHECK(status_hex(getpid(), "CapPrm") == 0);
    for (int i = 0; i < 2; i++) {
        tcp_connect(&pair, listener, TCP_V4, port);
        CHECK(cm_dropper_drop(mine, hows[i], &pair.tuple, 0, &err) == CM_OK);
        CHECK(tcp_client_end(&pair) == (i ? TCP_EOF : TCP_RESET));
        tcp_close(&pair);
    }
    cm_dropper_stop(&mine);
    CHECK(mine == NULL);
}

static void
test_filter_itself_needs_no_privileges(void **state)
{
    (void)state;
    assert_int_equal(run_child(filter_without_privileges), 0);
}

static void
ordinary_user(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = usual();
    struct cm_tuple tuple = {
        .client = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = 1},
        .mta = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = port}};
    struct cm_err err;
    CHECK(cm_privs_drop(USER, NULL, &err) == CM_OK);
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    const char *rst = cm_dropper_why_not(mine, CM_DROP_RST);
    const char *fin = cm_dropper_why_not(mine, CM_DROP_FIN);
    CHECK(rst && strstr(rst, "CAP_NET_ADMIN"));
    CHECK(fin && strstr(fin, "CAP_SYS_PTRACE"));
    CHECK(cm_dropper_drop(mine, CM_DROP_RST, &tuple, 0, &err) == CM_EIO);
    CHECK(strcmp(err.msg, rst) == 0);
    CHECK(keeper_pid(getpid()) == 0);
    cm_dropper_stop(&mine);
}

static void
test_without_capabilities_says_why(void **state)
{
    (void)state;
    assert_int_equal(run_child(ordinary_user), 0);
}

/* As a service manager starts us: an ordinary user, with the capabilities. */
static void
ordinary_user_with_capabilities(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = usual();
    struct cm_drop_user user;
    struct tcp_pair pair;
    struct cm_err err;
    const enum cm_drop_how hows[] = {CM_DROP_RST, CM_DROP_FIN};
    int listener = tcp_listen(TCP_V4, port);
    CHECK(cm_drop_caps_user(&user, USER, &err) == CM_OK);
    CHECK(cm_drop_caps_keep(&user, BOTH, &err) == CM_OK);
    opts.user = "";
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    CHECK(status_hex(worker_pid(getpid()), "CapEff") == BOTH);
    for (int i = 0; i < 2; i++) {
        tcp_connect(&pair, listener, TCP_V4, port);
        CHECK(cm_dropper_drop(mine, hows[i], &pair.tuple, 0, &err) == CM_OK);
        CHECK(tcp_client_end(&pair) == (i ? TCP_EOF : TCP_RESET));
        tcp_close(&pair);
    }
    cm_dropper_stop(&mine);
}

static void
test_capabilities_without_root_are_enough(void **state)
{
    (void)state;
    assert_int_equal(run_child(ordinary_user_with_capabilities), 0);
}

static int to_child[2], to_parent[2];

/* Root of a user namespace holds every capability, but not over this network:
 * only the self-test can tell. */
static void
root_of_a_namespace(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = usual();
    struct cm_err err;
    char c = 'u';
    if (unshare(CLONE_NEWUSER) < 0)
        _exit(77);
    CHECK(write(to_parent[1], &c, 1) == 1 && read(to_child[0], &c, 1) == 1);
    CHECK(setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0);
    CHECK(cm_drop_caps_permitted() & CM_CAP_NET_ADMIN);
    opts.fin = false;
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    const char *rst = cm_dropper_why_not(mine, CM_DROP_RST);
    CHECK(rst && strstr(rst, strerror(EPERM)));
    CHECK(keeper_pid(getpid()) == 0); /* of no use, so not kept */
    cm_dropper_stop(&mine);
}

static bool
write_map(pid_t pid, const char *which)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, "0 0 65536\n", 10) == 10;
    if (fd >= 0)
        close(fd);
    return ok;
}

static void
test_selftest_finds_that_the_capability_does_not_reach(void **state)
{
    (void)state;
    int how = 0;
    char c;
    if (pipe2(to_child, O_CLOEXEC) < 0 || pipe2(to_parent, O_CLOEXEC) < 0)
        fail_msg("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        root_of_a_namespace();
        _exit(0);
    }
    close(to_parent[1]);
    if (read(to_parent[0], &c, 1) == 1) {
        assert_true(write_map(pid, "uid_map") && write_map(pid, "gid_map"));
        assert_int_equal(write(to_child[1], &c, 1), 1);
    }
    close(to_child[0]);
    close(to_child[1]);
    close(to_parent[0]);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how));
    if (WEXITSTATUS(how) == 77)
        skip(); /* a kernel without user namespaces */
    assert_int_equal(WEXITSTATUS(how), 0);
}

/* --- a child that fails --- */

static bool
is_up(void)
{
    return !cm_dropper_why_not(dropper, CM_DROP_RST) &&
           !cm_dropper_why_not(dropper, CM_DROP_FIN);
}

static void
test_dead_worker_is_unavailable_then_replaced(void **state)
{
    (void)state;
    struct tcp_pair pair;
    int listener = tcp_listen(TCP_V4, port);
    tcp_connect(&pair, listener, TCP_V4, port);
    for (int i = 0; i < 3; i++) {
        pid_t first = worker_pid(getpid());
        assert_int_equal(kill(first, SIGKILL), 0);
        assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_EIO);
        assert_non_null(cm_dropper_why_not(dropper, CM_DROP_RST));
        assert_non_null(cm_dropper_why_not(dropper, CM_DROP_FIN));
        WAIT_UNTIL(is_up(), 5000);
        assert_int_not_equal(worker_pid(getpid()), first);
        assert_true(tcp_works(&pair));
    }
    check_process(worker_pid(getpid()), BOTH, "2");
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_OK);
    assert_int_equal(tcp_client_end(&pair), TCP_RESET);
    tcp_close(&pair);
    close(listener);
}

struct asker {
    const struct cm_tuple *tuple;
    enum cm_status status;
    int64_t took_ms;
};

static void *
ask_once(void *arg)
{
    struct asker *asker = arg;
    int64_t began_ms = cm_clock_mono_ms();
    asker->status =
        cm_dropper_drop(dropper, CM_DROP_RST, asker->tuple, 0, NULL);
    asker->took_ms = cm_clock_mono_ms() - began_ms;
    return NULL;
}

/* The request lies unread when its worker dies; the next one must leave it. */
static void
test_request_in_flight_fails_and_is_never_executed(void **state)
{
    (void)state;
    struct tcp_pair pair;
    pthread_t thread;
    pid_t worker = worker_pid(getpid());
    struct cm_dropper_opts opts = usual();
    int listener = tcp_listen(TCP_V4, port);
    cm_dropper_stop(&dropper);
    opts.deadline_ms = 20000; /* so that it is not the deadline that saves us */
    start(&opts);
    worker = worker_pid(getpid());
    tcp_connect(&pair, listener, TCP_V4, port);
    struct asker asker = {.tuple = &pair.tuple};
    assert_int_equal(kill(worker, SIGSTOP), 0);
    assert_int_equal(pthread_create(&thread, NULL, ask_once, &asker), 0);
    usleep(50000);
    assert_int_equal(kill(worker, SIGKILL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(asker.status, CM_EIO);
    assert_true(asker.took_ms < 5000);
    WAIT_UNTIL(is_up(), 5000);
    usleep(50000);
    assert_true(tcp_works(&pair));
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_OK);
    tcp_close(&pair);
    close(listener);
}

static void
test_worker_that_sleeps_meets_the_deadline_and_does_nothing_late(void **state)
{
    (void)state;
    struct tcp_pair late, next;
    pthread_t thread;
    pid_t worker = worker_pid(getpid());
    int listener = tcp_listen(TCP_V4, port);
    tcp_connect(&late, listener, TCP_V4, port);
    tcp_connect(&next, listener, TCP_V4, port);
    struct asker first = {.tuple = &late.tuple},
                 second = {.tuple = &next.tuple};
    assert_int_equal(kill(worker, SIGSTOP), 0);
    ask_once(&first);
    assert_int_equal(first.status, CM_ETIMEOUT);
    assert_in_range(first.took_ms, DEADLINE_MS, 3 * DEADLINE_MS);
    /* Woken up, it must refuse the first, and that answer is not the second's.
     */
    assert_int_equal(pthread_create(&thread, NULL, ask_once, &second), 0);
    usleep(100000);
    assert_int_equal(kill(worker, SIGCONT), 0);
    pthread_join(thread, NULL);
    assert_int_equal(second.status, CM_OK);
    assert_int_equal(tcp_client_end(&next), TCP_RESET);
    assert_true(tcp_works(&late));
    assert_int_equal(worker_pid(getpid()), worker);
    tcp_close(&late);
    tcp_close(&next);
    close(listener);
}

static void
test_dead_keeper_takes_the_worker_along(void **state)
{
    (void)state;
    struct cm_tuple tuple = {
        .client = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = 1},
        .mta = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = port}};
    pid_t worker = worker_pid(getpid());
    assert_int_equal(kill(keeper_pid(getpid()), SIGKILL), 0);
    WAIT_UNTIL(is_gone(worker), 5000);
    assert_int_equal(drop(CM_DROP_RST, &tuple), CM_EIO);
    assert_non_null(cm_dropper_why_not(dropper, CM_DROP_RST));
    assert_non_null(cm_dropper_why_not(dropper, CM_DROP_FIN));
}

static void
filter_that_is_killed(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = usual();
    struct cm_err err;
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    CHECK(cm_privs_drop(USER, NULL, &err) == CM_OK);
    pause();
}

static void
test_filter_killed_takes_its_children_along(void **state)
{
    (void)state;
    int how;
    pid_t keeper, worker, filter = fork();
    if (filter == 0) {
        filter_that_is_killed();
        _exit(1);
    }
    WAIT_UNTIL((worker = worker_pid(filter)) != 0, 5000);
    keeper = keeper_pid(filter);
    /* A terminal's or a service manager's signal is not for them. */
    kill(keeper, SIGTERM);
    kill(worker, SIGTERM);
    kill(worker, SIGINT);
    usleep(20000);
    assert_int_equal(worker_pid(filter), worker);
    kill(filter, SIGKILL);
    assert_int_equal(waitpid(filter, &how, 0), filter);
    WAIT_UNTIL(is_gone(worker), 5000);
    WAIT_UNTIL(is_gone(keeper), 5000);
}

/* --- many --- */

#define THREADS 8
#define DROPS   50

static int shared_listener;
static pthread_mutex_t accepting = PTHREAD_MUTEX_INITIALIZER;
static atomic_int done, reset, ended, finished;

static void *
drop_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < DROPS; i++) {
        struct tcp_pair pair;
        enum cm_drop_how how = i % 2 ? CM_DROP_FIN : CM_DROP_RST;
        pthread_mutex_lock(&accepting);
        tcp_connect(&pair, shared_listener, TCP_V4, port);
        pthread_mutex_unlock(&accepting);
        if (cm_dropper_drop(dropper, how, &pair.tuple, getpid(), NULL) == CM_OK)
            atomic_fetch_add(&done, 1);
        enum tcp_end end = tcp_client_end(&pair);
        if (end == TCP_RESET && how == CM_DROP_RST)
            atomic_fetch_add(&reset, 1);
        if (end == TCP_EOF && how == CM_DROP_FIN)
            atomic_fetch_add(&ended, 1);
        tcp_close(&pair);
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

static void
test_drop_from_many_threads_counts_exactly(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    pid_t worker = worker_pid(getpid());
    int ours = descriptors(getpid()), theirs = descriptors(worker);
    atomic_store(&done, 0);
    atomic_store(&reset, 0);
    atomic_store(&ended, 0);
    atomic_store(&finished, 0);
    shared_listener = tcp_listen(TCP_V4, port);
    int64_t began_us = cm_clock_mono_us();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, drop_many, NULL), 0);
    /* The heartbeat asks too, and must take nobody's answer away. */
    while (atomic_load(&finished) < THREADS)
        assert_true(is_up());
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    print_message("%d drops in %lld us\n", THREADS * DROPS,
                  (long long)(cm_clock_mono_us() - began_us));
    close(shared_listener);
    assert_int_equal(atomic_load(&done), THREADS * DROPS);
    assert_int_equal(atomic_load(&reset), THREADS * DROPS / 2);
    assert_int_equal(atomic_load(&ended), THREADS * DROPS / 2);
    assert_int_equal(descriptors(getpid()), ours);
    assert_int_equal(worker_pid(getpid()), worker);
    assert_int_equal(descriptors(worker), theirs);
}

static void
test_rate_limit_refuses_and_recovers(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = usual();
    struct tcp_pair pair;
    struct cm_err err;
    int listener = tcp_listen(TCP_V4, port);
    cm_dropper_stop(&dropper);
    opts.per_second = 5;
    start(&opts);
    int64_t began_ms = cm_clock_mono_ms();
    for (int i = 0; i < 5; i++) {
        tcp_connect(&pair, listener, TCP_V4, port);
        assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_OK);
        tcp_close(&pair);
    }
    tcp_connect(&pair, listener, TCP_V4, port);
    enum cm_status status =
        cm_dropper_drop(dropper, CM_DROP_RST, &pair.tuple, 0, &err);
    if (cm_clock_mono_ms() - began_ms >= 200)
        skip(); /* so slow a machine has earned its sixth */
    assert_int_equal(status, CM_EIO);
    assert_non_null(strstr(err.msg, "5 drops"));
    assert_true(tcp_works(&pair));
    usleep(250000);
    assert_int_equal(drop(CM_DROP_RST, &pair.tuple), CM_OK);
    tcp_close(&pair);
    close(listener);
}

static void
test_start_and_stop_leave_nothing(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = usual();
    cm_dropper_stop(&dropper);
    assert_null(dropper);
    cm_dropper_stop(&dropper);
    int before = descriptors(getpid());
    for (int i = 0; i < 10; i++) {
        start(&opts);
        assert_true(is_up());
        cm_dropper_stop(&dropper);
    }
    assert_int_equal(descriptors(getpid()), before);
    assert_int_equal(keeper_pid(getpid()), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void
test_start_refuses_bad_options(void **state)
{
    (void)state;
    struct cm_dropper *none = NULL;
    struct cm_dropper_opts good = usual(), bad[6];
    for (int i = 0; i < 6; i++)
        bad[i] = good;
    bad[0].nports = CM_DROPPER_PORTS_MAX + 1;
    bad[1].ports[1] = 0;
    bad[2].deadline_ms = 0;
    bad[3].per_second = 0;
    bad[4].user = "no such user";
    bad[5].user = "";
    for (int i = 0; i < 6; i++) {
        struct cm_err err = {CM_OK, ""};
        assert_int_equal(cm_dropper_start(&none, &bad[i], &err), CM_EINVAL);
        assert_true(err.msg[0]);
        assert_null(none);
    }
}

static void
test_no_ports_means_no_process(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = usual();
    cm_dropper_stop(&dropper);
    opts.nports = 0;
    start(&opts);
    assert_non_null(cm_dropper_why_not(dropper, CM_DROP_RST));
    assert_non_null(cm_dropper_why_not(dropper, CM_DROP_FIN));
    assert_int_equal(keeper_pid(getpid()), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_drop_rst_resets_and_leaks_no_byte),
        TEST(test_drop_fin_ends_and_leaks_no_byte),
        TEST(test_drop_fin_with_any_hint),
        TEST(test_drop_fin_of_another_users_process),
        TEST(test_drop_half_closed_client),
        TEST(test_drop_stale_tuple_leaves_the_listener_alive),
        TEST(test_destroy_of_a_stale_answer_leaves_the_listener_alive),
        TEST(test_drop_connection_that_the_server_ended_is_not_found),
        TEST(test_drop_twice_is_not_found),
        TEST(test_drop_other_port_is_refused),
        TEST(test_drop_wrong_tuples_hit_nobody),
        TEST(test_drop_malformed_tuple_is_refused),
        TEST(test_drop_ambiguous_is_refused),
        TEST(test_privileges_with_fin),
        TEST(test_privileges_without_fin),
        TEST(test_filter_itself_needs_no_privileges),
        TEST(test_without_capabilities_says_why),
        TEST(test_capabilities_without_root_are_enough),
        TEST(test_selftest_finds_that_the_capability_does_not_reach),
        TEST(test_dead_worker_is_unavailable_then_replaced),
        TEST(test_request_in_flight_fails_and_is_never_executed),
        TEST(test_worker_that_sleeps_meets_the_deadline_and_does_nothing_late),
        TEST(test_dead_keeper_takes_the_worker_along),
        TEST(test_filter_killed_takes_its_children_along),
        TEST(test_drop_from_many_threads_counts_exactly),
        TEST(test_rate_limit_refuses_and_recovers),
        TEST(test_start_and_stop_leave_nothing),
        TEST(test_start_refuses_bad_options),
        TEST(test_no_ports_means_no_process),
    };
    signal(SIGPIPE, SIG_IGN);
    cm_log_set_level(CM_LOG_ERR);
    if (geteuid() != 0 ||
        !(status_hex(getpid(), "CapEff") & CM_CAP_NET_ADMIN) ||
        !tcp_kernel_destroys()) {
        fprintf(stderr, "needs root, CAP_NET_ADMIN and SOCK_DESTROY\n");
        return 77;
    }
    /* Some groups to be dropped. */
    if (setgroups(2, (const gid_t[]){1, 2}) < 0)
        return 77;
    port = tcp_free_port();
    other_port = tcp_free_port();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
