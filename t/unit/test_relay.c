/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The saslauthd relay between a fake saslauthd and us, who ask as the library
 * asks. This process is the mail server too.
 */
#include "milter/filter/relay.h"
#include "milter/clock.h"
#include "milter/filter/attendance.h"
#include "milter/filter/filter.h"
#include "milter/filter/saslauthd.h"
#include "milter/filter/server.h"
#include "milter/model/rule_json.h"
#include "t/unit/fake_saslauthd.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])
#define DEADLINE_MS   100
#define NO            "NO chaosmilter"
#define CLOSED        ((size_t)-1)

static char dir[32], path[64], saslauthd_path[64];
static struct fake_saslauthd fake;
static struct cm_filter filter;
static struct cm_server_opts opts = {.path = path,
                                     .mode = 0640,
                                     .user = "",
                                     .group = "",
                                     .callers_max = 8,
                                     .clerks = 2,
                                     .deadline_ms = DEADLINE_MS};

static int
set_up(void **state)
{
    struct cm_err err;
    (void)state;
    memset(&filter, 0, sizeof filter);
    mock_store_reset();
    filter.armed = true;
    snprintf(dir, sizeof dir, "/tmp/test_relay.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/relay", dir);
    snprintf(saslauthd_path, sizeof saslauthd_path, "%s/mux", dir);
    if (fake_saslauthd_start(&fake, saslauthd_path) != 0 ||
        cm_attendance_new(&filter.attendance, &err) != CM_OK ||
        cm_relay_open(&filter.relay, &opts, saslauthd_path, &err) != CM_OK ||
        cm_relay_start(filter.relay, &filter, &err) != CM_OK)
        return -1;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    cm_relay_free(&filter.relay);
    cm_attendance_free(&filter.attendance);
    fake_saslauthd_stop(&fake);
    mock_store_reset();
    unlink(path);
    return rmdir(dir);
}

/* In place of those before. */
static void
set_rules(const char *const *texts, size_t n)
{
    struct cm_rule *rules = calloc(n, sizeof *rules);
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        struct cm_problems problems;
        struct cm_err err;
        json_t *doc = NULL;
        char id[24];
        cm_problems_init(&problems);
        snprintf(id, sizeof id, "r%zu", i + 1);
        assert_int_equal(cm_json_parse(&doc, texts[i], strlen(texts[i]), &err),
                         CM_OK);
        if (cm_rule_compile(&rules[i], id, doc, 0, &problems) != CM_OK)
            fail_msg("%s: %s", texts[i], cm_problems_first(&problems));
        json_decref(doc);
    }
    struct cm_ruleset *set = NULL;
    assert_int_equal(cm_ruleset_new(&set, rules, n), CM_OK);
    mock_store_rules(set);
}

static void
set_rule(const char *text)
{
    set_rules(&text, 1);
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
    for (ssize_t n; len > 0; text += n, len -= (size_t)n) {
        n = send(fd, text, len, MSG_NOSIGNAL);
        assert_true(n > 0);
    }
}

/* What was asked last, and what came back. */
static char question[4 * 65537], answer[65538];
static size_t question_len, answer_len;

static void
send_login(int fd, const char *login, const char *password)
{
    question_len =
        fake_saslauthd_ask(question, login, password, strlen(password), "");
    say(fd, question, question_len);
}

