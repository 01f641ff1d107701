/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command hook on a unix socket, asked as Postfix asks it. This process is
 * both ends, so its pid stands for the mail server's.
 */
#include "milter/filter/hook.h"
#include "milter/clock.h"
#include "milter/filter/attendance.h"
#include "milter/filter/filter.h"
#include "milter/filter/server.h"
#include "milter/filter/ticket.h"
#include "milter/model/rule_json.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PASS        "9:NOTFOUND ,"
#define DEADLINE_MS 100

static char path[64];
static struct cm_filter filter;
static char dir[32];

static int
set_up(void **state)
{
    const struct cm_server_opts opts = {.path = path,
                                        .mode = 0640,
                                        .user = "",
                                        .group = "",
                                        .clerks = 2,
                                        .deadline_ms = DEADLINE_MS};
    struct cm_err err;
    (void)state;
    memset(&filter, 0, sizeof filter);
    mock_store_reset();
    filter.armed = true;
    snprintf(dir, sizeof dir, "/tmp/test_hook.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/hook", dir);
    if (cm_attendance_new(&filter.attendance, &err) != CM_OK ||
        cm_hook_open(&filter.hook, &opts, &err) != CM_OK ||
        cm_hook_start(filter.hook, &filter, &err) != CM_OK)
        return -1;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    if (filter.hook)
        cm_hook_remove(filter.hook);
    cm_hook_free(&filter.hook);
    cm_attendance_free(&filter.attendance);
    mock_store_reset();
    return rmdir(dir);
}

static void
add_rules(const char *const *texts, size_t n)
{
    struct cm_rule *rules = calloc(n, sizeof *rules);
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        struct cm_problems problems;
        struct cm_err err;
        char id[24];
        json_t *doc = NULL;
        cm_problems_init(&problems);
        snprintf(id, sizeof id, "r%zu", i + 1);
        assert_int_equal(cm_json_parse(&doc, texts[i], strlen(texts[i]), &err),
                         CM_OK);
        if (cm_rule_compile(&rules[i], id, doc, 0, &problems) != CM_OK)
            fail_msg("%s: %s", texts[i], cm_problems_first(&problems));
        json_decref(doc);
    }
    assert_int_equal(cm_ruleset_new(&mock_store.rules, rules, n), CM_OK);
}

static void
add_rule(const char *text)
{
    add_rules(&text, 1);
}

/* --- the mail server's side --- */

static int
dial(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof sun), 0);
    return fd;
}

static void
say(int fd, const char *text, size_t len)
{
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

static void
send_command(int fd, const char *command)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "%zu:command %s,", strlen(command) + 8,
                     command);
    say(fd, text, (size_t)n);
}

/* One answer; "" when the connection was closed. */
static const char *
hear(int fd)
{
    static char text[600];
    size_t n = 0;
    while (n + 1 < sizeof text) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        if (poll(&waiting, 1, 5000) != 1)
            fail_msg("no answer");
        if (recv(fd, text + n, 1, 0) != 1)
            break;
        if (text[n++] == ',')
            break;
    }
    text[n] = '\0';
    return text;
}

static const char *
ask(int fd, const char *command)
{
    send_command(fd, command);
    return hear(fd);
}

/* The word that came in the command's place. */
static const char *
word_of(const char *answer)
{
    static char word[CM_TICKET_WORD_BYTES];
    assert_memory_equal(answer, "42:OK XCHAOS-", 13);
    snprintf(word, sizeof word, "%s", answer + 6);
    return word;
}

static void
enter(uint64_t session)
{
    struct cm_guest guest = {.process = getpid(), .session = session};
    guest.client.family = AF_INET;
    memcpy(guest.client.addr, "\x7f\0\0\2", 4);
    assert_int_equal(cm_attendance_enter(filter.attendance, &guest), CM_OK);
}

/* Incidents are closed on the hook's threads, maybe after the answer. */
static const struct cm_incident *
wait_incident(size_t i)
{
    for (int tries = 0; mock_store.nincidents <= i; tries++) {
        if (tries == 1000)
            fail_msg("no incident %zu", i);
        usleep(5000);
    }
    return &mock_store.incidents[i];
}

static long long
count(enum cm_filter_count what)
{
    return atomic_load(&filter.counts[what]);
}

/* --- tests --- */

#define ERROR_AT(stage)                                                        \
    "{\"stage\":\"" stage "\",\"fault\":{\"kind\":\"error\",\"code\":535}}"
#define LATE_AT(stage, ms)                                                     \
    "{\"stage\":\"" stage "\",\"fault\":{\"kind\":\"latency\",\"ms\":" ms "}}"

