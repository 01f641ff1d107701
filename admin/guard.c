/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list of small checks, run in order; the first that objects decides. The
 * order is: what makes the framing ambiguous, then who may ask, then what the
 * body is. libmicrohttpd 0.9.75 refuses a few of these itself, with a page of
 * its own; most it lets through (both lengths, doubled headers, any transfer
 * coding, blanks before the colon), which is why none is left to it.
 */
#include "admin/guard.h"
#include "admin/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef bool check_fn(const struct cm_guard *guard,
                      const struct cm_request *req, struct cm_refusal *r);

static bool
refuse(struct cm_refusal *r, int status, const char *detail)
{
    r->status = status;
    r->detail = detail;
    return false;
}

/* A token of RFC 9110 5.6.2; so "Content-Length " with a blank is none. */
static bool
is_token(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++) {
        bool word = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
                    (*s >= '0' && *s <= '9');
        if (!word && !strchr("!#$%&'*+-.^_`|~", *s))
            return false;
    }
    return true;
}

static bool
has_control(const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return true;
    }
    return false;
}

static bool
check_header_syntax(const struct cm_guard *guard, const struct cm_request *req,
                    struct cm_refusal *r)
{
    (void)guard;
    if (req->nheader > CM_REQUEST_HEADERS_MAX)
        return refuse(r, 431, "More than 64 header fields");
    for (size_t i = 0; i < req->nheader; i++) {
        if (!is_token(req->header[i].name))
            return refuse(r, 400, "A header field's name is malformed");
        if (has_control(req->header[i].value))
            return refuse(r, 400, "A header field has a control character");
    }
    return true;
}

static bool
check_doubled(const struct cm_guard *guard, const struct cm_request *req,
              struct cm_refusal *r)
{
    static const struct {
        const char *name, *detail;
    } once[] = {
        {"Host", "Host is given twice"},
        {"Content-Length", "Content-Length is given twice"},
        {"Transfer-Encoding", "Transfer-Encoding is given twice"},
        {"Content-Type", "Content-Type is given twice"},
        {"Authorization", "Authorization is given twice"},
        {"X-API-Key", "X-API-Key is given twice"},
        {"Origin", "Origin is given twice"},
        {"Expect", "Expect is given twice"},
        {"If-Match", "If-Match is given twice"},
        {"If-None-Match", "If-None-Match is given twice"},
    };
    (void)guard;
    for (size_t i = 0; i < sizeof once / sizeof once[0]; i++) {
        if (cm_request_count(req, once[i].name) > 1)
            return refuse(r, 400, once[i].detail);
    }
    return true;
}

static bool
check_framing(const struct cm_guard *guard, const struct cm_request *req,
              struct cm_refusal *r)
{
    (void)guard;
    const char *length = cm_request_header(req, "Content-Length");
    const char *coding = cm_request_header(req, "Transfer-Encoding");
    if (length && coding)
        return refuse(r, 400,
                      "Both Content-Length and Transfer-Encoding are given");
    if (coding && (!req->http11 || strcasecmp(coding, "chunked") != 0))
        return refuse(r, 400, "The Transfer-Encoding must be chunked");
    if (length && (!*length || length[strspn(length, "0123456789")] != '\0'))
        return refuse(r, 400, "Content-Length must be a number");
    return true;
}

/* The name in Host without its port; false when it is not well formed. */
static bool
host_name(const char *host, char *name_r, size_t cap)
{
    size_t len = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (host[0] == '[') {
        if (host[len] != ']')
            return false;
        len++;
    }
    const char *port = host + len;
    if (*port == ':' && strlen(port) <= 6)
        port += 1 + strspn(port + 1, "0123456789");
    if (len == 0 || len >= cap || *port != '\0')
        return false;
    memcpy(name_r, host, len);
    name_r[len] = '\0';
    return true;
}

/* An address literal equal to the address of ours that was spoken to cannot
 * come from a rebound name: a browser sends the name. */
