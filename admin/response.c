/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bodies are built as jansson values and printed by the model's printer, so
 * that whatever came from outside is escaped in one place. When memory runs out
 * half way the answer is a fixed 500 that needs none.
 */
#include "admin/response.h"
#include "admin/outflow.h"
#include "admin/request.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *
reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } table[] = {
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {412, "Precondition Failed"},
        {413, "Payload Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == status)
            return table[i].reason;
    }
    return "Error";
}

void
cm_response_fini(struct cm_response *res)
{
    free(res->body);
    if (res->outflow)
        res->outflow->end(res->outflow);
    memset(res, 0, sizeof *res);
}

void
cm_response_header(struct cm_response *res, const char *name, const char *fmt,
                   ...)
{
    assert(res->nheader < CM_RESPONSE_HEADERS_MAX);
    struct cm_response_header *header = &res->header[res->nheader++];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(header->value, sizeof header->value, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof header->value);
    assert(strlen(name) < sizeof header->name);
    (void)n;
    snprintf(header->name, sizeof header->name, "%s", name);
}

void
cm_response_empty(struct cm_response *res, int status)
{
    free(res->body);
    res->body = NULL;
    res->len = 0;
    res->content_type = NULL;
    res->status = status;
}

void
cm_response_text(struct cm_response *res, int status, const char *content_type,
                 char *text, size_t len)
{
    cm_response_empty(res, text ? status : 500);
    if (!text)
        return; /* http.c has a body for that */
    res->body = text;
    res->len = len;
    res->content_type = content_type;
}

void
cm_response_flow(struct cm_response *res, const char *content_type,
                 struct cm_outflow *flow)
{
    cm_response_empty(res, 200);
    res->content_type = content_type;
    res->outflow = flow;
}

static void
set_json(struct cm_response *res, int status, const char *type, json_t *json)
{
    size_t len = 0;
    char *text = json ? cm_json_dump(json, &len) : NULL;
    json_decref(json);
    cm_response_text(res, status, type, text, len);
}

void
cm_response_json(struct cm_response *res, int status, struct json_t *json)
{
    set_json(res, status, "application/json; charset=utf-8", json);
}

/* Takes message, which may be NULL when memory ran out. */
static void
fail(struct cm_response *res, const struct cm_request *req, int status,
     const char *detail, json_t *message)
{
    if (cm_request_is_own_api(req)) {
        json_t *problem =
            json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title",
                      reason(status), "status", status, "detail", detail);
        if (json_is_array(message) && problem)
            json_object_set(problem, "errors", message);
        json_decref(message);
        set_json(res, status, "application/problem+json", problem);
        return;
    }
    cm_response_json(res, status,
                     json_pack("{s:o, s:s, s:i}", "message", message, "error",
                               reason(status), "statusCode", status));
}

static void
make_ascii(char *text)
{
    for (; *text; text++) {
        if (*text < 0x20 || *text > 0x7e)
            *text = '?';
    }
}

void
cm_response_fail(struct cm_response *res, const struct cm_request *req,
                 int status, const char *fmt, ...)
{
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_t *message = json_string(text);
    if (!message) { /* not UTF-8: cut, or quoted from a peer */
        make_ascii(text);
        message = json_string(text);
    }
    fail(res, req, status, text, message);
}

/* "fault.steps[2].code" as a JSON Pointer in a fragment: "#/fault/steps/2/code"
 * (RFC 6901 6, as in the example of RFC 9457 3). */
static void
print_pointer(char *out, size_t cap, const char *path)
{
    size_t n = (size_t)snprintf(out, cap, *path ? "#/" : "#");
    for (; *path && n + 1 < cap; path++)
        if (*path != ']')
            out[n++] = *path == '.' || *path == '[' ? '/' : *path;
    out[n] = '\0';
}

/* One fault as the face's clients expect it. */
static json_t *
make_fault(const struct cm_request *req, const char *path, const char *text)
{
    char pointer[sizeof((struct cm_problem *)NULL)->path + 4];
    if (!cm_request_is_own_api(req))
        return json_string(text);
    print_pointer(pointer, sizeof pointer, path);
    return json_pack("{s:s, s:s}", "pointer", pointer, "detail", text);
}

void
cm_response_fail_all(struct cm_response *res, const struct cm_request *req,
                     int status, const struct cm_problems *problems)
{
    char more[48];
    json_t *list = json_array();
    for (size_t i = 0; list && i < problems->n; i++)
        json_array_append_new(
            list, make_fault(req, problems->at[i].path, problems->at[i].text));
    snprintf(more, sizeof more, "and %zu more", problems->dropped);
    if (list && problems->dropped > 0)
        json_array_append_new(list, make_fault(req, "", more));
    fail(res, req, status, cm_problems_first(problems), list);
}
