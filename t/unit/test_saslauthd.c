/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire of saslauthd, and the bytes on their way through us: what is
 * understood of them, and that nothing is left of them.
 */
#include "milter/filter/flow.h"
#include "milter/filter/saslauthd.h"
#include "milter/filter/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LENGTH(array)     (sizeof(array) / sizeof(array)[0])
#define BYTES(text)       text, sizeof(text) - 1
#define SENDMAIL_QUESTION "\0\6tester\0\6secret\0\4smtp\0\0"

static const struct {
    const char *name, *data;
    size_t len;
    enum cm_saslauthd_state state;
    const char *login, *login_at_realm;
} wires[] = {
    {"as Sendmail asks", BYTES(SENDMAIL_QUESTION), CM_SASLAUTHD_WHOLE, "tester",
     ""},
    {"with a realm", BYTES("\0\1a\0\1b\0\4smtp\0\3d.e"), CM_SASLAUTHD_WHOLE,
     "a", "a@d.e"},
    {"more behind it", BYTES("\0\1a\0\1b\0\0\0\1r\0\0x"), CM_SASLAUTHD_WHOLE,
     "a", "a@r"},
    {"all empty", BYTES("\0\0\0\0\0\0\0\0"), CM_SASLAUTHD_WHOLE, "", ""},
    {"an empty login with a realm", BYTES("\0\0\0\0\0\0\0\1r"),
     CM_SASLAUTHD_WHOLE, "", ""},
    {"a NUL in the password", BYTES("\0\1a\0\3b\0c\0\0\0\0"),
     CM_SASLAUTHD_WHOLE, "a", ""},
    {"a NUL in the login", BYTES("\0\3a\0b\0\0\0\0\0\1r"), CM_SASLAUTHD_WHOLE,
     "", ""},
    {"a NUL in the realm", BYTES("\0\1a\0\0\0\0\0\3r\0s"), CM_SASLAUTHD_WHOLE,
     "a", ""},
    {"nothing", BYTES(""), CM_SASLAUTHD_MORE, "", ""},
    {"half a length", BYTES("\0"), CM_SASLAUTHD_MORE, "", ""},
    {"half a login", BYTES("\0\6test"), CM_SASLAUTHD_MORE, "", ""},
    {"no realm yet", BYTES("\0\1a\0\1b\0\4smtp"), CM_SASLAUTHD_MORE, "", ""},
    {"half a realm", BYTES("\0\1a\0\1b\0\4smtp\0\2r"), CM_SASLAUTHD_MORE, "",
     ""},
    {"a login that fits", BYTES("\x1f\xfe"), CM_SASLAUTHD_MORE, "", ""},
    {"a login beyond all", BYTES("\x1f\xff"), CM_SASLAUTHD_LONG, "", ""},
    {"text", BYTES("GET / HTTP/1.0\r\n"), CM_SASLAUTHD_LONG, "", ""},
};

static void
test_saslauthd_questions(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(wires); i++) {
        struct cm_saslauthd_who who;
        /* A copy without room behind it, for the sanitizers. */
        char *data = malloc(wires[i].len + !wires[i].len);
        assert_non_null(data);
        memcpy(data, wires[i].data, wires[i].len);
        enum cm_saslauthd_state found =
            cm_saslauthd_measure(data, wires[i].len);
        cm_saslauthd_read(&who, data, wires[i].len);
        free(data);
        if (found != wires[i].state || strcmp(who.login, wires[i].login) != 0 ||
            strcmp(who.login_at_realm, wires[i].login_at_realm) != 0)
            fail_msg("%s: %d \"%s\" \"%s\"", wires[i].name, found, who.login,
                     who.login_at_realm);
    }
}

static void
test_saslauthd_measure_knows_a_question_at_its_last_byte(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof SENDMAIL_QUESTION - 1; n++)
        assert_int_equal(cm_saslauthd_measure(SENDMAIL_QUESTION, n),
                         CM_SASLAUTHD_MORE);
}

/* There must be no question that is waited for and does not fit. */
static void
test_saslauthd_measure_with_a_full_buffer_never_waits(void **state)
{
    static char data[CM_SASLAUTHD_QUESTION_MAX];
    (void)state;
    for (size_t field = sizeof data - 20; field + 2 <= sizeof data; field++) {
        memset(data, 0, sizeof data);
        data[0] = (char)(field >> 8);
        data[1] = (char)field;
        bool whole = field + 8 <= sizeof data;
        assert_int_equal(cm_saslauthd_measure(data, sizeof data),
                         whole ? CM_SASLAUTHD_WHOLE : CM_SASLAUTHD_LONG);
    }
}