static void
test_without_rules_every_command_passes(void **state)
{
    static const char *const commands[] = {
        "NOOP", "AUTH PLAIN AGEAYg==", "MAIL FROM:<a@b>", "", " ", "XCHAOS-1"};
    (void)state;
    int fd = dial();
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        assert_string_equal(ask(fd, commands[i]), PASS);
    assert_int_equal(count(CM_FILTER_HOOK_LOOKUPS), 6);
    assert_int_equal(mock_store.nincidents, 0);
    close(fd);
}

static void
test_error_gives_a_word_that_the_session_can_redeem(void **state)
{
    (void)state;
    add_rule(ERROR_AT("auth"));
    enter(7);
    int fd = dial();
    assert_string_equal(ask(fd, "NOOP"), PASS);
    const char *word = word_of(ask(fd, "AUTH PLAIN AGEAYg=="));
    assert_int_equal(mock_store.nincidents, 0); /* nothing is claimed yet */
    assert_null(cm_attendance_redeem(filter.attendance, getpid(), 8, word));
    struct cm_ticket *ticket =
        cm_attendance_redeem(filter.attendance, getpid(), 7, word);
    assert_non_null(ticket);
    assert_string_equal(ticket->incident.client, "127.0.0.2");
    assert_string_equal(ticket->incident.rule, "r1");
    assert_memory_equal(ticket->incident.detail, "PLAIN, smtpd[", 13);
    cm_ticket_free(&ticket);
    close(fd);
}

static void
test_error_without_a_session_passes_and_is_unavailable(void **state)
{
    (void)state;
    add_rule(
        "{\"stage\":\"noop\",\"maxHits\":1,\"fault\":{\"kind\":\"error\"}}");
    int fd = dial();
    assert_string_equal(ask(fd, "NOOP"), PASS);
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(wait_incident(0)->reply, "");
    assert_int_equal(mock_store.asked, 0); /* it uses up no hit */
    close(fd);
}

static void
test_a_word_that_is_not_fetched_is_unavailable(void **state)
{
    (void)state;
    add_rule(ERROR_AT("noop"));
    enter(1);
    int fd = dial();
    word_of(ask(fd, "NOOP"));
    assert_string_equal(ask(fd, "RSET"), PASS);
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_UNAVAILABLE);
    close(fd);
}

static void
test_5xx_is_unavailable_where_the_mail_server_has_its_own(void **state)
{
    static const char *const rules[] = {
        ERROR_AT("noop"),
        "{\"stage\":\"rset\",\"fault\":{\"kind\":\"error\",\"code\":451}}"};
    struct cm_guest guest = {
        .process = getpid(), .session = 1, .only_temporary = true};
    (void)state;
    add_rules(rules, 2);
    assert_int_equal(cm_attendance_enter(filter.attendance, &guest), CM_OK);
    int fd = dial();
    assert_string_equal(ask(fd, "NOOP"), PASS);
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_UNAVAILABLE);
    word_of(ask(fd, "RSET"));
    close(fd);
}

static void
test_not_armed_or_stale_nothing_happens(void **state)
{
    (void)state;
    add_rule(ERROR_AT("noop"));
    enter(1);
    int fd = dial();
    filter.armed = false;
    assert_string_equal(ask(fd, "NOOP"), PASS);
    filter.armed = true;
    mock_store.stale = true;
    assert_string_equal(ask(fd, "NOOP"), PASS);
    mock_store.stale = false;
    word_of(ask(fd, "NOOP"));
    assert_int_equal(mock_store.nincidents, 0);
    close(fd);
}

static void
test_shadow_is_recorded_and_passes(void **state)
{
    (void)state;
    add_rule("{\"stage\":\"vrfy\",\"mode\":\"shadow\",\"fault\":{\"kind\":"
             "\"error\"}}");
    enter(1);
    int fd = dial();
    assert_string_equal(ask(fd, "VRFY a"), PASS);
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_SHADOW);
    close(fd);
}

static void
test_latency_holds_that_command_alone(void **state)
{
    (void)state;
    add_rule(LATE_AT("noop", "300"));
    enter(1);
    int slow = dial(), other = dial();
    int64_t began_ms = cm_clock_mono_ms();
    send_command(slow, "NOOP");
    for (int i = 0; i < 50; i++)
        assert_string_equal(ask(other, "RSET"), PASS);
    assert_int_equal(cm_hook_held(filter.hook), 1);
    assert_string_equal(hear(slow), PASS);
    assert_true(cm_clock_mono_ms() - began_ms >= 300);
    const struct cm_incident *in = wait_incident(0);
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(in->delay_asked_ms, 300);
    assert_true(in->delay_measured_ms >= 300);
    assert_int_equal(cm_hook_held(filter.hook), 0);
    close(slow);
    close(other);
}

