/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What becomes of one entry of the stream on its way to a reader: whether it is
 * wanted, its JSON, and the line that VaultSandbox's console shows. H19, H24.
 */
#include "admin/event_filter.h"
#include "admin/event_json.h"
#include "admin/target.h"
#include "milter/buf.h"
#include "milter/model/json.h"
#include "milter/model/problem.h"
#include "milter/store/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static struct cm_record
make(const char *kind, const char *variant, const char *detail)
{
    struct cm_record record = {.id = {1700000000000, 3}};
    for (int i = 0; i < CM_ENTRY_FIELDS; i++)
        record.at[i] = "";
    record.at[CM_ENTRY_TIME] = "1700000000000";
    record.at[CM_ENTRY_HOST] = "mx/unix:/s";
    record.at[CM_ENTRY_N] = "12";
    record.at[CM_ENTRY_KIND] = kind;
    record.at[CM_ENTRY_OUTCOME] = "applied";
    record.at[CM_ENTRY_STAGE] = "rcpt";
    record.at[CM_ENTRY_VARIANT] = variant;
    record.at[CM_ENTRY_INBOX] = "a@example.com";
    record.at[CM_ENTRY_RULE] = "inbox:x";
    record.at[CM_ENTRY_DETAIL] = detail;
    record.at[CM_ENTRY_PROBABILITY] = "300000000";
    record.at[CM_ENTRY_OCCURRENCE] = "0";
    record.at[CM_ENTRY_ASKED] = record.at[CM_ENTRY_MEASURED] = "-1";
    record.at[CM_ENTRY_OTHERS] = "0";
    return record;
}

/* --- JSON --- */

static void
assert_printed(const struct cm_record *record, const char *expected)
{
    struct cm_buf buf;
    cm_buf_init(&buf, 65536);
    cm_event_print(&buf, record);
    assert_int_equal(cm_buf_status(&buf), CM_OK);
    assert_string_equal(buf.data, expected);
    cm_buf_fini(&buf);
}

static void
test_print_tells_everything_and_null_what_is_not_known(void **state)
{
    struct cm_record record = make("drop", "fin ackLost", "");
    (void)state;
    assert_printed(
        &record,
        "{\"id\":\"1700000000000-3\",\"time\":\"2023-11-14T22:13:20.000Z\","
        "\"host\":\"mx/unix:/s\",\"n\":12,\"queueId\":null,\"client\":null,"
        "\"sender\":null,\"recipient\":\"a@example.com\",\"stage\":\"rcpt\","
        "\"rule\":\"inbox:x\",\"fault\":{\"kind\":\"drop\",\"how\":\"fin\","
        "\"outcome\":\"ackLost\"},\"outcome\":\"applied\",\"coin\":{"
        "\"probability\":0.3,\"occurrence\":null},\"reply\":null,"
        "\"delay\":null,\"committed\":null,\"others\":0,\"detail\":null}");
    record.at[CM_ENTRY_KIND] = "latency";
    record.at[CM_ENTRY_QID] = "4ABC";
    record.at[CM_ENTRY_CLIENT] = "192.0.2.1";
    record.at[CM_ENTRY_SENDER] = "<>";
    record.at[CM_ENTRY_REPLY] = "451 4.7.1 later";
    record.at[CM_ENTRY_DETAIL] = "why";
    record.at[CM_ENTRY_PROBABILITY] = "1000000000";
    record.at[CM_ENTRY_OCCURRENCE] = "7";
    record.at[CM_ENTRY_ASKED] = "400";
    record.at[CM_ENTRY_MEASURED] = "401";
    record.at[CM_ENTRY_COMMITTED] = "yes";
    record.at[CM_ENTRY_OTHERS] = "2";
    assert_printed(
        &record,
        "{\"id\":\"1700000000000-3\",\"time\":\"2023-11-14T22:13:20.000Z\","
        "\"host\":\"mx/unix:/s\",\"n\":12,\"queueId\":\"4ABC\",\"client\":"
        "\"192.0.2.1\",\"sender\":\"<>\",\"recipient\":\"a@example.com\","
        "\"stage\":\"rcpt\",\"rule\":\"inbox:x\",\"fault\":{\"kind\":"
        "\"latency\"},\"outcome\":\"applied\",\"coin\":{\"probability\":1,"
        "\"occurrence\":7},\"reply\":\"451 4.7.1 later\",\"delay\":{"
        "\"askedMs\":400,\"measuredMs\":401},\"committed\":true,\"others\":2,"
        "\"detail\":\"why\"}");
}

