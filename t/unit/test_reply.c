/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/model/reply.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define A96                                                                    \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"                         \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A480 A96 A96 A96 A96 A96

static const struct {
    const char *name;
    int code;
    const char *enhanced, *line;
    const char *fault; /* NULL: good */
} cases[] = {
    {"M14 200", 200, "", "x", "code must be between 400 and 599"},
    {"M14 250", 250, "", "x", "code must be between 400 and 599"},
    {"M14 354", 354, "", "x", "code must be between 400 and 599"},
    {"M14 399", 399, "", "x", "code must be between 400 and 599"},
    {"M14 400", 400, "", "x", NULL},
    {"M14 421", 421, "4.7.0", "x", NULL},
    {"M14 521", 521, "", "x", NULL},
    {"M14 556", 556, "5.1.10", "x", NULL},
    {"M14 599", 599, "", "x", NULL},
    {"M14 600", 600, "", "x", "code must be between 400 and 599"},
    {"M14 no enhanced", 451, NULL, "x", NULL},
    {"M14 other class", 451, "5.3.0", "x",
     "enhanced must be of the same class as the code"},
    {"M14 class 2", 451, "2.0.0", "x",
     "enhanced must be of the same class as the code"},
    {"M14 long numbers", 451, "4.999.999", "x", NULL},
    {"M14 too long a number", 451, "4.1000.1", "x",
     "enhanced must be an enhanced status code such as 4.7.1"},
    {"M14 leading zero", 451, "4.07.1", "x",
     "enhanced must be an enhanced status code such as 4.7.1"},
    {"M14 two numbers", 451, "4.7", "x",
     "enhanced must be an enhanced status code such as 4.7.1"},
    {"M14 four numbers", 451, "4.7.1.1", "x",
     "enhanced must be an enhanced status code such as 4.7.1"},
    {"M14 letters", 451, "4.x.1", "x",
     "enhanced must be an enhanced status code such as 4.7.1"},
    {"M13 empty line", 451, "", "", "line 1 must not be empty"},
    {"M13 CR LF", 451, "", "x\r\n250 ok",
     "line 1 must be printable ASCII without line breaks"},
    {"M13 LF", 451, "", "x\n",
     "line 1 must be printable ASCII without line breaks"},
    {"M13 tab", 451, "", "a\tb",
     "line 1 must be printable ASCII without line breaks"},
    {"M13 8-bit", 451, "", "gr\xc3\xbc\xc3\x9f",
     "line 1 must be printable ASCII without line breaks"},
    {"M13 480 bytes", 451, "", A480, NULL},
    {"M13 481 bytes", 451, "", A480 "a",
     "line 1 must not be longer than 480 characters"},
};

static void
test_reply_new_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_reply *reply = NULL;
        struct cm_err err = {.msg = ""};
        enum cm_status status = cm_reply_new(
            &reply, cases[i].code, cases[i].enhanced, &cases[i].line, 1, &err);
        if (cases[i].fault) {
            if (status != CM_EINVAL || reply ||
                strcmp(err.msg, cases[i].fault) != 0)
                fail_msg("%s: \"%s\"", cases[i].name, err.msg);
            continue;
        }
        if (status != CM_OK)
            fail_msg("%s: %s", cases[i].name, err.msg);
        assert_int_equal(reply->code, cases[i].code);
        assert_string_equal(reply->enhanced,
                            cases[i].enhanced ? cases[i].enhanced : "");
        assert_int_equal(reply->nlines, 1);
        assert_string_equal(reply->lines[0], cases[i].line);
        cm_reply_free(&reply);
        assert_null(reply);
    }
}

static void
test_reply_new_doubles_percent_on_the_wire_alone(void **state)
{
    const char *lines[] = {"%s%n", "100 % sure", "%%", "none"};
    const char *wire[] = {"%%s%%n", "100 %% sure", "%%%%", "none"};
    struct cm_reply *reply = NULL;
    (void)state;
    assert_int_equal(cm_reply_new(&reply, 550, "5.7.1", lines, 4, NULL), CM_OK);
    assert_int_equal(reply->nlines, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(reply->lines[i], lines[i]);
        assert_string_equal(reply->wire[i], wire[i]);
    }
    cm_reply_free(&reply);
}