/* All until the end; the answer's length, CLOSED without one. */
static size_t
hear(int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    ssize_t n;
    answer_len = 0;
    do {
        if (poll(&waiting, 1, 5000) != 1)
            fail_msg("no answer");
        n = recv(fd, answer + answer_len, sizeof answer - 1 - answer_len, 0);
        answer_len += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    close(fd);
    answer[answer_len] = '\0';
    if (answer_len == 0)
        return CLOSED;
    assert_int_equal(answer_len - 2,
                     (unsigned char)answer[0] << 8 | (unsigned char)answer[1]);
    return answer_len - 2;
}

static size_t
ask(const char *login, const char *password)
{
    int fd = dial();
    send_login(fd, login, password);
    return hear(fd);
}

/* The real one was asked this very question, and answered so. */
static void
assert_asked(const char *verdict)
{
    assert_int_equal(answer_len, 2 + 3 + question_len);
    assert_memory_equal(answer + 2, verdict, 2);
    assert_memory_equal(answer + 5, question, question_len);
}

static void
assert_passes(const char *login)
{
    ask(login, "secret");
    assert_asked("OK");
}

static void
assert_refused(const char *login)
{
    assert_int_equal(ask(login, "secret"), strlen(NO));
    assert_string_equal(answer + 2, NO);
}

static const struct cm_incident *
wait_incident(size_t i)
{
    for (int tries = 0; atomic_load(&mock_store.nincidents) <= i; tries++) {
        if (tries == 1000)
            fail_msg("no incident %zu", i);
        usleep(5000);
    }
    return &mock_store.incidents[i];
}

static void
wait_held(size_t n)
{
    for (int tries = 0; cm_relay_held(filter.relay) != n; tries++) {
        if (tries == 1000)
            fail_msg("held: %zu", cm_relay_held(filter.relay));
        usleep(5000);
    }
}

static void
wait_open(size_t n)
{
    for (int tries = 0; cm_relay_open_count(filter.relay) != n; tries++) {
        if (tries == 1000)
            fail_msg("open: %zu", cm_relay_open_count(filter.relay));
        usleep(5000);
    }
}

static long long
count(enum cm_filter_count what)
{
    return atomic_load(&filter.counts[what]);
}

#define NO_RULE                                                                \
    "{\"stage\":\"auth\",\"fault\":{\"kind\":\"error\",\"code\":535}}"

/* --- nothing of ours --- */

static void
test_without_rules_all_passes_byte_for_byte(void **state)
{
    (void)state;
    assert_non_null(cm_relay_why_not(NULL));
    assert_non_null(cm_relay_why_not(filter.relay));
    assert_passes("tester");
    assert_null(cm_relay_why_not(filter.relay));
    ask("tester", "wrong");
    assert_asked("NO");
    ask("", "");
    assert_asked("NO");
    int fd = dial();
    question_len = fake_saslauthd_ask(question, "a", "s\0\n\xff", 4, "r");
    say(fd, question, question_len);
    hear(fd);
    assert_asked("NO");
    assert_int_equal(count(CM_FILTER_RELAY_QUESTIONS), 4);
    assert_int_equal(mock_store.nincidents, 0);
}

static void
test_a_question_and_an_answer_in_single_bytes(void **state)
{
    (void)state;
    int fd = dial();
    question_len = fake_saslauthd_ask(question, "drip", "secret", 6, "r");
    for (size_t i = 0; i < question_len; i++) {
        say(fd, question + i, 1);
        usleep(100);
    }
    shutdown(fd, SHUT_WR); /* it may still listen */
    hear(fd);
    assert_asked("OK");
}

static void
test_the_longest_answer(void **state)
{
    (void)state;
    assert_int_equal(ask("big", "secret"), 65535);
    assert_memory_equal(answer + 5, question, question_len);
}

/* Beyond what any library asks, nobody judges, and it still passes. */
static void
test_a_question_that_is_too_long_passes_unjudged(void **state)
{
    static char text[40000];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    set_rule(NO_RULE);
    int fd = dial();
    question_len = fake_saslauthd_ask(question, "a", text, 40000 - 1, "r");
    say(fd, question, question_len);
    hear(fd);
    assert_asked("NO");
    assert_int_equal(mock_store.nincidents, 0);
    /* A saslauthd that does not read it to the end is heard all the same. */
    fd = dial();
    question_len = fake_saslauthd_ask(question, "deaf", text, 40000 - 1, "r");
    say(fd, question, question_len);
    assert_int_equal(hear(fd), 2);
    assert_string_equal(answer + 2, "NO");
}

static void
test_who_asks_no_whole_question_gets_no_answer(void **state)
{
    (void)state;
    set_rule(NO_RULE);
    int fd = dial();
    say(fd, "\0\6test", 6);
    shutdown(fd, SHUT_WR);
    assert_int_equal(hear(fd), CLOSED);
    assert_int_equal(count(CM_FILTER_RELAY_QUESTIONS), 0);
    assert_int_equal(mock_store.nincidents, 0);
}

/* --- saslauthd is away --- */

static void
test_saslauthd_without_an_answer_closes(void **state)
{
    (void)state;
    assert_int_equal(ask("mute", "secret"), CLOSED);
    fake_saslauthd_stop(&fake);
    assert_int_equal(ask("tester", "secret"), CLOSED);
    assert_int_equal(count(CM_FILTER_RELAY_UNREACHED), 1);
    /* A fault that needs no saslauthd is still what was asked. */
    set_rule(NO_RULE);
    assert_refused("tester");
}

static void
test_saslauthd_that_dies_while_asked_closes(void **state)
{
    (void)state;
    int fd = dial();
    send_login(fd, "stuck", "secret");
    usleep(50000);
    fake_saslauthd_stop(&fake);
    assert_int_equal(hear(fd), CLOSED);
}

/* Its queue is full while it is stopped; who waits is served in the end. */
static void
test_saslauthd_that_is_busy_is_waited_for(void **state)
{
    int fds[6];
    (void)state;
    kill(fake.pid, SIGSTOP);
    for (size_t i = 0; i < LENGTH(fds); i++) {
        fds[i] = dial();
        send_login(fds[i], "tester", "secret");
    }
    usleep(100000);
    kill(fake.pid, SIGCONT);
    for (size_t i = 0; i < LENGTH(fds); i++) {
        hear(fds[i]);
        assert_asked("OK");
    }
    assert_int_equal(count(CM_FILTER_RELAY_UNREACHED), 0);
}

static void
test_a_relay_that_leads_to_itself_is_noticed(void **state)
{
    struct cm_err err;
    char link[80];
    (void)state;
    snprintf(link, sizeof link, "%s/link", dir);
    cm_relay_free(&filter.relay);
    unlink(path);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(cm_relay_open(&filter.relay, &opts, link, &err), CM_OK);
    assert_int_equal(cm_relay_start(filter.relay, &filter, &err), CM_OK);
    assert_int_equal(ask("tester", "secret"), CLOSED);
    assert_int_equal(count(CM_FILTER_RELAY_UNREACHED), 1);
    unlink(link);
}

/* --- faults --- */

static void
test_error_535_refuses_without_asking(void **state)
{
    (void)state;
    set_rule("{\"stage\":\"auth\",\"fault\":{\"kind\":\"error\",\"code\":535,"
             "\"enhanced\":\"5.7.8\",\"text\":\"of the rule\"}}");
    fake_saslauthd_stop(&fake);
    assert_refused("tester");
    const struct cm_incident *in = wait_incident(0);
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(in->stage, CM_STAGE_AUTH);
    assert_string_equal(in->reply, CM_MTA_SENDMAIL_NO);
    assert_string_equal(in->client, "unknown");
    char detail[64];
    snprintf(detail, sizeof detail, "sendmail[%ld]", (long)getpid());
    assert_string_equal(in->detail, detail);
    assert_int_equal(count(CM_FILTER_RELAY_UNREACHED), 0);
}

static void
test_the_milter_session_of_the_process_tells_the_client(void **state)
{
    struct cm_guest guest = {.process = getpid(), .session = 3};
    (void)state;
    guest.client.family = AF_INET;
    memcpy(guest.client.addr, "\x7f\0\0\2", 4);
    assert_int_equal(cm_attendance_enter(filter.attendance, &guest), CM_OK);
    set_rule(NO_RULE);
    assert_refused("tester");
    assert_string_equal(wait_incident(0)->client, "127.0.0.2");
    /* That a relay asks of it does not mean that a hook sees its commands. */
    assert_false(cm_attendance_is_met(filter.attendance, getpid(), 3));
}

static void
test_what_sendmail_cannot_say_is_unavailable(void **state)
{
    static const char *const faults[] = {
        "{\"kind\":\"error\",\"code\":451}",
        "{\"kind\":\"error\",\"code\":534}",
        "{\"kind\":\"error\",\"code\":421}",
        "{\"kind\":\"error\",\"types\":[\"permanent\"]}",
        "{\"kind\":\"error\",\"types\":[\"temporary\"]}"};
    (void)state;
    for (size_t i = 0; i < LENGTH(faults); i++) {
        char rule[128];
        snprintf(rule, sizeof rule, "{\"stage\":\"auth\",\"fault\":%s}",
                 faults[i]);
        set_rule(rule);
        assert_passes("tester");
        const struct cm_incident *in = wait_incident(i);
        assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
        assert_string_equal(in->detail,
                            "Sendmail answers AUTH with 535 5.7.0 alone");
        assert_string_equal(in->reply, "");
    }
}

static void
test_by_user_with_and_without_realm(void **state)
{
    static const struct {
        const char *pattern, *login, *realm;
        bool meant;
    } table[] = {
        {"tester", "tester", "", true},
        {"tester", "tester", "r.e", true},
        {"tester@r.e", "tester", "", false},
        {"tester@r.e", "tester", "r.e", true},
        {"tester@r.e", "tester", "x", false},
        {"test*", "tester", "", true},
        {"*@r.e", "tester", "r.e", true},
        {"*@r.e", "tester", "", false},
        {"Tester", "tester", "", false},
        {"*", "", "", false},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        char rule[160];
        snprintf(rule, sizeof rule,
                 "{\"stage\":\"auth\",\"user\":\"%s\",\"fault\":{\"kind\":"
                 "\"error\",\"code\":535}}",
                 table[i].pattern);
        set_rule(rule);
        int fd = dial();
        question_len = fake_saslauthd_ask(question, table[i].login, "secret", 6,
                                          table[i].realm);
        say(fd, question, question_len);
        hear(fd);
        bool refused = strcmp(answer + 2, NO) == 0;
        if (refused != table[i].meant)
            fail_msg("%s: %s@%s", table[i].pattern, table[i].login,
                     table[i].realm);
    }
}

static void
test_by_mechanism_nobody_is_meant(void **state)
{
    (void)state;
    set_rule("{\"stage\":\"auth\",\"mechanism\":\"PLAIN\",\"fault\":{\"kind\":"
             "\"error\",\"code\":535}}");
    assert_passes("tester");
    assert_int_equal(mock_store.nincidents, 0);
}

static void
test_not_armed_stale_or_shadow_nothing_happens(void **state)
{
    (void)state;
    set_rule(NO_RULE);
    filter.armed = false;
    assert_passes("tester");
    filter.armed = true;
    mock_store.stale = true;
    assert_passes("tester");
    mock_store.stale = false;
    assert_int_equal(mock_store.nincidents, 0);
    set_rule("{\"stage\":\"auth\",\"mode\":\"shadow\",\"fault\":{\"kind\":"
             "\"error\",\"code\":535}}");
    assert_passes("tester");
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_SHADOW);
}

