/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The MTA's macros are text for people and differ between MTAs; here they
 * become the one form in which the kernel can be asked. What is not understood
 * is refused: a wrong tuple would at best find nothing, and at worst another
 * client's connection. Names are never resolved.
 */
#include "milter/filter/tuple.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define CM_TUPLE_TEXT_MAX 64 /* "IPv6:", 45 characters, and a zone */

static const uint8_t nowhere[16];

size_t
cm_tuple_addr_bytes(const struct cm_client *end)
{
    return end->family == AF_INET ? 4 : 16;
}

bool
cm_tuple_end_equal(const struct cm_client *a, const struct cm_client *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->addr, b->addr, cm_tuple_addr_bytes(a)) == 0;
}

bool
cm_tuple_any_mta(const struct cm_tuple *tuple)
{
    return memcmp(tuple->mta.addr, nowhere, cm_tuple_addr_bytes(&tuple->mta)) ==
           0;
}

bool
cm_tuple_valid(const struct cm_tuple *tuple)
{
    return (tuple->client.family == AF_INET ||
            tuple->client.family == AF_INET6) &&
           tuple->client.family == tuple->mta.family && tuple->client.port &&
           tuple->mta.port;
}

static bool
parse_port(const char *text, uint16_t *port_r)
{
    unsigned port = 0;
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 5 || text[len])
        return false;
    for (; *text; text++)
        port = port * 10 + (unsigned)(*text - '0');
    *port_r = (uint16_t)port;
    return port >= 1 && port <= 65535;
}

/* "192.0.2.1", "2001:db8::1%eth0", "IPv6:..." -> end, without its port. */
static bool
parse_addr(const char *text, struct cm_client *end)
{
    char plain[CM_TUPLE_TEXT_MAX];
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        cm_client_from_sockaddr(end, (const struct sockaddr *)&in);
        return true;
    }
    if (strncasecmp(text, "IPv6:", 5) == 0)
        text += 5;
    size_t len = strcspn(text, "%");
    if (len >= sizeof plain)
        return false;
    snprintf(plain, sizeof plain, "%.*s", (int)len, text);
    if (inet_pton(AF_INET6, plain, &in6.sin6_addr) != 1)
        return false;
    cm_client_from_sockaddr(end, (const struct sockaddr *)&in6);
    return true;
}

enum cm_status
cm_tuple_make(struct cm_tuple *tuple_r, const struct cm_client *client,
              const char *daemon_addr, const char *daemon_port,
              struct cm_err *err)
{
    struct cm_tuple tuple = {.client = *client};
    if (client->family == 0 || client->port == 0)
        return cm_err_set(err, CM_EINVAL, "the client did not come over TCP");
    if (!daemon_port)
        return cm_err_set(err, CM_EINVAL,
                          "the MTA does not send {daemon_port}");
    tuple.mta.family = client->family;
    if (daemon_addr && !parse_addr(daemon_addr, &tuple.mta))
        return cm_err_set(err, CM_EINVAL,
                          "{daemon_addr} is no address: \"%.60s\"",
                          daemon_addr);
    if (!parse_port(daemon_port, &tuple.mta.port))
        return cm_err_set(err, CM_EINVAL, "{daemon_port} is no port: \"%.60s\"",
                          daemon_port);
    /* A listener on [::] takes clients of both families. */
    if (client->family == AF_INET && tuple.mta.family == AF_INET6 &&
        cm_tuple_any_mta(&tuple))
        tuple.mta.family = AF_INET;
    if (tuple.mta.family != client->family)
        return cm_err_set(err, CM_EINVAL,
                          "client and {daemon_addr} are of two families");
    *tuple_r = tuple;
    return CM_OK;
}
