/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef TCP_PAIR_H
#define TCP_PAIR_H

#include "milter/filter/tuple.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * TCP on loopback for tests: an MTA's listener, and a client's connection to
 * it, both ends ours. Ports are below 32768, where no outgoing connection takes
 * them. Every function fails the test when it cannot do its work.
 */
enum tcp_kind {
    TCP_V4,    /* 127.0.0.1 */
    TCP_V6,    /* ::1 */
    TCP_MAPPED /* an IPv4 client of a listener on [::] */
};

/* tcp_free_port - that nobody listens on. */
uint16_t tcp_free_port(void);
int tcp_listen(enum tcp_kind kind, uint16_t port);

struct tcp_pair {
    int client, server;
    struct cm_tuple tuple;
};
void tcp_connect(struct tcp_pair *pair, int listener, enum tcp_kind kind,
                 uint16_t port);
void tcp_close(struct tcp_pair *pair); /* what is still open of it */

/* What the client met. It waits 2 s. */
enum tcp_end { TCP_RESET, TCP_EOF, TCP_BYTE, TCP_NOTHING };
enum tcp_end tcp_client_end(const struct tcp_pair *pair);

/* tcp_works - a byte each way arrives. */
bool tcp_works(const struct tcp_pair *pair);

/* tcp_kernel_state - what the kernel's exact lookup answers for this tuple: a
 * state (TCP_LISTEN is 10), or -errno. */
int tcp_kernel_state(const struct cm_tuple *tuple);

/* tcp_kernel_destroys - can SOCK_DESTROY work here: does it say anything but
 * EOPNOTSUPP or EPERM about a socket that is ours? */
bool tcp_kernel_destroys(void);

#endif