static void
test_a_caller_that_leaves_while_held_is_forgotten(void **state)
{
    (void)state;
    add_rule(LATE_AT("noop", "60000"));
    int fd = dial();
    send_command(fd, "NOOP");
    for (int i = 0; i < 400 && cm_hook_held(filter.hook) == 0; i++)
        usleep(5000);
    assert_int_equal(cm_hook_held(filter.hook), 1);
    close(fd);
    assert_non_null(strstr(wait_incident(0)->detail,
                           ": the session ended before the reply was due"));
    assert_in_range(wait_incident(0)->delay_measured_ms, 0, 30000);
    assert_int_equal(cm_hook_held(filter.hook), 0);
}

static void
test_questions_asked_ahead_are_answered_in_order(void **state)
{
    (void)state;
    add_rule(LATE_AT("noop", "50"));
    int fd = dial();
    int64_t began_ms = cm_clock_mono_ms();
    for (int i = 0; i < 4; i++)
        send_command(fd, "NOOP");
    for (int i = 0; i < 4; i++)
        assert_string_equal(hear(fd), PASS);
    assert_true(cm_clock_mono_ms() - began_ms >= 200);
    close(fd);
}

static void
test_a_decision_that_comes_in_time_counts(void **state)
{
    (void)state;
    add_rule(
        "{\"stage\":\"auth\",\"maxHits\":5,\"fault\":{\"kind\":\"error\"}}");
    enter(1);
    int fd = dial();
    mock_store.state_us = 20000;
    word_of(ask(fd, "AUTH PLAIN"));
    mock_store.hit_allowed = false;
    assert_string_equal(ask(fd, "AUTH PLAIN"), PASS);
    assert_int_equal(count(CM_FILTER_HOOK_LATE), 0);
    close(fd);
}

static void
test_a_decision_that_is_late_lets_the_command_pass(void **state)
{
    (void)state;
    add_rule(
        "{\"stage\":\"auth\",\"maxHits\":5,\"fault\":{\"kind\":\"error\"}}");
    enter(1);
    int fd = dial(), other = dial();
    mock_store.state_us = 400000;
    int64_t began_ms = cm_clock_mono_ms();
    send_command(fd, "AUTH PLAIN");
    for (int i = 0; i < 20; i++)
        assert_string_equal(ask(other, "NOOP"), PASS);
    assert_string_equal(hear(fd), PASS);
    assert_in_range(cm_clock_mono_ms() - began_ms, DEADLINE_MS, 390);
    assert_int_equal(count(CM_FILTER_HOOK_LATE), 1);
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(wait_incident(0)->detail, "decided too late");
    close(fd);
    close(other);
}

/* More wait for Redis than there are clerks: those in the queue pass in time as
 * well, and are not judged any more. */
static void
test_a_queue_of_late_decisions_is_given_up(void **state)
{
    int fds[6];
    (void)state;
    add_rule(
        "{\"stage\":\"auth\",\"maxHits\":5,\"fault\":{\"kind\":\"error\"}}");
    mock_store.state_us = 400000;
    enter(1);
    int64_t began_ms = cm_clock_mono_ms();
    for (int i = 0; i < 6; i++)
        send_command(fds[i] = dial(), "AUTH PLAIN");
    for (int i = 0; i < 6; i++)
        assert_string_equal(hear(fds[i]), PASS);
    assert_in_range(cm_clock_mono_ms() - began_ms, DEADLINE_MS, 390);
    assert_int_equal(count(CM_FILTER_HOOK_LATE), 6);
    wait_incident(1); /* two clerks had begun */
    for (int i = 0; i < 6; i++)
        close(fds[i]);
    usleep(100000);
    assert_int_equal(mock_store.nincidents, 2);
    assert_int_equal(mock_store.asked, 2);
}

static void
test_a_caller_may_leave_while_its_question_is_judged(void **state)
{
    (void)state;
    add_rule(
        "{\"stage\":\"auth\",\"maxHits\":5,\"fault\":{\"kind\":\"error\"}}");
    mock_store.state_us = 50000;
    enter(1);
    int fd = dial();
    send_command(fd, "AUTH PLAIN");
    for (int tries = 0; mock_store.asked == 0; tries++) {
        assert_int_not_equal(tries, 1000);
        usleep(5000);
    }
    close(fd);
    assert_string_equal(wait_incident(0)->detail, "decided too late");
    fd = dial();
    assert_string_equal(ask(fd, "NOOP"), PASS);
    close(fd);
}