static void
test_print_escapes_what_came_from_outside(void **state)
{
    struct cm_record record =
        make("x\n\nevent: forged", "", "\r\ndata: \x01\x7f\xff\xc0\x80 \"\\");
    struct cm_buf buf;
    json_t *json = NULL;
    (void)state;
    record.at[CM_ENTRY_INBOX] = "\"<img src=x>\\\r\"@x";
    record.at[CM_ENTRY_N] = "12, \"forged\":1";
    record.at[CM_ENTRY_OTHERS] = "}";
    record.at[CM_ENTRY_PROBABILITY] = "nan";
    record.at[CM_ENTRY_MEASURED] = "x";
    record.at[CM_ENTRY_ASKED] = "1e9";
    record.at[CM_ENTRY_TIME] = "soon";
    cm_buf_init(&buf, 65536);
    cm_event_print(&buf, &record);
    assert_int_equal(cm_buf_status(&buf), CM_OK);
    for (size_t i = 0; i < buf.len; i++)
        assert_true((unsigned char)buf.data[i] >= 0x20);
    assert_int_equal(cm_json_parse(&json, buf.data, buf.len, NULL), CM_OK);
    assert_string_equal(json_string_value(json_object_get(json, "recipient")),
                        "\"<img src=x>\\\r\"@x");
    assert_int_equal(json_integer_value(json_object_get(json, "n")), 0);
    assert_true(json_is_null(json_object_get(json, "coin")));
    json_decref(json);
    cm_buf_fini(&buf);
}

/* --- the console --- */

