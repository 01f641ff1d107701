/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys: where they are found in a request, how they are configured, and when
 * too many wrong ones are too many. Time is an argument, so nothing sleeps.
 */
#include "admin/auth.h"
#include "admin/request.h"
#include "admin/scope.h"
#include "milter/settings.h"
#include "t/unit/failing_alloc.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* SHA-256 of "secret", as sha256sum prints it. */
#define SECRET                                                                 \
    "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
/* The same of "other", in capitals, which are allowed. */
#define OTHER                                                                  \
    "sha256:D9298A10D1B0735837DC4BD85DAC641B0F3CEF27A47E5D53A54F2F3F5B2FCFFA"

static struct cm_auth *
make(const char *line, const char *file)
{
    struct cm_string_list keys = {.n = line ? 1 : 0};
    struct cm_auth *auth = NULL;
    struct cm_err err;
    keys.at[0] = (char *)(uintptr_t)line;
    if (cm_auth_new(&auth, &keys, file, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return auth;
}

static void
set_peer(struct cm_request *req, const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        cm_peer_set(&req->peer, (struct sockaddr *)&in);
    else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
        cm_peer_set(&req->peer, (struct sockaddr *)&in6);
    else
        fail_msg("%s is no address", text);
}

static enum cm_auth_verdict
try_key(struct cm_auth *auth, const char *peer, const char *key, int64_t now_ms,
        int *retry_s_r)
{
    struct cm_request req = {.nheader = 1};
    req.header[0] = (struct cm_header){"x-api-key", key};
    set_peer(&req, peer);
    return cm_auth_check(auth, &req, now_ms, retry_s_r);
}

static void
test_check_headers_give_verdict(void **state)
{
    static const struct {
        const char *name[2], *value[2];
        enum cm_auth_verdict verdict;
    } cases[] = {
        {{0}, {0}, CM_AUTH_MISSING},
        {{"X-API-Key"}, {"secret"}, CM_AUTH_RIGHT},
        {{"x-api-key"}, {"secret"}, CM_AUTH_RIGHT},
        {{"X-API-Key"}, {""}, CM_AUTH_MISSING},
        {{"X-API-Key"}, {"Secret"}, CM_AUTH_WRONG},
        {{"X-API-Key"}, {"secret "}, CM_AUTH_WRONG},
        {{"X-API-Key"}, {"secre"}, CM_AUTH_WRONG},
        {{"X-API-Key"}, {SECRET}, CM_AUTH_WRONG},
        {{"Authorization"}, {"Bearer secret"}, CM_AUTH_RIGHT},
        {{"Authorization"}, {"BEARER  secret"}, CM_AUTH_RIGHT},
        {{"Authorization"}, {"Bearer other"}, CM_AUTH_WRONG},
        {{"Authorization"}, {"Bearer"}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Bearer "}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Bearersecret"}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Digest secret"}, CM_AUTH_MISSING},
        {{"Authorization"}, {"secret"}, CM_AUTH_MISSING},
        {{"Authorization"}, {""}, CM_AUTH_MISSING},
        /* user:secret, :secret, any:se:cret, user:, user, sec\0ret */
        {{"Authorization"}, {"Basic dXNlcjpzZWNyZXQ="}, CM_AUTH_RIGHT},
        {{"Authorization"}, {"basic OnNlY3JldA=="}, CM_AUTH_RIGHT},
        {{"Authorization"}, {"Basic YW55OnNlOmNyZXQ="}, CM_AUTH_WRONG},
        {{"Authorization"}, {"Basic dXNlcjo="}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Basic dXNlcg=="}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Basic dXNlcjpzZWMAcmV0"}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Basic dXNlcjpzZWNyZXQ"}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Basic !!!!"}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Basic ===="}, CM_AUTH_MISSING},
        {{"Authorization"}, {"Basic "}, CM_AUTH_MISSING},
        {{"X-API-Key", "Authorization"},
         {"wrong", "Bearer secret"},
         CM_AUTH_WRONG},
        {{"X-API-Key", "Authorization"},
         {"secret", "Bearer wrong"},
         CM_AUTH_RIGHT},
        {{"Cookie"}, {"X-API-Key=secret"}, CM_AUTH_MISSING},
    };
    struct cm_auth *auth = make(SECRET, NULL);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_request req = {0};
        int retry_s;
        set_peer(&req, "192.0.2.1");
        for (; req.nheader < 2 && cases[i].name[req.nheader]; req.nheader++)
            req.header[req.nheader] = (struct cm_header){
                cases[i].name[req.nheader], cases[i].value[req.nheader]};
        int64_t now_ms = (int64_t)i * 3600 * 1000;
        enum cm_auth_verdict verdict =
            cm_auth_check(auth, &req, now_ms, &retry_s);
        if (verdict != cases[i].verdict)
            fail_msg("case %zu (%s: %s): %d", i,
                     cases[i].name[0] ? cases[i].name[0] : "none",
                     cases[i].value[0] ? cases[i].value[0] : "", verdict);
        assert_string_equal(req.key_id,
                            verdict == CM_AUTH_RIGHT ? "2bb80d53" : "");
    }
    cm_auth_free(&auth);
}

