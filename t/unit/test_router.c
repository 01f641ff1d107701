/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The router against a table of its own, so that a change of the daemon's
 * routes is no change of this test.
 */
#include "admin/router.h"
#include "admin/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static const struct cm_route routes[] = {
    {CM_METHOD_GET, "/", NULL, 0},
    {CM_METHOD_GET, "/livez", NULL, 0},
    {CM_METHOD_GET, "/box", NULL, 0},
    {CM_METHOD_POST, "/box", NULL, 0},
    {CM_METHOD_GET, "/box/all", NULL, 0},
    {CM_METHOD_DELETE, "/box/:name", NULL, 0},
    {CM_METHOD_PUT, "/box/:name/item/:item", NULL, 0},
};

static void
test_find_method_and_path_gives_row(void **state)
{
    static const struct {
        const char *method, *target;
        int row; /* -1: none */
        const char *allow, *capture[2];
    } cases[] = {
        {"GET", "/", 0, "", {0}},
        {"HEAD", "/", 0, "", {0}},
        {"GET", "/livez", 1, "", {0}},
        {"GET", "/livez?x=y", 1, "", {0}},
        {"GET", "/%6civez", 1, "", {0}},
        {"HEAD", "/livez", 1, "", {0}},
        {"POST", "/livez", -1, "GET, HEAD", {0}},
        {"get", "/livez", -1, "GET, HEAD", {0}},
        {"TRACE", "/livez", -1, "GET, HEAD", {0}},
        {"GET", "/Livez", -1, "", {0}},
        {"GET", "/livez/", -1, "", {0}},
        {"GET", "//livez", -1, "", {0}},
        {"GET", "/live", -1, "", {0}},
        {"GET", "/livezz", -1, "", {0}},
        {"GET", "/nothing", -1, "", {0}},
        {"POST", "/box", 3, "", {0}},
        {"PATCH", "/box", -1, "GET, HEAD, POST", {0}},
        {"GET", "/box/all", 4, "", {0}},
        {"DELETE", "/box/all", 5, "", {"all"}},
        {"DELETE", "/box/a%2Fb", 5, "", {"a/b"}},
        {"DELETE", "/box%2Fa", -1, "", {0}},
        {"DELETE", "/box/", -1, "", {0}},
        {"DELETE", "/box/:name", 5, "", {":name"}},
        {"OPTIONS", "/box/all", -1, "GET, HEAD, DELETE", {0}},
        {"PUT", "/box/a/item/b", 6, "", {"a", "b"}},
        {"PUT", "/box/a/item/", -1, "", {0}},
        {"PUT", "/box//item/b", -1, "", {0}},
        {"PUT", "/box/a/item/b/c", -1, "", {0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_request req = {.method = cm_method_parse(cases[i].method)};
        unsigned allow;
        char list[64];
        assert_int_equal(cm_target_parse(&req.target, cases[i].target, NULL),
                         CM_OK);
        const struct cm_route *route = cm_router_find(
            routes, sizeof routes / sizeof routes[0], &req, &allow);
        int row = route ? (int)(route - routes) : -1;
        if (row != cases[i].row)
            fail_msg("%s %s: row %d", cases[i].method, cases[i].target, row);
        if (!route) {
            cm_router_print_allow(allow, list, sizeof list);
            assert_string_equal(list, cases[i].allow);
        }
        for (int k = 0; k < 2 && cases[i].capture[k]; k++)
            assert_string_equal(req.capture[k], cases[i].capture[k]);
        cm_target_fini(&req.target);
    }
}

static void
test_print_allow_lists_methods(void **state)
{
    char list[64];
    (void)state;
    cm_router_print_allow(0, list, sizeof list);
    assert_string_equal(list, "");
    cm_router_print_allow(~0u, list, sizeof list);
    assert_string_equal(list, "GET, HEAD, POST, PUT, PATCH, DELETE");
}

static void
test_scopes_by_method_and_flags(void **state)
{
    enum { KEY = CM_ROUTE_KEY };
    static const struct {
        enum cm_method method;
        unsigned flags, scopes;
    } cases[] = {
        {CM_METHOD_GET, 0, 0},
        {CM_METHOD_GET, KEY, CM_SCOPE_READ},
        {CM_METHOD_POST, KEY, CM_SCOPE_WRITE},
        {CM_METHOD_DELETE, KEY | CM_ROUTE_ARMED, CM_SCOPE_WRITE},
        {CM_METHOD_POST, KEY | CM_ROUTE_READ, CM_SCOPE_READ},
        {CM_METHOD_POST, KEY | CM_ROUTE_HALT, CM_SCOPE_HALT},
        {CM_METHOD_GET, KEY | CM_ROUTE_HALT, CM_SCOPE_HALT | CM_SCOPE_READ},
        {CM_METHOD_GET, KEY | CM_ROUTE_ANYBODY, 0},
        {CM_METHOD_GET, KEY | CM_ROUTE_MASTER, CM_SCOPES_ALL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_route route = {.method = cases[i].method,
                                 .flags = cases[i].flags};
        bool all;
        assert_int_equal(cm_route_scopes(&route, &all), cases[i].scopes);
        assert_int_equal(all, (cases[i].flags & CM_ROUTE_MASTER) != 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scopes_by_method_and_flags),
        cmocka_unit_test(test_find_method_and_path_gives_row),
        cmocka_unit_test(test_print_allow_lists_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
