/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Heads that must be refused, and those that must not, as data; and the check
 * that finds what the HTTP library hides, on buffers cut up as it does.
 */
#include "admin/guard.h"
#include "admin/layout.h"
#include "admin/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define H(name, value)                                                         \
    {                                                                          \
        name, value                                                            \
    }
#define HOST H("Host", "localhost:8025")
#define JSON H("Content-Type", "application/json")

static void
test_check_head_is_judged(void **state)
{
    static const struct {
        const char *method;
        struct cm_header header[5];
        int status; /* 0: passes */
    } cases[] = {
        {"GET", {HOST}, 0},
        {"GET", {{0}}, 400},
        {"GET", {HOST, HOST}, 400},
        {"GET", {HOST, H("X y", "a")}, 400},
        {"GET", {HOST, H("", "a")}, 400},
        {"GET", {HOST, H("X", "a\rb")}, 400},
        {"GET", {HOST, H("X", "a\x7f")}, 400},
        {"GET", {HOST, H("X", "\t\xc3\xbc")}, 0},
        {"POST", {HOST}, 0},
        {"POST", {HOST, JSON, H("Content-Length", "0")}, 0},
        {"POST", {HOST, H("Content-Length", "0")}, 0},
        {"POST", {HOST, JSON, H("Content-Length", "5")}, 0},
        {"POST", {HOST, JSON, H("content-length", "1048576")}, 0},
        {"POST", {HOST, JSON, H("Content-Length", "1048577")}, 413},
        {"POST",
         {HOST, JSON, H("Content-Length", "99999999999999999999")},
         413},
        {"POST", {HOST, JSON, H("Content-Length", "+5")}, 400},
        {"POST", {HOST, JSON, H("Content-Length", "5,5")}, 400},
        {"POST", {HOST, JSON, H("Content-Length", "5 ")}, 400},
        {"POST", {HOST, JSON, H("Content-Length", "")}, 400},
        {"POST", {HOST, H("Content-Length", "5")}, 415},
        {"GET", {HOST, JSON, H("Content-Length", "5")}, 400},
        {"GET", {HOST, H("Content-Length", "000")}, 0},
        {"POST", {HOST, JSON, H("Transfer-Encoding", "Chunked")}, 0},
        {"POST", {HOST, JSON, H("Transfer-Encoding", "gzip")}, 400},
        {"POST", {HOST, JSON, H("Transfer-Encoding", "gzip, chunked")}, 400},
        {"POST",
         {HOST, JSON, H("Transfer-Encoding", "chunked"),
          H("Content-Length", "5")},
         400},
        {"POST", {HOST, H("Expect", "100-continue")}, 0},
        {"POST", {HOST, H("Expect", "teapot")}, 417},
        {"POST", {HOST, H("Origin", "http://localhost:8025")}, 0},
        {"POST", {HOST, H("Origin", "https://LOCALHOST:8025")}, 0},
        {"POST", {HOST, H("Origin", "http://localhost")}, 403},
        {"POST", {HOST, H("Origin", "ftp://localhost:8025")}, 403},
        {"POST", {HOST, H("Origin", "null")}, 403},
        {"POST", {HOST, H("Origin", "")}, 403},
        {"GET", {HOST, H("Origin", "http://evil.example")}, 0},
        {"DELETE", {HOST, H("Sec-Fetch-Site", "cross-site")}, 403},
        {"DELETE", {HOST, H("Sec-Fetch-Site", "same-origin")}, 0},
        {"GET", {HOST, H("Sec-Fetch-Site", "cross-site")}, 0},
        {"GET", {H("Host", "Chaos.Example")}, 0},
        {"GET", {H("Host", "chaos.example:443")}, 0},
        {"GET", {H("Host", "chaos.example.evil")}, 421},
        {"GET", {H("Host", "192.0.2.1:8025")}, 0}, /* our own address */
        {"GET", {H("Host", "192.0.2.2:8025")}, 421},
        {"GET", {H("Host", "[::1]:8025")}, 0},
        {"GET", {H("Host", "[::1")}, 400},
        {"GET", {H("Host", "[::1]x")}, 400},
        {"GET", {H("Host", ":8025")}, 400},
        {"GET", {H("Host", "localhost:8025:1")}, 400},
        {"GET", {H("Host", "user@localhost")}, 421},
    };
    static const char *const hosts[] = {"chaos.example"};
    struct cm_guard guard = {hosts, 1};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_request req = {.method = cm_method_parse(cases[i].method),
                                 .http11 = true,
                                 .local = "192.0.2.1"};
        struct cm_refusal refusal = {0, ""};
        for (; cases[i].header[req.nheader].name; req.nheader++)
            req.header[req.nheader] = cases[i].header[req.nheader];
        bool ok = cm_guard_check(&guard, &req, &refusal);
        if (ok != (cases[i].status == 0) || refusal.status != cases[i].status)
            fail_msg("case %zu: %d %s", i, refusal.status, refusal.detail);
    }
}