static void
test_check_failures_are_limited_and_forgiven(void **state)
{
    struct cm_auth *auth = make(SECRET, NULL);
    const int64_t start = 1000000;
    int retry_s = 0;
    (void)state;
    for (int i = 0; i < CM_AUTH_BURST; i++)
        assert_int_equal(try_key(auth, "192.0.2.1", "x", start, &retry_s),
                         CM_AUTH_WRONG);
    assert_int_equal(try_key(auth, "192.0.2.1", "x", start, &retry_s),
                     CM_AUTH_TOO_OFTEN);
    assert_int_equal(retry_s, CM_AUTH_REFILL_MS / 1000);
    /* a right key, and another address, are none the worse for it */
    assert_int_equal(try_key(auth, "192.0.2.1", "secret", start, &retry_s),
                     CM_AUTH_RIGHT);
    assert_int_equal(try_key(auth, "192.0.2.2", "x", start, &retry_s),
                     CM_AUTH_WRONG);
    /* waiting as told earns one more try, and only one */
    int64_t later = start + (int64_t)retry_s * 1000;
    assert_int_equal(try_key(auth, "192.0.2.1", "x", later, &retry_s),
                     CM_AUTH_WRONG);
    assert_int_equal(try_key(auth, "192.0.2.1", "x", later, &retry_s),
                     CM_AUTH_TOO_OFTEN);
    /* and after a long time all are forgiven, but no more than that */
    later += 3600 * 1000;
    for (int i = 0; i < CM_AUTH_BURST; i++)
        assert_int_equal(try_key(auth, "192.0.2.1", "x", later, &retry_s),
                         CM_AUTH_WRONG);
    assert_int_equal(try_key(auth, "192.0.2.1", "x", later, &retry_s),
                     CM_AUTH_TOO_OFTEN);
    cm_auth_free(&auth);
}

static void
test_check_missing_key_is_no_failure(void **state)
{
    struct cm_auth *auth = make(SECRET, NULL);
    int retry_s;
    (void)state;
    for (int i = 0; i < 3 * CM_AUTH_BURST; i++)
        assert_int_equal(try_key(auth, "192.0.2.1", "", 1, &retry_s),
                         CM_AUTH_MISSING);
    cm_auth_free(&auth);
}

static void
test_check_ipv6_counts_by_its_network(void **state)
{
    struct cm_auth *auth = make(SECRET, NULL);
    int retry_s;
    (void)state;
    for (int i = 0; i < CM_AUTH_BURST; i++) {
        char peer[40];
        snprintf(peer, sizeof peer, "2001:db8:0:1::%x", i + 1);
        assert_int_equal(try_key(auth, peer, "x", 1, &retry_s), CM_AUTH_WRONG);
    }
    assert_int_equal(try_key(auth, "2001:db8:0:1::ffff", "x", 1, &retry_s),
                     CM_AUTH_TOO_OFTEN);
    assert_int_equal(try_key(auth, "2001:db8:0:2::1", "x", 1, &retry_s),
                     CM_AUTH_WRONG);
    /* ::ffff:192.0.2.9 and 192.0.2.9 are one client */
    for (int i = 0; i < CM_AUTH_BURST; i++)
        assert_int_equal(try_key(auth, "::ffff:192.0.2.9", "x", 1, &retry_s),
                         CM_AUTH_WRONG);
    assert_int_equal(try_key(auth, "192.0.2.9", "x", 1, &retry_s),
                     CM_AUTH_TOO_OFTEN);
    cm_auth_free(&auth);
}