static void
test_halted_nothing_happens(void **state)
{
    (void)state;
    set_rule(NO_RULE);
    mock_store.halted = true;
    assert_passes("tester");
    assert_int_equal(mock_store.nincidents, 0);
    mock_store.halted = false;
    assert_refused("tester");
}

#define LATE(ms)                                                               \
    "{\"stage\":\"auth\",\"user\":\"tester\",\"fault\":{\"kind\":\"latency\"," \
    "\"ms\":" ms "}}"

static void
test_latency_holds_that_login_alone(void **state)
{
    (void)state;
    set_rule(LATE("300"));
    int64_t began_ms = cm_clock_mono_ms();
    int fd = dial();
    send_login(fd, "tester", "secret");
    wait_held(1);
    for (int i = 0; i < 10; i++)
        assert_passes("other");
    question_len = fake_saslauthd_ask(question, "tester", "secret", 6, "");
    hear(fd);
    assert_true(cm_clock_mono_ms() - began_ms >= 300);
    assert_asked("OK");
    const struct cm_incident *in = wait_incident(0);
    assert_int_equal(in->outcome, CM_INCIDENT_APPLIED);
    assert_int_equal(in->delay_asked_ms, 300);
    assert_true(in->delay_measured_ms >= 300 && in->delay_measured_ms < 5000);
    assert_int_equal(cm_relay_held(filter.relay), 0);
}