static void
test_check_local_ipv6_address_passes(void **state)
{
    struct cm_guard guard = {NULL, 0};
    struct cm_request req = {.http11 = true,
                             .local = "2001:db8::1",
                             .nheader = 1,
                             .header = {H("Host", "[2001:DB8::1]:80")}};
    struct cm_refusal refusal;
    (void)state;
    assert_true(cm_guard_check(&guard, &req, &refusal));
    req.header[0].value = "[2001:db8::12]";
    assert_false(cm_guard_check(&guard, &req, &refusal));
    assert_int_equal(refusal.status, 421);
}

static void
test_is_json_media_types_are_told_apart(void **state)
{
    static const struct {
        const char *type;
        bool json;
    } cases[] = {
        {"application/json", true},
        {"Application/JSON", true},
        {"application/json;charset=utf-8", true},
        {"application/json ; charset=\"UTF-8\"", true},
        {"application/json;", true},
        {"application/json; charset=latin1", false},
        {"application/jsonp", false},
        {"application/json, text/plain", false},
        {"text/json", false},
        {"text/plain", false},
        {"", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cm_guard_is_json(cases[i].type) != cases[i].json)
            fail_msg("%s", cases[i].type);
    }
}

/*
 * Cuts a head up as libmicrohttpd 0.9.75 does: a line ends at LF, with or
 * without CR; the words of the first line at blanks; a name at the colon.
 */
static void
cut(char *head, struct cm_layout *layout, struct cm_header *headers)
{
    size_t len = layout->len;
    for (char *c = head; c < head + len; c++) {
        if (*c == '\n') {
            *c = '\0';
            if (c > head && c[-1] == '\r')
                c[-1] = '\0';
        }
    }
    char *c = strchr(head, ' ');
    *c++ = '\0';
    layout->method = head;
    c += strspn(c, " ");
    layout->target = c;
    c = strchr(c, ' ');
    *c++ = '\0';
    layout->target_len = strlen(layout->target);
    layout->version = c;
    layout->header = headers;
    for (c += strlen(c); c < head + len; c += strlen(c)) {
        while (c < head + len && *c == '\0')
            c++;
        char *colon = c < head + len ? strchr(c, ':') : NULL;
        if (!colon)
            break;
        *colon = '\0';
        headers[layout->nheader].name = c;
        c = colon + 1;
        c += strspn(c, " ");
        headers[layout->nheader++].value = c;
    }
}

static void
test_adds_up_finds_what_is_hidden(void **state)
{
#define TEXT(s) s, sizeof s - 1
    static const struct {
        const char *head;
        size_t len;
        bool adds_up;
    } cases[] = {
        {TEXT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), true},
        {TEXT("GET / HTTP/1.1\r\n\r\n"), true},
        {TEXT("GET / HTTP/1.1\r\nHost:a\r\nX:   b  \r\nY:\r\n\r\n"), true},
        {TEXT("GET / HTTP/1.1\nHost: a\n\n"), false},
        {TEXT("GET / HTTP/1.1\nHost: a\r\n\r\n"), false},
        {TEXT("GET / HTTP/1.1\r\nHost: a\n\r\n"), false},
        {TEXT("GET / HTTP/1.1\r\nHost: a\r\n\n"), false},
        {TEXT("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), false},
        {TEXT("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), false},
        {TEXT("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n"), false},
        {TEXT("GET / HTTP/1.1\r\nX: a\0b\r\nHost: a\r\n\r\n"), false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char head[128];
        struct cm_header headers[8];
        struct cm_layout layout = {.len = cases[i].len};
        memcpy(head, cases[i].head, cases[i].len + 1);
        cut(head, &layout, headers);
        if (cm_layout_adds_up(&layout) != cases[i].adds_up)
            fail_msg("case %zu", i);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_head_is_judged),
        cmocka_unit_test(test_check_local_ipv6_address_passes),
        cmocka_unit_test(test_is_json_media_types_are_told_apart),
        cmocka_unit_test(test_adds_up_finds_what_is_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
