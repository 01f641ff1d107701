/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The trap that shapes this file: the kernel's exact lookup falls back to the
 * LISTENING socket of the port when no connection matches, and SOCK_DESTROY by
 * addresses alone then kills the MTA's listener and reports success. A client
 * that left a moment ago is enough. So an answer counts only if its state is
 * ESTABLISHED or CLOSE_WAIT and both its ends are the ones asked for, and what
 * is destroyed is named by the cookie of such an answer.
 *
 * In a question "source" is our host's side, the MTA's. An IPv4 question finds
 * IPv4 connections of an AF_INET6 listener as well, but a walk (NLM_F_DUMP)
 * compares the family of the socket, so it is made once for each.
 *
 * Rejected: reading /proc/net/tcp (no cookie, and linear), and tcpkill-like
 * forged segments (they race with the reply that must not be sent).
 */
#include "milter/filter/sockdiag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CM_SOCKDIAG_BYTES 16384 /* more than one message of a walk ever is */
#define CM_SOCKDIAG_OPEN  ((1u << TCP_ESTABLISHED) | (1u << TCP_CLOSE_WAIT))

struct question {
    struct nlmsghdr head;
    struct inet_diag_req_v2 req;
};

/* What a question is about, and the answers to it that match. */
struct search {
    const struct cm_tuple *wanted;
    struct cm_sockdiag_conn found;
    unsigned matches;
};

enum cm_status
cm_sockdiag_open(struct cm_sockdiag *diag_r, struct cm_err *err)
{
    diag_r->seq = 0;
    diag_r->fd =
        socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (diag_r->fd < 0)
        return cm_err_set(err, CM_EIO, "no NETLINK_SOCK_DIAG: %s",
                          strerror(errno));
    return CM_OK;
}

void
cm_sockdiag_close(struct cm_sockdiag *diag)
{
    if (diag->fd >= 0)
        close(diag->fd);
    diag->fd = -1;
}

/* --- one answer --- */

static void
read_end(struct cm_client *end, int family, const __be32 *addr, __be16 port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
    memcpy(&in.sin_addr, addr, sizeof in.sin_addr);
    memcpy(&in6.sin6_addr, addr, sizeof in6.sin6_addr);
    /* This turns ::ffff:192.0.2.1 into IPv4. */
    if (family == AF_INET)
        cm_client_from_sockaddr(end, (const struct sockaddr *)&in);
    else
        cm_client_from_sockaddr(end, (const struct sockaddr *)&in6);
}

static void
consider(struct search *search, const struct inet_diag_msg *msg)
{
    struct cm_sockdiag_conn conn = {
        .cookie =
            (uint64_t)msg->id.idiag_cookie[1] << 32 | msg->id.idiag_cookie[0],
        .inode = msg->idiag_inode,
        .uid = msg->idiag_uid,
        .interface = msg->id.idiag_if,
        .client_closed = msg->idiag_state == TCP_CLOSE_WAIT,
    };
    if (msg->idiag_state > 31 || !(CM_SOCKDIAG_OPEN & (1u << msg->idiag_state)))
        return;
    read_end(&conn.tuple.mta, msg->idiag_family, msg->id.idiag_src,
             msg->id.idiag_sport);
    read_end(&conn.tuple.client, msg->idiag_family, msg->id.idiag_dst,
             msg->id.idiag_dport);
    struct cm_client mta = conn.tuple.mta;
    if (cm_tuple_any_mta(search->wanted))
        memset(mta.addr, 0, sizeof mta.addr);
    if (!cm_tuple_end_equal(&conn.tuple.client, &search->wanted->client) ||
        !cm_tuple_end_equal(&mta, &search->wanted->mta))
        return;
    search->found = conn;
    search->matches++;
}

/* --- one question --- */

static struct inet_diag_req_v2
question_about(const struct cm_tuple *tuple)
{
    struct inet_diag_req_v2 req = {.sdiag_family = (__u8)tuple->mta.family,
                                   .sdiag_protocol = IPPROTO_TCP,
                                   .idiag_states = CM_SOCKDIAG_OPEN};
    size_t bytes = cm_tuple_addr_bytes(&tuple->mta);
    memcpy(req.id.idiag_src, tuple->mta.addr, bytes);
    memcpy(req.id.idiag_dst, tuple->client.addr, bytes);
    req.id.idiag_sport = htons(tuple->mta.port);
    req.id.idiag_dport = htons(tuple->client.port);
    req.id.idiag_cookie[0] = req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    return req;
}

/* The errno, positive, in an error or end message; 0: none. */
static int
errno_in(const struct nlmsghdr *head)
{
    int negative = 0;
    if (head->nlmsg_len >= NLMSG_LENGTH(sizeof negative))
        memcpy(&negative, NLMSG_DATA(head), sizeof negative);
    return negative < 0 ? -negative : 0;
}

/* Takes one message of an answer; true when it was the last, *errno_r set. */
static bool
take(const struct nlmsghdr *head, struct search *search, int *errno_r)
{
    struct inet_diag_msg msg;
    *errno_r = 0;
    switch (head->nlmsg_type) {
    case NLMSG_ERROR:
    case NLMSG_DONE:
        *errno_r = errno_in(head);
        return true;
    case SOCK_DIAG_BY_FAMILY:
        if (head->nlmsg_len < NLMSG_LENGTH(sizeof msg)) {
            *errno_r = EPROTO;
            return true;
        }
        memcpy(&msg, NLMSG_DATA(head), sizeof msg);
        if (search)
            consider(search, &msg);
        return !(head->nlmsg_flags & NLM_F_MULTI);
    default:
        return false;
    }
}