static void
test_reply_new_lines_are_limited_and_numbered(void **state)
{
    const char *lines[CM_REPLY_LINES_MAX + 1];
    struct cm_reply *reply = NULL;
    struct cm_err err;
    (void)state;
    for (size_t i = 0; i <= CM_REPLY_LINES_MAX; i++)
        lines[i] = "line";
    assert_int_equal(cm_reply_new(&reply, 450, "4.2.0", lines, 32, &err),
                     CM_OK);
    assert_int_equal(reply->nlines, 32);
    cm_reply_free(&reply);
    assert_int_equal(cm_reply_new(&reply, 450, "4.2.0", lines, 33, &err),
                     CM_EINVAL);
    assert_string_equal(err.msg, "text must have 1 to 32 lines");
    assert_int_equal(cm_reply_new(&reply, 450, "4.2.0", lines, 0, &err),
                     CM_EINVAL);
    lines[6] = "\x7f";
    assert_int_equal(cm_reply_new(&reply, 450, "4.2.0", lines, 9, &err),
                     CM_EINVAL);
    assert_string_equal(err.msg,
                        "line 7 must be printable ASCII without line breaks");
    assert_int_equal(cm_reply_new(&reply, 450, "", lines, 2, &err), CM_EINVAL);
    assert_string_equal(
        err.msg,
        "text must be one line where there is no enhanced status code");
}

static void
test_reply_check_line_sees_nul(void **state)
{
    (void)state;
    assert_non_null(cm_reply_check_line("a\0b", 3));
    assert_null(cm_reply_check_line("a b", 3));
}

static void
test_reply_new_without_memory(void **state)
{
    const char *lines[] = {"one", "two"};
    struct cm_reply *reply = NULL;
    struct cm_err err;
    (void)state;
    failing_alloc_arm(1);
    enum cm_status status = cm_reply_new(&reply, 451, "4.3.0", lines, 2, &err);
    assert_true(failing_alloc_disarm());
    assert_int_equal(status, CM_ENOMEM);
    assert_null(reply);
    failing_alloc_arm(2); /* it needs one block only */
    status = cm_reply_new(&reply, 451, "4.3.0", lines, 2, &err);
    assert_false(failing_alloc_disarm());
    assert_int_equal(status, CM_OK);
    cm_reply_free(&reply);
}

static const struct {
    const char *name, *in, *out; /* NULL: refused */
} steps[] = {
    {"all three", "451 4.7.1 Greylisted, come back",
     "451 4.7.1 Greylisted, come back"},
    {"no enhanced code", "421 Closing", "421 Closing"},
    {"bare code", "451", "451 4.3.0 Service unavailable"},
    {"bare permanent code", "550", "550 5.3.0 Service unavailable"},
    {"code and enhanced code", "550 5.1.1", "550 5.1.1 Service unavailable"},
    {"version number is text", "450 1.2.3.4 is listed",
     "450 1.2.3.4 is listed"},
    {"two numbers are text", "450 4.2 wait", "450 4.2 wait"},
    {"wrong class", "451 5.7.1 no", NULL},
    {"success", "250 ok", NULL},
    {"no code", "try later", NULL},
    {"two digits", "45 x", NULL},
    {"four digits", "4510 x", NULL},
    {"hyphen", "451-x", NULL},
    {"empty", "", NULL},
    {"no text after the space", "451 ", NULL},
    {"no text after the enhanced code", "451 4.7.1 ", NULL},
    {"line break", "451 a\r\n250 b", NULL},
    {"leading space", " 451 a", NULL},
    {"sign", "+45 a", NULL},
};

