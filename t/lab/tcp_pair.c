/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/lab/tcp_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_PORT 20000
#define PORTS      10000

static socklen_t
address(struct sockaddr_storage *ss, enum tcp_kind kind, bool listening,
        uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_port = htons(port),
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    memset(ss, 0, sizeof *ss);
    if (kind == TCP_V4 || (kind == TCP_MAPPED && !listening)) {
        memcpy(ss, &in, sizeof in);
        return sizeof in;
    }
    if (kind == TCP_MAPPED)
        in6.sin6_addr = in6addr_any;
    memcpy(ss, &in6, sizeof in6);
    return sizeof in6;
}

/* -1: the port is taken. */
static int
try_listen(enum tcp_kind kind, uint16_t port)
{
    struct sockaddr_storage ss;
    socklen_t len = address(&ss, kind, true, port);
    int on = 1, off = 0;
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail_msg("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (kind == TCP_MAPPED)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (struct sockaddr *)&ss, len) == 0 && listen(fd, 128) == 0)
        return fd;
    close(fd);
    return -1;
}

uint16_t
tcp_free_port(void)
{
    static unsigned tries;
    for (unsigned i = 0; i < PORTS; i++) {
        unsigned n = ((unsigned)getpid() * 37 + tries++) % PORTS;
        uint16_t port = (uint16_t)(FIRST_PORT + n);
        int fd = try_listen(TCP_MAPPED, port);
        if (fd >= 0) {
            close(fd);
            return port;
        }
    }
    fail_msg("no port is free");
    return 0;
}

int
tcp_listen(enum tcp_kind kind, uint16_t port)
{
    int fd = try_listen(kind, port);
    if (fd < 0)
        fail_msg("cannot listen on port %u", port);
    return fd;
}

void
tcp_connect(struct tcp_pair *pair, int listener, enum tcp_kind kind,
            uint16_t port)
{
    struct sockaddr_storage ss;
    socklen_t len = address(&ss, kind, false, port);
    pair->server = -1;
    cm_client_from_sockaddr(&pair->tuple.mta, (struct sockaddr *)&ss);
    pair->client = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair->client < 0 ||
        connect(pair->client, (struct sockaddr *)&ss, len) < 0)
        fail_msg("connect: %s", strerror(errno));
    len = sizeof ss;
    pair->server =
        accept4(listener, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC);
    if (pair->server < 0)
        fail_msg("accept: %s", strerror(errno));
    cm_client_from_sockaddr(&pair->tuple.client, (struct sockaddr *)&ss);
}

void
tcp_close(struct tcp_pair *pair)
{
    if (pair->client >= 0)
        close(pair->client);
    if (pair->server >= 0)
        close(pair->server);
    pair->client = pair->server = -1;
}

enum tcp_end
tcp_client_end(const struct tcp_pair *pair)
{
    struct pollfd fd = {.fd = pair->client, .events = POLLIN};
    char byte;
    if (poll(&fd, 1, 2000) == 0)
        return TCP_NOTHING;
    ssize_t got = recv(pair->client, &byte, 1, MSG_DONTWAIT);
    if (got < 0)
        return errno == ECONNRESET ? TCP_RESET : TCP_NOTHING;
    return got == 0 ? TCP_EOF : TCP_BYTE;
}

static bool
passes(int from, int to)
{
    struct pollfd fd = {.fd = to, .events = POLLIN};
    char byte = 'x';
    return send(from, &byte, 1, MSG_NOSIGNAL) == 1 && poll(&fd, 1, 2000) == 1 &&
           recv(to, &byte, 1, MSG_DONTWAIT) == 1 && byte == 'x';
}

bool
tcp_works(const struct tcp_pair *pair)
{
    return passes(pair->client, pair->server) &&
           passes(pair->server, pair->client);
}

/* One exchange with the kernel, written out once more: the test must not lean
 * on the code it tests. 0 and the state, or -errno. */
static int
kernel(int type, int flags, const struct cm_tuple *tuple,
       const uint32_t cookie[2], struct inet_diag_msg *msg_r)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 req;
    } q = {.head = {.nlmsg_len = sizeof q,
                    .nlmsg_type = (__u16)type,
                    .nlmsg_flags = (__u16)(NLM_F_REQUEST | flags)},
           .req = {.sdiag_family = (__u8)tuple->mta.family,
                   .sdiag_protocol = IPPROTO_TCP,
                   .idiag_states = ~0u}};
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } a;
    int failed = 0;
    memcpy(q.req.id.idiag_src, tuple->mta.addr, sizeof tuple->mta.addr);
    memcpy(q.req.id.idiag_dst, tuple->client.addr, sizeof tuple->client.addr);
    q.req.id.idiag_sport = htons(tuple->mta.port);
    q.req.id.idiag_dport = htons(tuple->client.port);
    memcpy(q.req.id.idiag_cookie, cookie, sizeof q.req.id.idiag_cookie);
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0 || send(fd, &q, sizeof q, 0) < 0 ||
        recv(fd, &a, sizeof a, 0) < (ssize_t)sizeof a.head)
        failed = -errno;
    else if (a.head.nlmsg_type == NLMSG_ERROR)
        memcpy(&failed, NLMSG_DATA(&a.head), sizeof failed);
    else
        memcpy(msg_r, NLMSG_DATA(&a.head), sizeof *msg_r);
    if (fd >= 0)
        close(fd);
    return failed;
}

static const uint32_t no_cookie[2] = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE};

int
tcp_kernel_state(const struct cm_tuple *tuple)
{
    struct inet_diag_msg msg;
    int failed = kernel(SOCK_DIAG_BY_FAMILY, 0, tuple, no_cookie, &msg);
    return failed ? failed : msg.idiag_state;
}

bool
tcp_kernel_destroys(void)
{
    uint16_t port = tcp_free_port();
    int listener = tcp_listen(TCP_V4, port);
    struct tcp_pair pair;
    struct inet_diag_msg msg;
    tcp_connect(&pair, listener, TCP_V4, port);
    int failed = kernel(SOCK_DIAG_BY_FAMILY, 0, &pair.tuple, no_cookie, &msg);
    if (!failed)
        failed = kernel(SOCK_DESTROY, NLM_F_ACK, &pair.tuple,
                        msg.id.idiag_cookie, &msg);
    tcp_close(&pair);
    close(listener);
    return failed != -EOPNOTSUPP && failed != -EPERM;
}
