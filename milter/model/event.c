/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's address as the model holds it. The only socket header here is
 * for the layout of struct sockaddr and the text form of addresses; nothing is
 * opened or asked.
 */
#include "milter/model/event.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

void
cm_client_print(const struct cm_client *client, char *out, size_t cap)
{
    bool known = client->family == AF_INET || client->family == AF_INET6;
    if (!known || !inet_ntop(client->family, client->addr, out, (socklen_t)cap))
        snprintf(out, cap, "unknown");
}

static void
take_inet(struct cm_client *client, const uint8_t *addr, in_port_t port)
{
    client->family = AF_INET;
    memcpy(client->addr, addr, 4);
    client->port = ntohs(port);
}

void
cm_client_from_sockaddr(struct cm_client *client_r, const struct sockaddr *sa)
{
    memset(client_r, 0, sizeof *client_r);
    if (!sa)
        return;
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        take_inet(client_r, (const uint8_t *)&in.sin_addr, in.sin_port);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
            take_inet(client_r, in6.sin6_addr.s6_addr + 12, in6.sin6_port);
        } else {
            client_r->family = AF_INET6;
            memcpy(client_r->addr, &in6.sin6_addr, 16);
            client_r->port = ntohs(in6.sin6_port);
        }
    }
}