static void
test_a_caller_that_leaves_while_held_is_forgotten(void **state)
{
    (void)state;
    set_rule(LATE("60000"));
    int fd = dial();
    send_login(fd, "tester", "secret");
    wait_held(1);
    close(fd);
    const struct cm_incident *in = wait_incident(0);
    assert_non_null(
        strstr(in->detail, "]: the session ended before the reply was due"));
    assert_true(in->delay_measured_ms < 5000);
    wait_held(0);
}

static void
test_a_halt_lets_go_what_is_held(void **state)
{
    (void)state;
    set_rule(LATE("60000"));
    int fd = dial();
    send_login(fd, "tester", "secret");
    wait_held(1);
    mock_store.halted = true;
    cm_relay_release(filter.relay);
    hear(fd);
    assert_asked("OK");
    assert_non_null(
        strstr(wait_incident(0)->detail, "]: cut short: chaos was halted"));
    assert_int_equal(mock_store.nincidents, 1);
}

#define HITS                                                                   \
    "{\"stage\":\"auth\",\"maxHits\":5,\"fault\":{\"kind\":\"error\","         \
    "\"code\":535}}"

static void
test_a_decision_that_comes_in_time_counts(void **state)
{
    (void)state;
    set_rule(HITS);
    mock_store.state_us = 20000;
    assert_refused("tester");
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_APPLIED);
    mock_store.state_fails = true;
    assert_passes("tester");
    assert_int_equal(count(CM_FILTER_RELAY_LATE), 0);
    assert_int_equal(count(CM_FILTER_STATE_FAILED), 1);
}

