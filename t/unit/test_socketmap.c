/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire of the command hook and what is read from an SMTP command: both are
 * pure, and both are given whatever a client types.
 */
#include "milter/filter/smtp_command.h"
#include "milter/filter/socketmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static const struct {
    const char *name, *data;
    enum cm_socketmap_state state;
    const char *map, *key;
    size_t bytes;
} wires[] = {
    {"a command", "12:command NOOP,", CM_SOCKETMAP_WHOLE, "command", "NOOP",
     16},
    {"more behind it", "3:a b,3:c", CM_SOCKETMAP_WHOLE, "a", "b", 6},
    {"an empty key", "2:a ,", CM_SOCKETMAP_WHOLE, "a", "", 5},
    {"blanks in the key", "7:a b c d,", CM_SOCKETMAP_WHOLE, "a", "b c d", 10},
    {"nothing yet", "", CM_SOCKETMAP_MORE, NULL, NULL, 0},
    {"half a length", "1", CM_SOCKETMAP_MORE, NULL, NULL, 0},
    {"no text yet", "12:", CM_SOCKETMAP_MORE, NULL, NULL, 0},
    {"no comma yet", "3:a b", CM_SOCKETMAP_MORE, NULL, NULL, 0},
    {"no length", ":a b,", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"no number", "x", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"a sign", "-1:", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"a leading zero", "03:a b,", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"another end", "3:a b;", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"no map", "2: b,", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"no blank", "3:abc,", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"nothing at all", "0:,", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"HTTP", "GET / HTTP/1.0\r\n", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"the longest that is looked at", "12800:a ", CM_SOCKETMAP_MORE, NULL, NULL,
     0},
    {"too long, and known at once", "12801:a ", CM_SOCKETMAP_LONG, NULL, NULL,
     12808},
    {"the longest that is passed over", "1048576:", CM_SOCKETMAP_LONG, NULL,
     NULL, 1048585},
    {"beyond that", "1048577:", CM_SOCKETMAP_BAD, NULL, NULL, 0},
    {"a length without end", "99999999", CM_SOCKETMAP_BAD, NULL, NULL, 0},
};

static bool
is_text(const char *at, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(at, text, len) == 0;
}

static void
test_socketmap_parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(wires); i++) {
        struct cm_socketmap_request request = {.bytes = 0};
        enum cm_socketmap_state got =
            cm_socketmap_parse(wires[i].data, strlen(wires[i].data), &request);
        if (got != wires[i].state || request.bytes != wires[i].bytes)
            fail_msg("%s: state %d, %zu bytes", wires[i].name, (int)got,
                     request.bytes);
        if (wires[i].map &&
            (!is_text(request.map, request.map_len, wires[i].map) ||
             !is_text(request.key, request.key_len, wires[i].key)))
            fail_msg("%s: map or key", wires[i].name);
    }
}

/* Cut anywhere, it is either not whole yet or has been refused already. */
static void
test_socketmap_parse_of_a_part_never_invents(void **state)
{
    static const char whole[] = "20:command AUTH PLAIN A,";
    struct cm_socketmap_request request;
    (void)state;
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        char *part = malloc(n + 1); /* its end is the end of the memory */
        assert_non_null(part);
        memcpy(part, whole, n);
        assert_int_equal(cm_socketmap_parse(part, n, &request),
                         CM_SOCKETMAP_MORE);
        free(part);
    }
}

static void
test_socketmap_print_fits_or_says_nothing(void **state)
{
    char out[32];
    (void)state;
    size_t n = cm_socketmap_print_ok(out, sizeof out, "XCHAOS-1");
    assert_true(is_text(out, n, "11:OK XCHAOS-1,"));
    n = cm_socketmap_print_notfound(out, sizeof out);
    assert_true(is_text(out, n, "9:NOTFOUND ,"));
    assert_int_equal(cm_socketmap_print_ok(out, 15, "XCHAOS-1"), 0);
    assert_int_equal(cm_socketmap_print_notfound(out, 12), 0);
}

/* --- commands --- */

