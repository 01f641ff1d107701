/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Plain questions about a request. Headers are kept as an array and searched
 * linearly: there are at most 64, and a hash would cost more than it saves.
 */
#include "admin/request.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const method_names[] = {
    [CM_METHOD_GET] = "GET",       [CM_METHOD_HEAD] = "HEAD",
    [CM_METHOD_POST] = "POST",     [CM_METHOD_PUT] = "PUT",
    [CM_METHOD_PATCH] = "PATCH",   [CM_METHOD_DELETE] = "DELETE",
    [CM_METHOD_OTHER] = "(other)",
};

enum cm_method
cm_method_parse(const char *name)
{
    for (int m = 0; m < CM_METHOD_OTHER; m++) {
        if (strcmp(method_names[m], name) == 0)
            return (enum cm_method)m;
    }
    return CM_METHOD_OTHER;
}

const char *
cm_method_name(enum cm_method method)
{
    return method_names[method];
}

bool
cm_method_is_safe(enum cm_method method)
{
    return method == CM_METHOD_GET || method == CM_METHOD_HEAD;
}

/* An IPv4 client of a dual-stack socket is shown and counted as IPv4. */
static void
set_ipv6(struct cm_peer *peer, const struct sockaddr_in6 *in6)
{
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, &in6->sin6_addr.s6_addr[12], 4);
        cm_peer_set(peer, (const struct sockaddr *)&in);
        return;
    }
    memcpy(&peer->addr, in6, sizeof *in6);
    inet_ntop(AF_INET6, &in6->sin6_addr, peer->text, sizeof peer->text);
    peer->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

void
cm_peer_set(struct cm_peer *peer, const struct sockaddr *sa)
{
    memset(peer, 0, sizeof *peer);
    snprintf(peer->text, sizeof peer->text, "unknown");
    if (sa && sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        memcpy(&peer->addr, in, sizeof *in);
        inet_ntop(AF_INET, &in->sin_addr, peer->text, sizeof peer->text);
        peer->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
    } else if (sa && sa->sa_family == AF_INET6) {
        set_ipv6(peer, (const void *)sa);
    }
}

static size_t
kept_headers(const struct cm_request *req)
{
    return req->nheader < CM_REQUEST_HEADERS_MAX ? req->nheader
                                                 : CM_REQUEST_HEADERS_MAX;
}

const char *
cm_request_header(const struct cm_request *req, const char *name)
{
    for (size_t i = 0; i < kept_headers(req); i++) {
        if (strcasecmp(req->header[i].name, name) == 0)
            return req->header[i].value;
    }
    return NULL;
}

size_t
cm_request_count(const struct cm_request *req, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < kept_headers(req); i++)
        n += strcasecmp(req->header[i].name, name) == 0;
    return n;
}

bool
cm_request_has_body(const struct cm_request *req)
{
    if (cm_request_header(req, "Transfer-Encoding"))
        return true;
    const char *length = cm_request_header(req, "Content-Length");
    return length && length[strspn(length, "0")] != '\0';
}

bool
cm_request_is_own_api(const struct cm_request *req)
{
    const struct cm_target *t = &req->target;
    return t->nsegment >= 2 && strcmp(t->segment[0], "api") == 0 &&
           strcmp(t->segment[1], "v1") == 0;
}