static void
test_a_decision_that_a_halt_overtakes_does_nothing(void **state)
{
    (void)state;
    set_rule(HITS);
    mock_store.halts_when_asked = true;
    assert_passes("tester");
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(wait_incident(0)->detail, "halted");
}

static void
test_a_decision_that_is_late_lets_the_login_pass(void **state)
{
    (void)state;
    set_rule(HITS);
    mock_store.state_us = 700000;
    int64_t began_ms = cm_clock_mono_ms();
    assert_passes("tester");
    int64_t took_ms = cm_clock_mono_ms() - began_ms;
    assert_true(took_ms >= DEADLINE_MS && took_ms < 650);
    assert_int_equal(count(CM_FILTER_RELAY_LATE), 1);
    const struct cm_incident *in = wait_incident(0);
    assert_int_equal(in->outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(in->detail, "decided too late");
}

static void
test_a_caller_may_leave_while_its_question_is_judged(void **state)
{
    (void)state;
    set_rule(HITS);
    mock_store.state_us = 50000;
    int fd = dial();
    send_login(fd, "tester", "secret");
    for (int tries = 0; mock_store.asked == 0; tries++) {
        assert_int_not_equal(tries, 1000);
        usleep(5000);
    }
    close(fd);
    assert_int_equal(wait_incident(0)->outcome, CM_INCIDENT_UNAVAILABLE);
}

static void
test_more_callers_than_there_may_be_wait_their_turn(void **state)
{
    int fds[12];
    (void)state;
    for (size_t i = 0; i < LENGTH(fds); i++) {
        fds[i] = dial();
        send_login(fds[i], "slow", "secret");
    }
    wait_open(opts.callers_max);
    usleep(50000);
    assert_int_equal(cm_relay_open_count(filter.relay), opts.callers_max);
    for (size_t i = 0; i < LENGTH(fds); i++) {
        hear(fds[i]);
        assert_asked("OK");
    }
    wait_open(0);
}

/* --- the end --- */

static void
test_retired_it_holds_nobody_and_leaves_a_way_to_saslauthd(void **state)
{
    struct cm_relay *next = NULL;
    struct cm_err err;
    char target[80] = "";
    struct stat st;
    (void)state;
    set_rule(LATE("60000"));
    int fd = dial(), silent = dial();
    send_login(fd, "tester", "secret");
    wait_held(1);
    cm_relay_retire(filter.relay);
    hear(fd);
    assert_asked("OK");
    assert_non_null(
        strstr(wait_incident(0)->detail, "]: cut short: the filter stops"));
    send_login(silent, "tester", "secret"); /* who came before */
    hear(silent);
    assert_asked("OK");
    assert_int_equal(mock_store.nincidents, 1);
    assert_true(readlink(path, target, sizeof target - 1) > 0);
    assert_string_equal(target, saslauthd_path);
    cm_relay_free(&filter.relay);
    assert_passes("tester"); /* by the link */
    assert_int_equal(cm_relay_open(&next, &opts, saslauthd_path, &err), CM_OK);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0640);
    cm_relay_free(&next);
}

