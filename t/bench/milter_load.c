/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A load on a milter without an MTA: N sessions at once speak the milter
 * protocol as Postfix does and check every reply. One thread a session: with a
 * milter on the same machine the sessions spend their time waiting, and a
 * session written as a sequence is easy to trust.
 *
 * Prints one line of key=value pairs: messages, seconds, rate (messages a
 * second), p50_us, p99_us and max_us (from MAIL to the reply to the end of
 * message), cpu_us (CPU of the milter per message, all its threads, -1 without
 * -p) and what was negotiated. Ends with 1 on the first reply that is not as
 * expected.
 */
#include "t/bench/mta.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define EXIT_USAGE    64
#define SESSIONS_MAX  16384
#define MESSAGES_MAX  10000000L
#define BODY_BYTES    1024
#define TIMEOUT_S     60
#define ADDRESS_BYTES 320

static const char usage[] =
    "usage: milter_load -s unix:/path|inet:port@ip [options]\n"
    "  -n SESSIONS    at once (8)\n"
    "  -m MESSAGES    each (1000)\n"
    "  -k MESSAGES    on one connection (100)\n"
    "  -r RECIPIENTS  a message (1)\n"
    "  -t PATTERN     of recipients (user%d@example.com)\n"
    "  -u COUNT       of different recipients (100000)\n"
    "  -f SENDER      (sender@example.net)\n"
    "  -p PID         of the milter, for its CPU time\n"
    "  -x STAGE=WANT  what the milter must say at connect, helo, mail, rcpt,\n"
    "                 data or eom instead of \"c\": another code of the\n"
    "                 protocol, or how a reply's text must begin (\"451 "
    "4.7.1\")\n"
    "  -d COUNT       recipients that the milter must delete a message (0)\n"
    "  -w MS          least time that a message must take (0)\n";

struct load {
    const char *address;
    int sessions;
    long messages; /* a session */
    long per_connection;
    int recipients; /* a message */
    const char *pattern;
    long users;
    const char *sender;
    pid_t pid;
    const char *want[MTA_STAGES_N]; /* NULL: continue */
    unsigned deleted;               /* a message */
    long least_us;
};

struct session {
    const struct load *load;
    pthread_t thread;
    int number;
    long *latency_us; /* of each message */
    uint32_t actions, steps;
    unsigned progress;
};

static atomic_bool stop; /* one session failed: all end */

/* --- time --- */

static long long
now_us(clockid_t clock)
{
    struct timespec ts = {0};
    clock_gettime(clock, &ts);
    return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

/* CPU time of the milter so far, all threads; -1 when not asked for. */
static long long
milter_cpu_us(pid_t pid)
{
    clockid_t clock;
    if (pid <= 0)
        return -1;
    if (clock_getcpuclockid(pid, &clock) != 0) {
        fprintf(stderr, "milter_load: no process %d\n", (int)pid);
        exit(EXIT_FAILURE);
    }
    return now_us(clock);
}

/* --- one message --- */

static bool
wrong(struct mta *m, enum mta_stage stage, const char *want,
      const struct mta_reply *got)
{
    snprintf(m->why, sizeof m->why, "%s: '%c' \"%.120s\" instead of \"%s\"",
             mta_stage_name(stage), got->code, got->text, want);
    return false;
}

/* Tells a stage and compares the reply. *go_on_r: the milter let it pass. */
static bool
tell(const struct load *load, struct mta *m, enum mta_stage stage,
     const void *data, size_t len, bool *go_on_r)
{
    const char *want = load->want[stage];
    struct mta_reply reply;
    bool good;
    if (!mta_tell(m, stage, data, len, &reply))
        return false;
    *go_on_r = reply.code == 'c';
    if (!want)
        want = "c";
    if (want[0] >= '0' && want[0] <= '9')
        good =
            reply.code == 'y' && strncmp(reply.text, want, strlen(want)) == 0;
    else
        good = reply.code == want[0];
    if (!good)
        return wrong(m, stage, want, &reply);
    if (stage == MTA_EOM &&
        (reply.deleted != load->deleted || reply.changed > 0)) {
        snprintf(m->why, sizeof m->why,
                 "%u recipients deleted and %u other changes", reply.deleted,
                 reply.changed);
        return false;
    }
    return true;
}

/* The pattern with the number for its "%d". */
static void
fill_pattern(char *out, size_t size, const char *pattern, long number)
{
    const char *mark = strstr(pattern, "%d");
    if (mark)
        snprintf(out, size, "%.*s%ld%s", (int)(mark - pattern), pattern, number,
                 mark + 2);
    else
        snprintf(out, size, "%s", pattern);
}

static bool
tell_address(const struct load *load, struct mta *m, enum mta_stage stage,
             const char *address, bool *go_on_r)
{
    char text[ADDRESS_BYTES + 3];
    int len = snprintf(text, sizeof text, "<%s>", address);
    return tell(load, m, stage, text, (size_t)len + 1, go_on_r);
}

/* Headers, their end, and a body: only for milters that want them. */
static bool
tell_content(const struct load *load, struct mta *m)
{
    static const char *const headers[] = {
        "From\0sender@example.net", "To\0user@example.com",
        "Subject\0benchmark of a milter", "Message-ID\0<1@example.net>"};
    static char body[BODY_BYTES];
    bool go_on;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        size_t name = strlen(headers[i]) + 1;
        size_t value = strlen(headers[i] + name) + 1;
        if (!tell(load, m, MTA_HEADER, headers[i], name + value, &go_on))
            return false;
    }
    return tell(load, m, MTA_EOH, NULL, 0, &go_on) &&
           tell(load, m, MTA_BODY, body, sizeof body, &go_on);
}