static void
test_console_texts_are_vaultsandboxs(void **state)
{
    static const struct {
        const char *kind, *variant, *reply, *detail, *outcome, *text;
    } cases[] = {
        {"error", "", "452 4.3.1 Insufficient storage", "", "applied",
         "random_error: 452 4.3.1 Insufficient storage"},
        {"greylist", "", "451 4.7.1 Greylisting in operation, try again later",
         "attempt 1/2, retry in 300s", "applied",
         "greylist: Greylisting: attempt 1/2, retry in 300s"},
        {"drop", "fin lost", "", "FIN, message lost", "applied",
         "connection_drop: Connection drop, graceful (FIN)"},
        {"drop", "rst lost", "", "RST, message lost", "applied",
         "connection_drop: Connection drop, abrupt (RST)"},
        {"blackhole", "", "", "", "applied",
         "blackhole: Email blackholed (webhooks=suppressed)"},
        {"blackhole", "webhooks", "", "", "applied",
         "blackhole: Email blackholed (webhooks=enabled)"},
        {"latency", "", "", "", "applied", "latency: 413ms delay injected"},
        {"throttle", "", "450 4.2.1 slow down", "", "applied",
         "throttle: 450 4.2.1 slow down"},
        {"mutate", "", "", "8 bits", "applied", "mutate: 8 bits"},
        {"drop", "fin lost", "", "no such connection", "unavailable",
         "drop (unavailable): no such connection"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_record record =
            make(cases[i].kind, cases[i].variant, cases[i].detail);
        struct cm_buf buf;
        char expected[256];
        record.at[CM_ENTRY_REPLY] = cases[i].reply;
        record.at[CM_ENTRY_OUTCOME] = cases[i].outcome;
        record.at[CM_ENTRY_MEASURED] = "413";
        snprintf(expected, sizeof expected, "[CHAOS] %s (inbox=a@example.com)",
                 cases[i].text);
        cm_buf_init(&buf, 4096);
        cm_event_console_text(&buf, &record);
        assert_string_equal(buf.data, expected);
        cm_buf_fini(&buf);
    }
}

/* --- the filter --- */

static void
read_filter(struct cm_event_filter *filter, const char *query,
            struct cm_problems *problems)
{
    static const char *const others[] = {"limit", NULL};
    struct cm_target target;
    char raw[512];
    snprintf(raw, sizeof raw, "/?%s", query);
    assert_int_equal(cm_target_parse(&target, raw, NULL), CM_OK);
    cm_problems_init(problems);
    cm_event_filter_read(filter, &target, 0, "+", others, problems);
    cm_target_fini(&target);
}

static void
test_filter_matches_what_was_asked_for(void **state)
{
    static const struct {
        const char *query, *inbox;
        bool matches;
    } cases[] = {
        {"", "a@example.com", true},
        {"limit=5", "a@example.com", true},
        {"inbox=a@example.com", "a@example.com", true},
        {"inbox=A@Example.COM", "a@example.com", true},
        {"inbox=a@example.com", "a+tag@example.com", true},
        {"inbox=a%2Btag@example.com", "a+tag@example.com", true},
        {"inbox=a%2Btag@example.com", "a@example.com", false},
        {"inbox=a@example.com", "a+tag@example.org", false},
        {"inbox=a@example.com", "aa@example.com", false},
        {"inbox=a@example.com", "", false},
        {"inbox=a@example.com", "\"a+b@c\"@example.com", false},
        {"rule=inbox:x", "a@example.com", true},
        {"rule=inbox", "a@example.com", false},
        {"stage=rcpt", "a@example.com", true},
        {"stage=data", "a@example.com", false},
        {"stage=data,rcpt", "a@example.com", true},
        {"kind=error", "a@example.com", true},
        {"kind=latency,drop", "a@example.com", false},
        {"outcome=applied", "a@example.com", true},
        {"outcome=shed", "a@example.com", false},
        {"kind=error&stage=rcpt&rule=inbox:x", "a@example.com", true},
        {"kind=error&stage=data&rule=inbox:x", "a@example.com", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_record record = make("error", "", "");
        struct cm_event_filter filter;
        struct cm_problems problems;
        record.at[CM_ENTRY_INBOX] = cases[i].inbox;
        read_filter(&filter, cases[i].query, &problems);
        if (problems.n > 0)
            fail_msg("%s: %s", cases[i].query, cm_problems_first(&problems));
        if (cm_event_filter_match(&filter, &record) != cases[i].matches)
            fail_msg("case %zu: %s for %s", i, cases[i].query, cases[i].inbox);
    }
}

static void
test_filter_refuses_what_could_match_nothing(void **state)
{
    static const struct {
        const char *query, *problem;
    } cases[] = {
        {"kinds=error", "kinds: there is no such parameter"},
        {"kind=moon", "kind: there is no kind \"moon\""},
        {"kind=error,", "kind: there is no kind \"\""},
        {"stage=", "stage: there is no stage \"\""},
        {"outcome=applied;", "outcome: there is no outcome \"applied;\""},
        {"inbox=", "inbox: an address is needed"},
        {"inbox=a@@b", "inbox: "},
        {"rule=01234567890123456789012345678901234567890123456789012345678901"
         "2345678901234567890",
         "rule: no rule has so long a name"},
        {"stage=rcptrcptrcptrcptrcptrcptrcpt", "stage: there is no stage"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_event_filter filter;
        struct cm_problems problems;
        read_filter(&filter, cases[i].query, &problems);
        if (problems.n != 1 ||
            strncmp(cm_problems_first(&problems), cases[i].problem,
                    strlen(cases[i].problem)) != 0)
            fail_msg("%s: %zu problems: %s", cases[i].query, problems.n,
                     cm_problems_first(&problems));
    }
}

/* --- ids --- */

static void
test_record_id_takes_two_whole_numbers(void **state)
{
    static const char *const good[] = {
        "0-0", "1700000000000-0", "1-18446744073709551615",
        "18446744073709551615-18446744073709551615"};
    static const char *const bad[] = {"",
                                      "-",
                                      "1",
                                      "1-",
                                      "-1",
                                      "1-1-1",
                                      "+1-1",
                                      " 1-1",
                                      "1-1 ",
                                      "1- 1",
                                      "0x1-1",
                                      "$",
                                      "*",
                                      "1.5-1",
                                      "1--1",
                                      "1-1\n",
                                      "+",
                                      "(1-1",
                                      "99999999999999999999-1",
                                      "18446744073709551616-0"};
    struct cm_record_id id, next;
    char text[CM_RECORD_ID_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(cm_record_id_parse(good[i], &id), CM_OK);
        cm_record_id_print(id, text);
        assert_string_equal(text, good[i]);
        if (i > 0)
            assert_true(cm_record_id_compare(id, next) != 0);
        next = id;
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (cm_record_id_parse(bad[i], &id) != CM_EINVAL)
            fail_msg("\"%s\" was taken", bad[i]);
    struct cm_record_id a = {5, 9}, b = {6, 0}, c = {5, 10};
    assert_true(cm_record_id_compare(a, b) < 0);
    assert_true(cm_record_id_compare(b, c) > 0);
    assert_true(cm_record_id_compare(a, c) < 0);
    assert_true(cm_record_id_compare(a, a) == 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_print_tells_everything_and_null_what_is_not_known),
        cmocka_unit_test(test_print_escapes_what_came_from_outside),
        cmocka_unit_test(test_console_texts_are_vaultsandboxs),
        cmocka_unit_test(test_filter_matches_what_was_asked_for),
        cmocka_unit_test(test_filter_refuses_what_could_match_nothing),
        cmocka_unit_test(test_record_id_takes_two_whole_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