#define B_AB   "AGEAYg=="         /* NUL a NUL b */
#define B_ZAB  "egBhAGI="         /* z NUL a NUL b */
#define B_USER "dGVzdGVy"         /* tester */
#define B_LONG "YWFhYWFhYWFhYWFh" /* twelve times a */

static const struct {
    const char *name, *line;
    enum cm_stage stage;
    const char *mechanism, *user, *helo;
} commands[] = {
    {"NOOP", "NOOP", CM_STAGE_NOOP, "", "", ""},
    {"in small letters", "noop", CM_STAGE_NOOP, "", "", ""},
    {"with arguments", "NoOp hello there", CM_STAGE_NOOP, "", "", ""},
    {"behind a tab", "\tNOOP\tx", CM_STAGE_NOOP, "", "", ""},
    {"EHLO", "EHLO Client.Example", CM_STAGE_HELO, "", "", "Client.Example"},
    {"HELO", "helo  a", CM_STAGE_HELO, "", "", "a"},
    {"EHLO without a name", "EHLO", CM_STAGE_HELO, "", "", ""},
    {"STARTTLS", "STARTTLS", CM_STAGE_STARTTLS, "", "", ""},
    {"RSET", "RSET", CM_STAGE_RSET, "", "", ""},
    {"VRFY", "VRFY a@b", CM_STAGE_VRFY, "", "", ""},
    {"QUIT", "QUIT ", CM_STAGE_QUIT, "", "", ""},
    {"AUTH alone", "AUTH", CM_STAGE_AUTH, "", "", ""},
    {"AUTH without response", "AUTH PLAIN", CM_STAGE_AUTH, "PLAIN", "", ""},
    {"mechanism in small letters", "auth plain", CM_STAGE_AUTH, "PLAIN", "",
     ""},
    {"other mechanisms", "AUTH SCRAM-SHA-256 " B_AB, CM_STAGE_AUTH,
     "SCRAM-SHA-256", "", ""},
    {"no mechanism's name", "AUTH PL/AIN " B_AB, CM_STAGE_AUTH, "", "", ""},
    {"too long for a name", "AUTH ABCDEFGHIJKLMNOPQRSTU", CM_STAGE_AUTH, "", "",
     ""},
    {"PLAIN", "AUTH PLAIN " B_AB, CM_STAGE_AUTH, "PLAIN", "a", ""},
    {"not the one acted for", "AUTH PLAIN " B_ZAB, CM_STAGE_AUTH, "PLAIN", "a",
     ""},
    {"LOGIN", "AUTH LOGIN " B_USER, CM_STAGE_AUTH, "LOGIN", "tester", ""},
    {"PLAIN with one NUL", "AUTH PLAIN AGE=", CM_STAGE_AUTH, "PLAIN", "", ""},
    {"PLAIN without NUL", "AUTH PLAIN " B_USER, CM_STAGE_AUTH, "PLAIN", "", ""},
    {"LOGIN with a NUL", "AUTH LOGIN " B_AB, CM_STAGE_AUTH, "LOGIN", "", ""},
    {"an empty response", "AUTH PLAIN =", CM_STAGE_AUTH, "PLAIN", "", ""},
    {"no base64", "AUTH PLAIN A!EAYg==", CM_STAGE_AUTH, "PLAIN", "", ""},
    {"padding too early", "AUTH PLAIN AG==AGI=", CM_STAGE_AUTH, "PLAIN", "",
     ""},
    {"padding alone", "AUTH LOGIN ====", CM_STAGE_AUTH, "LOGIN", "", ""},
    {"not by fours", "AUTH LOGIN dGVzdGV", CM_STAGE_AUTH, "LOGIN", "", ""},
    {"a word too many", "AUTH PLAIN " B_AB " x", CM_STAGE_AUTH, "PLAIN", "",
     ""},
};

static void
test_smtp_command_read_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(commands); i++) {
        struct cm_smtp_command c;
        if (!cm_smtp_command_read(&c, commands[i].line,
                                  strlen(commands[i].line)))
            fail_msg("%s: not known", commands[i].name);
        if (c.stage != commands[i].stage ||
            strcmp(c.mechanism, commands[i].mechanism) != 0 ||
            strcmp(c.user, commands[i].user) != 0 ||
            strcmp(c.helo, commands[i].helo) != 0)
            fail_msg("%s: stage %s, mechanism \"%s\", user \"%s\", helo \"%s\"",
                     commands[i].name, cm_stage_name(c.stage), c.mechanism,
                     c.user, c.helo);
    }
}

