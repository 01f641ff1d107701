/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ROUTER_H
#define CM_ROUTER_H

#include "admin/request.h"

#include <stdbool.h>
#include <stddef.h>

struct cm_api;
struct cm_response;

/*
 * Every path that is served is one row: method, pattern, handler, flags. A
 * pattern is split at "/" like a target; ":name" captures one segment that is
 * not empty, everything else stands for itself, byte for byte. The first row
 * that fits wins.
 */
enum cm_route_flag {
    CM_ROUTE_KEY = 1 << 0,    /* 401 without a right key */
    CM_ROUTE_ARMED = 1 << 1,  /* 403 while chaos is not armed */
    CM_ROUTE_TICKET = 1 << 2, /* a stream for which a ticket may stand in */
    /* The key's scope: read for GET and write for all else, unless said here;
     * 403 without. */
    CM_ROUTE_READ = 1 << 3,   /* changes nothing, whatever the method */
    CM_ROUTE_HALT = 1 << 4,   /* halt; with GET, read does as well */
    CM_ROUTE_MASTER = 1 << 5, /* all of them */
    CM_ROUTE_ANYBODY = 1 << 6 /* any right key */
};

/* cm_route_scopes - the scopes that the route asks for; *all_r: every one of
 * them, else one will do; 0: none. */
struct cm_route;
unsigned cm_route_scopes(const struct cm_route *route, bool *all_r);

typedef void cm_route_fn(struct cm_api *api, const struct cm_request *req,
                         struct cm_response *res);

struct cm_route {
    enum cm_method method; /* GET also serves HEAD */
    const char *pattern;   /* "/api/inboxes/:addr/chaos" */
    cm_route_fn *fn;
    unsigned flags; /* enum cm_route_flag bits */
};

/*
 * cm_router_find - the row for req's method and path, its captures stored in
 * req. NULL: no such path (*allow_r is 0), or the path has other methods
 * (*allow_r has a bit 1 << method for each, HEAD beside GET).
 */
const struct cm_route *cm_router_find(const struct cm_route *routes, size_t n,
                                      struct cm_request *req,
                                      unsigned *allow_r);

/* cm_router_print_allow - "GET, HEAD, POST" for the Allow header; cap >= 64. */
void cm_router_print_allow(unsigned allow, char *out, size_t cap);

#endif