/* One message, ended by the reply to its end or by an abort when the milter
 * has refused the sender, all recipients, or DATA. */
static bool
send_message(const struct session *s, struct mta *m, long number)
{
    const struct load *load = s->load;
    bool go_on;
    int accepted = 0;
    m->qid[0] = '\0';
    snprintf(m->sender, sizeof m->sender, "%s", load->sender);
    if (!tell_address(load, m, MTA_MAIL, load->sender, &go_on))
        return false;
    for (int i = 0; i < load->recipients && go_on; i++) {
        bool taken;
        long user =
            (number * load->sessions + s->number) * load->recipients + i;
        fill_pattern(m->recipient, sizeof m->recipient, load->pattern,
                     user % load->users);
        if (!tell_address(load, m, MTA_RCPT, m->recipient, &taken))
            return false;
        accepted += taken;
        if (accepted > 0) /* Postfix has a queue file from now on */
            snprintf(m->qid, sizeof m->qid, "%03X%07lX",
                     (unsigned)s->number & 0xFFF, number & 0xFFFFFFFL);
    }
    if (accepted == 0)
        return mta_abort(m);
    if (!tell(load, m, MTA_DATA, NULL, 0, &go_on))
        return false;
    if (!go_on)
        return mta_abort(m);
    return tell_content(load, m) && tell(load, m, MTA_EOM, NULL, 0, &go_on);
}

/* --- one session --- */

static bool
greet(const struct load *load, struct mta *m)
{
    static const char host[] = "client.example.net";
    static const char address[] = "192.0.2.1";
    static const char helo[] = "client.example.net";
    char packet[64];
    size_t len = sizeof host;
    uint16_t port = htons(49152);
    bool go_on;
    memcpy(packet, host, sizeof host);
    packet[len++] = '4';
    memcpy(packet + len, &port, sizeof port);
    len += sizeof port;
    memcpy(packet + len, address, sizeof address);
    len += sizeof address;
    return tell(load, m, MTA_CONNECT, packet, len, &go_on) &&
           tell(load, m, MTA_HELO, helo, sizeof helo, &go_on);
}

/* Messages first..end-1 on one connection. */
static bool
run_connection(struct session *s, long first, long end)
{
    const struct load *load = s->load;
    struct mta m;
    bool good = mta_open(&m, load->address, TIMEOUT_S) && greet(load, &m);
    for (long i = first; i < end && good && !stop; i++) {
        long long start = now_us(CLOCK_MONOTONIC);
        good = send_message(s, &m, i);
        s->latency_us[i] = (long)(now_us(CLOCK_MONOTONIC) - start);
        if (good && s->latency_us[i] < load->least_us) {
            snprintf(m.why, sizeof m.why, "took %ld us", s->latency_us[i]);
            good = false;
        }
    }
    s->actions = m.actions;
    s->steps = m.steps;
    s->progress += m.progress;
    if (!good && !atomic_exchange(&stop, true))
        fprintf(stderr, "milter_load: session %d: %s\n", s->number, m.why);
    mta_close(&m);
    return good;
}

static void *
run_session(void *arg)
{
    struct session *s = arg;
    long all = s->load->messages;
    for (long i = 0; i < all && !stop; i += s->load->per_connection) {
        long end = i + s->load->per_connection;
        if (!run_connection(s, i, end < all ? end : all))
            break;
    }
    return NULL;
}

