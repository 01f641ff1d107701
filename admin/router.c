/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table has a few dozen rows at most and is walked from the top: a trie or
 * a regular expression would only hide what is served. Patterns are compared
 * with decoded segments, so %61pi is api, but a decoded "/" parts nothing.
 */
#include "admin/router.h"
#include "admin/scope.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Does the pattern fit the path? Captures are stored only if it does. */
static bool
fits(const char *pattern, struct cm_request *req)
{
    const struct cm_target *target = &req->target;
    const char *capture[CM_REQUEST_CAPTURES] = {NULL};
    size_t ncapture = 0, i = 0;
    for (const char *part = pattern; part; i++) {
        part++; /* the slash */
        size_t len = strcspn(part, "/");
        if (i >= target->nsegment)
            return false;
        const char *segment = target->segment[i];
        if (*part == ':') {
            if (!*segment || ncapture == CM_REQUEST_CAPTURES)
                return false;
            capture[ncapture++] = segment;
        } else if (strlen(segment) != len || memcmp(segment, part, len) != 0) {
            return false;
        }
        part = part[len] ? part + len : NULL;
    }
    if (i != target->nsegment)
        return false;
    memcpy(req->capture, capture, sizeof capture);
    return true;
}

const struct cm_route *
cm_router_find(const struct cm_route *routes, size_t n, struct cm_request *req,
               unsigned *allow_r)
{
    enum cm_method wanted =
        req->method == CM_METHOD_HEAD ? CM_METHOD_GET : req->method;
    *allow_r = 0;
    for (size_t i = 0; i < n; i++) {
        if (!fits(routes[i].pattern, req))
            continue;
        if (routes[i].method == wanted)
            return &routes[i];
        *allow_r |= 1u << routes[i].method;
        if (routes[i].method == CM_METHOD_GET)
            *allow_r |= 1u << CM_METHOD_HEAD;
    }
    return NULL;
}

unsigned
cm_route_scopes(const struct cm_route *route, bool *all_r)
{
    bool safe = cm_method_is_safe(route->method);
    *all_r = (route->flags & CM_ROUTE_MASTER) != 0;
    if (*all_r)
        return CM_SCOPES_ALL;
    if (!(route->flags & CM_ROUTE_KEY) || (route->flags & CM_ROUTE_ANYBODY))
        return 0;
    if (route->flags & CM_ROUTE_HALT)
        return CM_SCOPE_HALT | (safe ? CM_SCOPE_READ : 0u);
    return safe || (route->flags & CM_ROUTE_READ) ? CM_SCOPE_READ
                                                  : CM_SCOPE_WRITE;
}

void
cm_router_print_allow(unsigned allow, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = '\0';
    for (int m = 0; m < CM_METHOD_OTHER; m++) {
        if (!(allow & (1u << m)) || len >= cap)
            continue;
        len += (size_t)snprintf(out + len, cap - len, "%s%s", len ? ", " : "",
                                cm_method_name((enum cm_method)m));
    }
}