static int
read_answer(struct cm_sockdiag *diag, struct search *search)
{
    union {
        struct nlmsghdr head;
        char bytes[CM_SOCKDIAG_BYTES];
    } buf;
    for (;;) {
        ssize_t got = recv(diag->fd, &buf, sizeof buf, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        unsigned left = (unsigned)got;
        for (const struct nlmsghdr *head = &buf.head; NLMSG_OK(head, left);
             head = NLMSG_NEXT(head, left)) {
            int failed = 0;
            /* Another number is the rest of an answer given up before. */
            if (head->nlmsg_seq == diag->seq && take(head, search, &failed))
                return failed;
        }
    }
}

/* Asks and reads the whole answer: 0 or an errno. search may be NULL. */
static int
ask(struct cm_sockdiag *diag, int type, int flags,
    const struct inet_diag_req_v2 *req, struct search *search)
{
    struct question q = {.head = {.nlmsg_len = sizeof q,
                                  .nlmsg_type = (__u16)type,
                                  .nlmsg_flags = (__u16)(NLM_F_REQUEST | flags),
                                  .nlmsg_seq = ++diag->seq},
                         .req = *req};
    ssize_t sent;
    do
        sent = send(diag->fd, &q, sizeof q, 0);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : read_answer(diag, search);
}

static enum cm_status
not_here(struct cm_err *err)
{
    return cm_err_set(err, CM_NOTFOUND,
                      "no such connection on this host: the client has left, "
                      "or came through a proxy or another network namespace");
}

static enum cm_status
judge(int failed, const struct search *search, struct cm_err *err)
{
    if (failed && failed != ENOENT)
        return cm_err_set(err, CM_EIO, "socket lookup: %s", strerror(failed));
    if (search->matches == 0)
        return not_here(err);
    if (search->matches > 1)
        return cm_err_set(err, CM_EINVAL,
                          "%u connections match, and {daemon_addr} does not "
                          "tell which",
                          search->matches);
    return CM_OK;
}

static enum cm_status
find_exact(struct cm_sockdiag *diag, const struct cm_tuple *tuple,
           uint32_t interface, struct cm_sockdiag_conn *conn_r,
           struct cm_err *err)
{
    struct search search = {.wanted = tuple};
    struct inet_diag_req_v2 req = question_about(tuple);
    req.id.idiag_if = interface;
    int failed = ask(diag, SOCK_DIAG_BY_FAMILY, 0, &req, &search);
    enum cm_status status = judge(failed, &search, err);
    if (status == CM_OK)
        *conn_r = search.found;
    return status;
}

static enum cm_status
find_by_walk(struct cm_sockdiag *diag, const struct cm_tuple *tuple,
             struct cm_sockdiag_conn *conn_r, struct cm_err *err)
{
    struct search search = {.wanted = tuple};
    struct inet_diag_req_v2 req = question_about(tuple);
    int failed = ask(diag, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req, &search);
    if (!failed && tuple->client.family == AF_INET) {
        req.sdiag_family = AF_INET6;
        failed = ask(diag, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req, &search);
    }
    enum cm_status status = judge(failed, &search, err);
    if (status == CM_OK)
        *conn_r = search.found;
    return status;
}

static bool
is_link_local(const struct cm_client *end)
{
    return end->family == AF_INET6 && end->addr[0] == 0xfe &&
           (end->addr[1] & 0xc0) == 0x80;
}

bool
cm_sockdiag_must_walk(const struct cm_tuple *tuple)
{
    return cm_tuple_any_mta(tuple) || is_link_local(&tuple->client);
}

enum cm_status
cm_sockdiag_find(struct cm_sockdiag *diag, const struct cm_tuple *tuple,
                 struct cm_sockdiag_conn *conn_r, struct cm_err *err)
{
    if (cm_sockdiag_must_walk(tuple))
        return find_by_walk(diag, tuple, conn_r, err);
    return find_exact(diag, tuple, 0, conn_r, err);
}

enum cm_status
cm_sockdiag_find_again(struct cm_sockdiag *diag,
                       const struct cm_sockdiag_conn *conn,
                       struct cm_sockdiag_conn *now_r, struct cm_err *err)
{
    struct cm_sockdiag_conn now;
    enum cm_status status =
        find_exact(diag, &conn->tuple, conn->interface, &now, err);
    /* The same addresses again, but a later connection? */
    if (status == CM_OK && now.cookie != conn->cookie)
        status = not_here(err);
    if (status == CM_OK)
        *now_r = now;
    return status;
}

enum cm_status
cm_sockdiag_is_open(struct cm_sockdiag *diag,
                    const struct cm_sockdiag_conn *conn, struct cm_err *err)
{
    struct cm_sockdiag_conn now;
    return cm_sockdiag_find_again(diag, conn, &now, err);
}

enum cm_status
cm_sockdiag_destroy(struct cm_sockdiag *diag,
                    const struct cm_sockdiag_conn *conn, struct cm_err *err)
{
    struct inet_diag_req_v2 req = question_about(&conn->tuple);
    req.id.idiag_if = conn->interface;
    req.id.idiag_cookie[0] = (uint32_t)conn->cookie;
    req.id.idiag_cookie[1] = (uint32_t)(conn->cookie >> 32);
    int failed = ask(diag, SOCK_DESTROY, NLM_F_ACK, &req, NULL);
    if (failed == ENOENT || failed == ESTALE)
        return not_here(err);
    if (failed == EOPNOTSUPP)
        return cm_err_set(err, CM_EIO,
                          "SOCK_DESTROY: this kernel was built without "
                          "CONFIG_INET_DIAG_DESTROY");
    if (failed)
        return cm_err_set(err, CM_EIO, "SOCK_DESTROY: %s", strerror(failed));
    return CM_OK;
}