static void
test_long_questions_are_answered_and_passed_over(void **state)
{
    enum { LONG = 100000 };
    char *text = malloc(LONG + 32);
    (void)state;
    assert_non_null(text);
    add_rule(ERROR_AT("noop"));
    enter(1);
    int n = snprintf(text, LONG + 32, "%d:command AUTH ", LONG);
    memset(text + n, 'a', (size_t)(LONG + 7 - n));
    text[LONG + 7] = ',';
    int fd = dial();
    say(fd, text, LONG + 8);
    assert_string_equal(hear(fd), PASS);
    word_of(ask(fd, "NOOP"));
    close(fd);
    free(text);
}

static void
test_a_question_in_single_bytes(void **state)
{
    static const char text[] = "12:command NOOP,";
    (void)state;
    int fd = dial();
    for (size_t i = 0; i < sizeof text - 1; i++) {
        say(fd, text + i, 1);
        usleep(1000);
    }
    assert_string_equal(hear(fd), PASS);
    close(fd);
}

static void
test_who_speaks_something_else_is_left(void **state)
{
    (void)state;
    int fd = dial(), good = dial();
    say(fd, "EHLO x\r\n", 8);
    assert_string_equal(hear(fd), "");
    assert_int_equal(count(CM_FILTER_HOOK_MALFORMED), 1);
    assert_string_equal(ask(good, "NOOP"), PASS);
    close(fd);
    close(good);
}

static void
test_an_unknown_map_has_nothing(void **state)
{
    (void)state;
    add_rule(ERROR_AT("noop"));
    enter(1);
    int fd = dial();
    say(fd, "9:other NOO,", 12);
    assert_string_equal(hear(fd), PASS);
    word_of(ask(fd, "NOOP"));
    close(fd);
}

static const char *
ask_keywords(int fd, const char *addr)
{
    char text[128];
    int n = snprintf(text, sizeof text, "%zu:ehlo %s,", strlen(addr) + 5, addr);
    say(fd, text, (size_t)n);
    return hear(fd);
}

static void
test_keywords_are_hidden_from_that_client_alone(void **state)
{
    static const char *const rules[] = {
        "{\"client\":\"127.0.0.2\",\"fault\":{\"kind\":\"hide\",\"keywords\":["
        "\"SIZE\",\"STARTTLS\"]}}",
        "{\"client\":\"2001:db8::/32\",\"fault\":{\"kind\":\"hide\","
        "\"keywords\":[\"DSN\"]}}"};
    (void)state;
    add_rules(rules, 2);
    int fd = dial();
    assert_non_null(cm_hook_why_not_hide(filter.hook));
    assert_string_equal(ask_keywords(fd, "127.0.0.1"), PASS);
    assert_null(cm_hook_why_not_hide(filter.hook));
    assert_non_null(cm_hook_why_not(filter.hook));
    assert_int_equal(mock_store.nincidents, 0);
    assert_string_equal(ask_keywords(fd, "127.0.0.2"), "16:OK STARTTLS,");
    assert_string_equal(hear(fd), "SIZE,");
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(wait_incident(0)->kind, CM_FAULT_HIDE);
    assert_string_equal(wait_incident(0)->client, "127.0.0.2");
    assert_memory_equal(wait_incident(0)->detail, "STARTTLS,SIZE, smtpd[", 21);
    assert_string_equal(ask_keywords(fd, "2001:db8::1"), "6:OK DSN,");
    static const char long_one[] = "12345678901234567890123456789012345678901"
                                   "234567890123456789012345678901234567890";
    static const char *const others[] = {"::1", "", "unknown", "127.0.0.2.",
                                         long_one};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_string_equal(ask_keywords(fd, others[i]), PASS);
    close(fd);
}

/* Both are at stage helo, and asked one by one. */
static void
test_keywords_and_greeting_are_two_questions(void **state)
{
    static const char *const rules[] = {
        "{\"fault\":{\"kind\":\"hide\",\"keywords\":[\"SIZE\"]}}",
        ERROR_AT("helo")};
    (void)state;
    add_rules(rules, 2);
    enter(1);
    int fd = dial();
    assert_string_equal(ask_keywords(fd, "127.0.0.1"), "7:OK SIZE,");
    assert_int_equal(wait_incident(0)->kind, CM_FAULT_HIDE);
    word_of(ask(fd, "EHLO a"));
    assert_int_equal(mock_store.nincidents, 1);
    close(fd);
}