static void
test_saslauthd_read_knows_logins_that_fit(void **state)
{
    (void)state;
    for (size_t n = CM_SASLAUTHD_TEXT - 2; n <= CM_SASLAUTHD_TEXT; n++) {
        char data[2 * CM_SASLAUTHD_TEXT + 16] = "";
        struct cm_saslauthd_who who;
        size_t at = 0;
        for (int field = 0; field < 4; field++) {
            size_t len = field == 0 || field == 3 ? n : 0;
            data[at++] = (char)(len >> 8);
            data[at++] = (char)len;
            memset(data + at, 'x', len);
            at += len;
        }
        bool fits = n < CM_SASLAUTHD_TEXT;
        cm_saslauthd_read(&who, data, at);
        assert_int_equal(strlen(who.login), fits ? n : 0);
        assert_int_equal(strlen(who.login_at_realm), fits ? 2 * n + 1 : 0);
    }
}

static void
test_saslauthd_refusal_is_one_field(void **state)
{
    size_t len;
    const char *no = cm_saslauthd_refusal(&len);
    (void)state;
    assert_int_equal(len, 2 + strlen("NO chaosmilter"));
    assert_memory_equal(no, "\0\016NO chaosmilter", len);
}

static bool
is_wiped(const struct cm_secret *secret)
{
    for (size_t i = secret->len; i < secret->cap; i++)
        if (secret->data[i])
            return false;
    return true;
}

static void
test_secret_leaves_nothing_of_what_is_done_with(void **state)
{
    struct cm_secret secret;
    int fds[2], out[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, out), 0);
    assert_int_equal(cm_secret_open(&secret, 10), CM_OK);
    assert_int_equal(cm_secret_receive(&secret, fds[1]), CM_SECRET_NONE);
    assert_int_equal(send(fds[0], "0123456789abc", 13, 0), 13);
    assert_int_equal(cm_secret_receive(&secret, fds[1]), CM_SECRET_SOME);
    assert_int_equal(cm_secret_receive(&secret, fds[1]), CM_SECRET_NONE);
    cm_secret_forget(&secret, 4);
    assert_int_equal(secret.len, 6);
    assert_memory_equal(secret.data, "456789", 6);
    assert_true(is_wiped(&secret));
    close(fds[0]);
    assert_int_equal(cm_secret_receive(&secret, fds[1]), CM_SECRET_SOME);
    assert_int_equal(cm_secret_receive(&secret, fds[1]), CM_SECRET_END);
    assert_int_equal(cm_secret_send(&secret, out[0]), CM_OK);
    assert_int_equal(secret.len, 0);
    assert_true(is_wiped(&secret));
    close(out[1]);
    memcpy(secret.data, "x", 1);
    secret.len = 1;
    assert_int_equal(cm_secret_send(&secret, out[0]), CM_EIO);
    cm_secret_close(&secret);
    cm_secret_close(&secret);
    assert_null(secret.data);
    close(fds[1]);
    close(out[0]);
}

static void
test_flow_tells_the_end_after_the_last_byte(void **state)
{
    struct cm_flow flow;
    char text[16];
    int from[2], to[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, from), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, to), 0);
    assert_int_equal(cm_flow_open(&flow, 4), CM_OK);
    assert_int_equal(send(from[0], "abcdef", 6, 0), 6);
    shutdown(from[0], SHUT_WR);
    cm_flow_receive(&flow, from[1]);
    assert_false(cm_flow_has_room(&flow));
    assert_true(cm_flow_waits(&flow));
    assert_int_equal(cm_flow_send(&flow, to[1]), CM_OK);
    assert_false(flow.told);
    cm_flow_receive(&flow, from[1]);
    assert_true(flow.ended);
    assert_int_equal(cm_flow_send(&flow, to[1]), CM_OK);
    assert_true(flow.told);
    assert_int_equal(recv(to[0], text, sizeof text, 0), 6);
    assert_memory_equal(text, "abcdef", 6);
    assert_int_equal(recv(to[0], text, sizeof text, 0), 0);
    assert_int_equal(send(from[1], "z", 1, 0), 1); /* the other way is open */
    cm_flow_close(&flow);
    cm_flow_close(&flow);
    for (int i = 0; i < 2; i++) {
        close(from[i]);
        close(to[i]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saslauthd_questions),
        cmocka_unit_test(
            test_saslauthd_measure_knows_a_question_at_its_last_byte),
        cmocka_unit_test(test_saslauthd_measure_with_a_full_buffer_never_waits),
        cmocka_unit_test(test_saslauthd_read_knows_logins_that_fit),
        cmocka_unit_test(test_saslauthd_refusal_is_one_field),
        cmocka_unit_test(test_secret_leaves_nothing_of_what_is_done_with),
        cmocka_unit_test(test_flow_tells_the_end_after_the_last_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