static void
test_reply_parse_step_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct cm_reply *reply = NULL;
        struct cm_err err = {.msg = ""};
        char text[600] = "";
        enum cm_status status = cm_reply_parse_step(&reply, steps[i].in, &err);
        if (!steps[i].out) {
            if (status != CM_EINVAL || reply || !*err.msg)
                fail_msg("%s: taken", steps[i].name);
            continue;
        }
        if (status != CM_OK)
            fail_msg("%s: %s", steps[i].name, err.msg);
        cm_reply_print(reply, text, sizeof text);
        if (strcmp(text, steps[i].out) != 0)
            fail_msg("%s: %s", steps[i].name, text);
        cm_reply_free(&reply);
    }
}

static void
test_reply_print_cuts(void **state)
{
    char text[8];
    (void)state;
    cm_reply_print(cm_reply_greylist(), text, sizeof text);
    assert_string_equal(text, "451 4.7");
}

/* Every reply of the lists and no other, each about as often as the next. */
static void
test_reply_draw_is_uniform_over_the_lists(void **state)
{
    static const char *const temporary[] = {
        "421 4.7.0 Service temporarily unavailable",
        "450 4.2.1 Mailbox busy, try again later",
        "451 4.3.0 Temporary processing error",
        "452 4.3.1 Insufficient storage"};
    static const char *const permanent[] = {
        "550 5.1.1 Mailbox not found", "551 5.1.6 User not local",
        "552 5.3.4 Message size exceeds limit",
        "553 5.1.3 Mailbox name invalid", "554 5.0.0 Transaction failed"};
    static const struct {
        unsigned types;
        size_t first, n; /* of all nine */
    } lists[] = {
        {CM_REPLY_TEMPORARY, 0, 4},
        {CM_REPLY_PERMANENT, 4, 5},
        {CM_REPLY_TEMPORARY | CM_REPLY_PERMANENT, 0, 9},
        {0, 0, 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const unsigned long long step = UINT64_MAX / 9000;
        int seen[9] = {0};
        for (unsigned long long k = 0; k < 9000; k++) {
            char text[100];
            cm_reply_print(cm_reply_draw(lists[i].types, k * step + step / 2),
                           text, sizeof text);
            size_t j = 0;
            while (j < 9 &&
                   strcmp(text, j < 4 ? temporary[j] : permanent[j - 4]) != 0)
                j++;
            if (j == 9)
                fail_msg("%s", text);
            seen[j]++;
        }
        for (size_t j = 0; j < 9; j++) {
            bool in = j >= lists[i].first && j < lists[i].first + lists[i].n;
            int expected = in ? 9000 / (int)lists[i].n : 0;
            assert_in_range(seen[j] + 2 - expected, 0, 4);
        }
    }
    assert_ptr_equal(
        cm_reply_draw(CM_REPLY_PERMANENT, UINT64_MAX),
        cm_reply_draw(CM_REPLY_PERMANENT | CM_REPLY_TEMPORARY, UINT64_MAX));
}

static void
test_reply_stock_replies_would_pass_the_checks(void **state)
{
    (void)state;
    for (unsigned long long k = 0; k < 9; k++) {
        const struct cm_reply *r = cm_reply_draw(3, UINT64_MAX / 9 * k + 99);
        assert_null(cm_reply_check_code(r->code));
        assert_null(cm_reply_check_enhanced(r->code, r->enhanced));
        assert_null(cm_reply_check_line(r->lines[0], strlen(r->lines[0])));
        assert_string_equal(r->lines[0], r->wire[0]);
        assert_int_equal(cm_reply_is_temporary(r), r->code < 500);
    }
    char text[100];
    cm_reply_print(cm_reply_greylist(), text, sizeof text);
    assert_string_equal(text,
                        "451 4.7.1 Greylisting in operation, try again later");
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reply_new_table),
        cmocka_unit_test(test_reply_new_doubles_percent_on_the_wire_alone),
        cmocka_unit_test(test_reply_new_lines_are_limited_and_numbered),
        cmocka_unit_test(test_reply_check_line_sees_nul),
        cmocka_unit_test(test_reply_new_without_memory),
        cmocka_unit_test(test_reply_parse_step_table),
        cmocka_unit_test(test_reply_print_cuts),
        cmocka_unit_test(test_reply_draw_is_uniform_over_the_lists),
        cmocka_unit_test(test_reply_stock_replies_would_pass_the_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