/* More addresses than the table has room for: bounded, and never a crash. */
static void
test_check_many_addresses_still_work(void **state)
{
    struct cm_auth *auth = make(SECRET, NULL);
    int retry_s;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        char peer[40];
        snprintf(peer, sizeof peer, "10.%d.%d.1", i / 256, i % 256);
        assert_int_equal(try_key(auth, peer, "x", 1, &retry_s), CM_AUTH_WRONG);
    }
    assert_int_equal(try_key(auth, "10.0.0.1", "secret", 1, &retry_s),
                     CM_AUTH_RIGHT);
    cm_auth_free(&auth);
}

static void
write_file(char *path, const char *text)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void
test_new_reads_lines_and_file(void **state)
{
    char path[] = "/tmp/cm-test-auth-XXXXXX";
    int retry_s;
    (void)state;
    write_file(path, "# keys\n\n \t" OTHER "  # of tests\r\n");
    struct cm_auth *auth = make(SECRET, path);
    assert_int_equal(try_key(auth, "192.0.2.1", "secret", 1, &retry_s),
                     CM_AUTH_RIGHT);
    assert_int_equal(try_key(auth, "192.0.2.1", "other", 1, &retry_s),
                     CM_AUTH_RIGHT);
    cm_auth_free(&auth);
    unlink(path);
}