static void
test_somebody_elses_link_is_left_alone(void **state)
{
    struct cm_relay *next = NULL;
    struct cm_err err;
    (void)state;
    cm_relay_free(&filter.relay);
    unlink(path);
    assert_int_equal(symlink("/somewhere/else", path), 0);
    assert_int_equal(cm_relay_open(&next, &opts, saslauthd_path, &err),
                     CM_ECONFLICT);
    assert_null(next);
}

static void
test_a_relay_that_cannot_be_opened_closes_nothing_of_others(void **state)
{
    struct cm_relay *next = NULL;
    struct cm_err err;
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    assert_int_equal(cm_relay_open(&next, &opts, "no/path", &err), CM_EINVAL);
    assert_null(next);
    assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
    if (fd != STDIN_FILENO)
        close(fd);
}

static void
test_the_end_with_logins_in_every_phase(void **state)
{
    static const char *const rules[] = {
        LATE("60000"),
        "{\"stage\":\"auth\",\"user\":\"other\",\"maxHits\":5,\"fault\":{"
        "\"kind\":\"error\",\"code\":535}}"};
    int fds[4];
    (void)state;
    set_rules(rules, LENGTH(rules));
    mock_store.state_us = 50000;
    for (size_t i = 0; i < LENGTH(fds); i++)
        fds[i] = dial();
    send_login(fds[0], "tester", "secret");
    wait_held(1);
    send_login(fds[1], "stuck", "secret");
    say(fds[2], "\0\6te", 4);
    send_login(fds[3], "other", "secret");
    usleep(20000);
    cm_relay_free(&filter.relay);
    assert_null(filter.relay);
    for (size_t i = 0; i < LENGTH(fds); i++)
        close(fds[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_rules_all_passes_byte_for_byte),
        cmocka_unit_test(test_a_question_and_an_answer_in_single_bytes),
        cmocka_unit_test(test_the_longest_answer),
        cmocka_unit_test(test_a_question_that_is_too_long_passes_unjudged),
        cmocka_unit_test(test_who_asks_no_whole_question_gets_no_answer),
        cmocka_unit_test(test_saslauthd_without_an_answer_closes),
        cmocka_unit_test(test_saslauthd_that_dies_while_asked_closes),
        cmocka_unit_test(test_saslauthd_that_is_busy_is_waited_for),
        cmocka_unit_test(test_a_relay_that_leads_to_itself_is_noticed),
        cmocka_unit_test(test_error_535_refuses_without_asking),
        cmocka_unit_test(
            test_the_milter_session_of_the_process_tells_the_client),
        cmocka_unit_test(test_what_sendmail_cannot_say_is_unavailable),
        cmocka_unit_test(test_by_user_with_and_without_realm),
        cmocka_unit_test(test_by_mechanism_nobody_is_meant),
        cmocka_unit_test(test_not_armed_stale_or_shadow_nothing_happens),
        cmocka_unit_test(test_halted_nothing_happens),
        cmocka_unit_test(test_latency_holds_that_login_alone),
        cmocka_unit_test(test_a_caller_that_leaves_while_held_is_forgotten),
        cmocka_unit_test(test_a_decision_that_comes_in_time_counts),
        cmocka_unit_test(test_a_halt_lets_go_what_is_held),
        cmocka_unit_test(test_a_decision_that_a_halt_overtakes_does_nothing),
        cmocka_unit_test(test_a_decision_that_is_late_lets_the_login_pass),
        cmocka_unit_test(test_a_caller_may_leave_while_its_question_is_judged),
        cmocka_unit_test(test_more_callers_than_there_may_be_wait_their_turn),
        cmocka_unit_test(
            test_retired_it_holds_nobody_and_leaves_a_way_to_saslauthd),
        cmocka_unit_test(test_somebody_elses_link_is_left_alone),
        cmocka_unit_test(
            test_a_relay_that_cannot_be_opened_closes_nothing_of_others),
        cmocka_unit_test(test_the_end_with_logins_in_every_phase),
    };
    struct CMUnitTest each[LENGTH(tests)];
    for (size_t i = 0; i < LENGTH(tests); i++) {
        each[i] = tests[i];
        each[i].setup_func = set_up;
        each[i].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(each, NULL, NULL);
}