static bool
is_local_address(const char *name, const char *local)
{
    size_t len = strlen(local);
    if (name[0] != '[')
        return strcmp(name, local) == 0;
    return strncasecmp(name + 1, local, len) == 0 &&
           strcmp(name + 1 + len, "]") == 0;
}

static bool
check_host(const struct cm_guard *guard, const struct cm_request *req,
           struct cm_refusal *r)
{
    static const char *const always[] = {"localhost", "127.0.0.1", "[::1]"};
    const char *host = cm_request_header(req, "Host");
    char name[256];
    if (!host)
        return refuse(r, 400, "Host is missing");
    if (!host_name(host, name, sizeof name))
        return refuse(r, 400, "Host is malformed");
    if (is_local_address(name, req->local))
        return true;
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        if (strcasecmp(name, always[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < guard->nhosts; i++) {
        if (strcasecmp(name, guard->hosts[i]) == 0)
            return true;
    }
    return refuse(r, 421, "This Host is not served here (admin.hosts)");
}

/* Is the origin, less its scheme, the host that was asked? */
static bool
is_own_origin(const char *origin, const char *host)
{
    if (strncasecmp(origin, "http://", 7) == 0)
        return strcasecmp(origin + 7, host) == 0;
    if (strncasecmp(origin, "https://", 8) == 0)
        return strcasecmp(origin + 8, host) == 0;
    return false;
}

static bool
check_foreign_page(const struct cm_guard *guard, const struct cm_request *req,
                   struct cm_refusal *r)
{
    (void)guard;
    if (cm_method_is_safe(req->method))
        return true;
    const char *origin = cm_request_header(req, "Origin");
    const char *site = cm_request_header(req, "Sec-Fetch-Site");
    if (origin && !is_own_origin(origin, cm_request_header(req, "Host")))
        return refuse(r, 403, "Requests from another origin are refused");
    if (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
        return refuse(r, 403, "Requests from another site are refused");
    return true;
}

bool
cm_guard_is_json(const char *content_type)
{
    static const char json[] = "application/json";
    static const char utf8[] = "charset=utf-8",
                      utf8_quoted[] = "charset=\"utf-8\"";
    if (strncasecmp(content_type, json, sizeof json - 1) != 0)
        return false;
    const char *rest = content_type + sizeof json - 1;
    rest += strspn(rest, " \t");
    if (*rest == '\0')
        return true;
    if (*rest != ';')
        return false;
    rest++;
    rest += strspn(rest, " \t");
    return *rest == '\0' || strcasecmp(rest, utf8) == 0 ||
           strcasecmp(rest, utf8_quoted) == 0;
}

static bool
check_body(const struct cm_guard *guard, const struct cm_request *req,
           struct cm_refusal *r)
{
    (void)guard;
    const char *expect = cm_request_header(req, "Expect");
    const char *length = cm_request_header(req, "Content-Length");
    const char *type = cm_request_header(req, "Content-Type");
    if (expect && strcasecmp(expect, "100-continue") != 0)
        return refuse(r, 417, "This expectation cannot be met");
    if (!cm_request_has_body(req))
        return true;
    if (length && (strlen(length) > 18 ||
                   strtoll(length, NULL, 10) > CM_REQUEST_BODY_MAX))
        return refuse(r, 413, "The body is larger than 1 MiB");
    if (cm_method_is_safe(req->method))
        return refuse(r, 400, "This method takes no body");
    if (!type || !cm_guard_is_json(type))
        return refuse(r, 415, "Content-Type must be application/json");
    return true;
}

bool
cm_guard_check(const struct cm_guard *guard, const struct cm_request *req,
               struct cm_refusal *refusal_r)
{
    static check_fn *const checks[] = {check_header_syntax, check_doubled,
                                       check_framing,       check_host,
                                       check_foreign_page,  check_body};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        if (!checks[i](guard, req, refusal_r))
            return false;
    }
    return true;
}