/* --- all of them --- */

static int
compare_long(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void
report(const struct load *load, const struct session *sessions,
       long *latency_us, long long wall_us, long long cpu_us)
{
    long n = load->sessions * load->messages;
    unsigned progress = 0;
    for (int i = 0; i < load->sessions; i++)
        progress += sessions[i].progress;
    qsort(latency_us, (size_t)n, sizeof *latency_us, compare_long);
    printf("messages=%ld seconds=%.3f rate=%.1f p50_us=%ld p99_us=%ld "
           "max_us=%ld cpu_us=%.1f progress=%u actions=0x%x steps=0x%x\n",
           n, (double)wall_us / 1e6, (double)n * 1e6 / (double)wall_us,
           latency_us[n / 2], latency_us[n * 99 / 100], latency_us[n - 1],
           cpu_us < 0 ? -1.0 : (double)cpu_us / (double)n, progress,
           sessions[0].actions, sessions[0].steps);
}

static int
run(const struct load *load)
{
    struct session *sessions = calloc((size_t)load->sessions, sizeof *sessions);
    long *latency_us =
        calloc((size_t)(load->sessions * load->messages), sizeof *latency_us);
    long long start, cpu;
    int started = 0;
    if (!sessions || !latency_us)
        abort();
    cpu = milter_cpu_us(load->pid);
    start = now_us(CLOCK_MONOTONIC);
    for (; started < load->sessions && !stop; started++) {
        struct session *s = &sessions[started];
        s->load = load;
        s->number = started;
        s->latency_us = latency_us + started * load->messages;
        if (pthread_create(&s->thread, NULL, run_session, s) != 0) {
            perror("milter_load: pthread_create");
            stop = true;
            break;
        }
    }
    for (int i = 0; i < started; i++)
        pthread_join(sessions[i].thread, NULL);
    if (!stop)
        report(load, sessions, latency_us, now_us(CLOCK_MONOTONIC) - start,
               cpu < 0 ? -1 : milter_cpu_us(load->pid) - cpu);
    free(sessions);
    free(latency_us);
    return stop ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- options --- */

static long
number(const char *text, long min, long max)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < min || n > max) {
        fprintf(stderr, "milter_load: %s: not from %ld to %ld\n", text, min,
                max);
        exit(EXIT_USAGE);
    }
    return n;
}

/* "rcpt=451" */
static bool
take_want(struct load *load, const char *text)
{
    size_t len = strcspn(text, "=");
    if (!text[len] || !text[len + 1])
        return false;
    for (int i = 0; i < MTA_STAGES_N; i++) {
        const char *name = mta_stage_name((enum mta_stage)i);
        if (strlen(name) == len && strncmp(name, text, len) == 0) {
            load->want[i] = text + len + 1;
            return true;
        }
    }
    return false;
}

static bool
take_option(struct load *load, int option)
{
    switch (option) {
    case 's':
        load->address = optarg;
        return true;
    case 'n':
        load->sessions = (int)number(optarg, 1, SESSIONS_MAX);
        return true;
    case 'm':
        load->messages = number(optarg, 1, MESSAGES_MAX);
        return true;
    case 'k':
        load->per_connection = number(optarg, 1, MESSAGES_MAX);
        return true;
    case 'r':
        load->recipients = (int)number(optarg, 1, 1000);
        return true;
    case 't':
        load->pattern = optarg;
        return true;
    case 'u':
        load->users = number(optarg, 1, MESSAGES_MAX);
        return true;
    case 'f':
        load->sender = optarg;
        return true;
    case 'p':
        load->pid = (pid_t)number(optarg, 1, 0x7FFFFFFF);
        return true;
    case 'x':
        return take_want(load, optarg);
    case 'd':
        load->deleted = (unsigned)number(optarg, 0, 1000);
        return true;
    case 'w':
        load->least_us = number(optarg, 0, 600000) * 1000;
        return true;
    default:
        return false;
    }
}

int
main(int argc, char **argv)
{
    struct load load = {.sessions = 8,
                        .messages = 1000,
                        .per_connection = 100,
                        .recipients = 1,
                        .pattern = "user%d@example.com",
                        .users = 100000,
                        .sender = "sender@example.net"};
    bool good = true;
    int option;
    while ((option = getopt(argc, argv, "s:n:m:k:r:t:u:f:p:x:d:w:")) != -1)
        good = take_option(&load, option) && good;
    if (!good || !load.address || optind != argc) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return run(&load);
}