static void
test_new_bad_keys_are_refused(void **state)
{
    static const struct {
        const char *line, *file;
        enum cm_status status;
        const char *why;
    } cases[] = {
        {NULL, NULL, CM_NOTFOUND, "--new-key"},
        {NULL, "# only a comment\n", CM_NOTFOUND, "--new-key"},
        {"secret", NULL, CM_EINVAL, "admin.api_keys:1:"},
        {"sha256:", NULL, CM_EINVAL, "admin.api_keys:1:"},
        {SECRET "0", NULL, CM_EINVAL, "admin.api_keys:1:"},
        {"sha256:zbb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf5"
         "27a25b",
         NULL, CM_EINVAL, "admin.api_keys:1:"},
        {SECRET, "\n" OTHER "\nsha256:12\n", CM_EINVAL, ":3: "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[] = "/tmp/cm-test-auth-XXXXXX";
        struct cm_string_list keys = {.n = cases[i].line ? 1 : 0};
        struct cm_auth *auth = NULL;
        struct cm_err err;
        keys.at[0] = (char *)(uintptr_t)cases[i].line;
        if (cases[i].file)
            write_file(path, cases[i].file);
        enum cm_status status =
            cm_auth_new(&auth, &keys, cases[i].file ? path : "", &err);
        if (cases[i].file)
            unlink(path);
        if (status != cases[i].status || !strstr(err.msg, cases[i].why))
            fail_msg("case %zu: %d \"%s\"", i, status, err.msg);
        assert_null(auth);
    }
}

static void
test_new_missing_file_is_refused(void **state)
{
    struct cm_string_list keys = {.n = 0};
    struct cm_auth *auth = NULL;
    struct cm_err err;
    (void)state;
    assert_int_equal(cm_auth_new(&auth, &keys, "/nonexistent/keys", &err),
                     CM_EIO);
    assert_non_null(strstr(err.msg, "/nonexistent/keys"));
}

static void
test_new_without_memory_frees_all(void **state)
{
    static char line[] = SECRET;
    struct cm_string_list keys = {.at = {line, line}, .n = 2};
    (void)state;
    for (long n = 1;; n++) {
        struct cm_auth *auth = NULL;
        failing_alloc_arm(n);
        enum cm_status status = cm_auth_new(&auth, &keys, NULL, NULL);
        bool failed = failing_alloc_disarm();
        if (!failed) {
            assert_int_equal(status, CM_OK);
            assert_true(n > 3);
            cm_auth_free(&auth);
            return;
        }
        assert_int_equal(status, CM_ENOMEM);
        assert_null(auth);
    }
}

static void
test_new_key_is_right_for_its_line(void **state)
{
    char key[CM_AUTH_KEY_SIZE], again[CM_AUTH_KEY_SIZE];
    char line[CM_AUTH_LINE_SIZE];
    int retry_s;
    (void)state;
    assert_int_equal(cm_auth_new_key(again, line, NULL), CM_OK);
    assert_int_equal(cm_auth_new_key(key, line, NULL), CM_OK);
    assert_string_not_equal(key, again);
    assert_int_equal(strlen(key), 3 + 64);
    assert_int_equal(strspn(key + 3, "0123456789abcdef"), 64);
    struct cm_auth *auth = make(line, NULL);
    assert_int_equal(try_key(auth, "192.0.2.1", key, 1, &retry_s),
                     CM_AUTH_RIGHT);
    assert_int_equal(try_key(auth, "192.0.2.1", again, 1, &retry_s),
                     CM_AUTH_WRONG);
    cm_auth_free(&auth);
}

/* The keys elsewhere: one, or nobody to ask. */
static enum cm_status elsewhere;

static enum cm_status
look_up(void *arg, const unsigned char digest[CM_AUTH_DIGEST_BYTES],
        struct cm_auth_found *found_r, struct cm_err *err)
{
    (void)digest;
    (void)err;
    assert_ptr_equal(arg, &elsewhere);
    if (elsewhere == CM_OK) {
        found_r->scopes = CM_SCOPE_HALT;
        snprintf(found_r->name, sizeof found_r->name, "button");
    }
    return elsewhere;
}

static void
test_extend_asks_for_what_the_settings_do_not_have(void **state)
{
    struct cm_auth *auth = make(SECRET, NULL);
    struct cm_request req = {.nheader = 1};
    int retry_s;
    (void)state;
    cm_auth_extend(auth, look_up, &elsewhere);
    set_peer(&req, "192.0.2.1");
    req.header[0] = (struct cm_header){"x-api-key", "another"};
    elsewhere = CM_OK;
    assert_int_equal(cm_auth_check(auth, &req, 1, &retry_s), CM_AUTH_RIGHT);
    assert_int_equal(req.scopes, CM_SCOPE_HALT);
    assert_string_equal(req.key_name, "button");
    elsewhere = CM_NOTFOUND;
    assert_int_equal(cm_auth_check(auth, &req, 1, &retry_s), CM_AUTH_WRONG);
    /* Nobody is told to wait for what could not be judged. */
    elsewhere = CM_EIO;
    for (int i = 0; i < 3 * CM_AUTH_BURST; i++)
        assert_int_equal(cm_auth_check(auth, &req, 1, &retry_s),
                         CM_AUTH_UNSURE);
    req.header[0].value = "secret";
    assert_int_equal(cm_auth_check(auth, &req, 1, &retry_s), CM_AUTH_RIGHT);
    assert_int_equal(req.scopes, CM_SCOPES_ALL);
    assert_string_equal(req.key_name, "");
    cm_auth_free(&auth);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extend_asks_for_what_the_settings_do_not_have),
        cmocka_unit_test(test_check_headers_give_verdict),
        cmocka_unit_test(test_check_failures_are_limited_and_forgiven),
        cmocka_unit_test(test_check_missing_key_is_no_failure),
        cmocka_unit_test(test_check_ipv6_counts_by_its_network),
        cmocka_unit_test(test_check_many_addresses_still_work),
        cmocka_unit_test(test_new_reads_lines_and_file),
        cmocka_unit_test(test_new_bad_keys_are_refused),
        cmocka_unit_test(test_new_missing_file_is_refused),
        cmocka_unit_test(test_new_without_memory_frees_all),
        cmocka_unit_test(test_new_key_is_right_for_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