static void
test_quiet_releases_what_is_held_and_goes_on_answering(void **state)
{
    static const char *const rules[] = {LATE_AT("noop", "60000"),
                                        ERROR_AT("auth")};
    (void)state;
    add_rules(rules, 2);
    enter(1);
    int fd = dial();
    send_command(fd, "NOOP");
    for (int i = 0; i < 400 && cm_hook_held(filter.hook) == 0; i++)
        usleep(5000);
    cm_hook_quiet(filter.hook);
    assert_string_equal(hear(fd), PASS);
    assert_non_null(
        strstr(wait_incident(0)->detail, ": cut short: the filter stops"));
    assert_string_equal(ask(fd, "AUTH PLAIN"), PASS);
    assert_int_equal(mock_store.nincidents, 1);
    close(fd);
}

static void
test_the_end_with_commands_held_and_judged(void **state)
{
    static const char *const rules[] = {
        LATE_AT("noop", "60000"),
        "{\"stage\":\"auth\",\"maxHits\":5,\"fault\":{\"kind\":\"error\"}}"};
    (void)state;
    add_rules(rules, 2);
    enter(1);
    mock_store.state_us = 50000;
    int held = dial(), judged = dial();
    send_command(held, "NOOP");
    send_command(judged, "AUTH PLAIN");
    usleep(20000);
    cm_hook_remove(filter.hook);
    cm_hook_free(&filter.hook);
    assert_null(filter.hook);
    close(held);
    close(judged);
}

static void
test_why_not_tells_whether_anybody_asks(void **state)
{
    (void)state;
    assert_non_null(cm_hook_why_not(NULL));
    assert_non_null(cm_hook_why_not(filter.hook));
    assert_int_equal(cm_hook_held(NULL), 0);
    int fd = dial();
    assert_string_equal(ask(fd, "NOOP"), PASS);
    assert_null(cm_hook_why_not(filter.hook));
    close(fd);
}

static void
test_the_socket_is_careful_with_its_name(void **state)
{
    struct cm_server_opts opts = {
        .path = path, .mode = 0640, .user = "", .group = "", .clerks = 1};
    struct cm_hook *second = NULL;
    struct cm_err err;
    struct stat st;
    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(cm_hook_open(&second, &opts, &err), CM_ECONFLICT);
    assert_null(second);
    int fd = dial(); /* the first is still there */
    assert_string_equal(ask(fd, "NOOP"), PASS);
    close(fd);
    opts.path = "no/path";
    assert_int_equal(cm_hook_open(&second, &opts, &err), CM_EINVAL);
    opts.path = "/nowhere/at/all";
    assert_int_equal(cm_hook_open(&second, &opts, &err), CM_EIO);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_rules_every_command_passes),
        cmocka_unit_test(test_error_gives_a_word_that_the_session_can_redeem),
        cmocka_unit_test(
            test_error_without_a_session_passes_and_is_unavailable),
        cmocka_unit_test(test_a_word_that_is_not_fetched_is_unavailable),
        cmocka_unit_test(
            test_5xx_is_unavailable_where_the_mail_server_has_its_own),
        cmocka_unit_test(test_not_armed_or_stale_nothing_happens),
        cmocka_unit_test(test_shadow_is_recorded_and_passes),
        cmocka_unit_test(test_latency_holds_that_command_alone),
        cmocka_unit_test(test_a_caller_that_leaves_while_held_is_forgotten),
        cmocka_unit_test(test_questions_asked_ahead_are_answered_in_order),
        cmocka_unit_test(test_a_decision_that_comes_in_time_counts),
        cmocka_unit_test(test_a_decision_that_is_late_lets_the_command_pass),
        cmocka_unit_test(test_a_queue_of_late_decisions_is_given_up),
        cmocka_unit_test(test_a_caller_may_leave_while_its_question_is_judged),
        cmocka_unit_test(test_long_questions_are_answered_and_passed_over),
        cmocka_unit_test(test_a_question_in_single_bytes),
        cmocka_unit_test(test_who_speaks_something_else_is_left),
        cmocka_unit_test(test_keywords_are_hidden_from_that_client_alone),
        cmocka_unit_test(test_keywords_and_greeting_are_two_questions),
        cmocka_unit_test(test_an_unknown_map_has_nothing),
        cmocka_unit_test(
            test_quiet_releases_what_is_held_and_goes_on_answering),
        cmocka_unit_test(test_the_end_with_commands_held_and_judged),
        cmocka_unit_test(test_why_not_tells_whether_anybody_asks),
        cmocka_unit_test(test_the_socket_is_careful_with_its_name),
    };
    struct CMUnitTest each[sizeof tests / sizeof tests[0]];
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        each[i] = tests[i];
        each[i].setup_func = set_up;
        each[i].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(each, NULL, NULL);
}