static void
test_smtp_command_read_leaves_others_alone(void **state)
{
    static const char *const lines[] = {"",
                                        " ",
                                        "MAIL FROM:<a@b>",
                                        "RCPT TO:<a@b>",
                                        "DATA",
                                        "BDAT 1",
                                        "XCLIENT",
                                        "NOOPS",
                                        "NOO",
                                        "AUTHX PLAIN",
                                        "\"NOOP\"",
                                        "HELP",
                                        "XCHAOS-0123",
                                        "ETRN x"};
    struct cm_smtp_command c;
    (void)state;
    for (size_t i = 0; i < LENGTH(lines); i++)
        if (cm_smtp_command_read(&c, lines[i], strlen(lines[i])))
            fail_msg("\"%s\"", lines[i]);
}

/* "user" has n letters, and a response around it. */
static void
auth_login(struct cm_smtp_command *command_r, size_t n)
{
    char line[8192] = "AUTH LOGIN ";
    size_t len = strlen(line);
    assert_int_equal(n % 3, 0);
    for (size_t i = 0; i < n / 3; i++, len += 4)
        memcpy(line + len, "YWFh", 4);
    assert_true(cm_smtp_command_read(command_r, line, len));
}

static void
test_smtp_command_read_bounds_the_login(void **state)
{
    struct cm_smtp_command c;
    (void)state;
    auth_login(&c, 255);
    assert_int_equal(strlen(c.user), 255);
    auth_login(&c, 258);
    assert_string_equal(c.user, "");
    auth_login(&c, 2046);
    assert_string_equal(c.user, "");
    auth_login(&c, 6000);
    assert_string_equal(c.user, "");
    assert_string_equal(c.mechanism, "LOGIN");
}

/* The password must not be left on the stack: look where it was decoded. */
static const char secret[] = "tWkX9wqzvA";

static __attribute__((noinline)) void
read_secret(void)
{
    /* NUL tester NUL tWkX9wqzvA */
    static const char line[] = "AUTH PLAIN AHRlc3RlcgB0V2tYOXdxenZB";
    struct cm_smtp_command c;
    assert_true(cm_smtp_command_read(&c, line, sizeof line - 1));
    assert_string_equal(c.user, "tester");
}

static __attribute__((noinline)) bool
stack_has_secret(void)
{
    char below[16384];
    volatile char *bytes = below;
    for (size_t i = 0; i + sizeof secret < sizeof below; i++) {
        size_t n = 0;
        while (n < sizeof secret - 1 && bytes[i + n] == secret[n])
            n++;
        if (n == sizeof secret - 1)
            return true;
    }
    return false;
}

/* The same search finds what is not wiped, or it would prove nothing. */
static __attribute__((noinline)) void
leave_secret(void)
{
    char copy[512];
    volatile char *at = copy + sizeof copy / 2;
    for (size_t i = 0; i < sizeof secret; i++)
        at[i] = secret[i];
}

static __attribute__((noinline)) void
wipe_stack(void)
{
    char below[16384];
    explicit_bzero(below, sizeof below);
}

static void
test_smtp_command_read_wipes_the_password(void **state)
{
    (void)state;
    leave_secret();
    if (!stack_has_secret())
        skip(); /* a sanitizer's stack: nothing can be proved there */
    wipe_stack();
    read_secret();
    assert_false(stack_has_secret());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_socketmap_parse_table),
        cmocka_unit_test(test_socketmap_parse_of_a_part_never_invents),
        cmocka_unit_test(test_socketmap_print_fits_or_says_nothing),
        cmocka_unit_test(test_smtp_command_read_table),
        cmocka_unit_test(test_smtp_command_read_leaves_others_alone),
        cmocka_unit_test(test_smtp_command_read_bounds_the_login),
        cmocka_unit_test(test_smtp_command_read_wipes_the_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
