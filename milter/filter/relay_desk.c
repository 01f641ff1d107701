/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A caller asks one question, and its phases follow one another: asked, judged
 * (perhaps by a clerk), held (perhaps), handed to saslauthd, answered. Once it
 * has been handed over nothing is looked at any more.
 *
 * To close a connection without an answer is to refuse the login: Sendmail
 * knows no difference. So whatever goes wrong with us hands the question on,
 * and only what goes wrong with saslauthd closes.
 */
#include "milter/filter/relay_desk.h"
#include "milter/clock.h"
#include "milter/filter/attendance.h"
#include "milter/filter/filter.h"
#include "milter/filter/hearing.h"
#include "milter/filter/incident.h"
#include "milter/filter/owner.h"
#include "milter/filter/peer.h"
#include "milter/filter/question.h"
#include "milter/filter/saslauthd.h"
#include "milter/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DIAL_PAUSE_US 20000

static const char gone[] = "the session ended before the reply was due";

/* --- callers --- */

static void
hang_up(struct cm_relay_end *end)
{
    if (end->fd >= 0)
        close(end->fd);
    end->fd = -1;
}

static void
part(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    cm_late_end(&caller->late, desk->filter, gone);
    cm_hearing_call_off(&caller->hearing);
    hang_up(&caller->client);
    hang_up(&caller->saslauthd);
    cm_flow_close(&caller->question);
    cm_flow_close(&caller->answer);
    atomic_fetch_sub(&desk->open, 1);
    cm_server_part(desk->server, &caller->base);
}

static void
enter(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
      enum cm_relay_phase phase, int64_t timer_us)
{
    caller->phase = phase;
    cm_server_alarm(desk->server, &caller->base, timer_us);
}

static bool
begin(struct cm_relay_desk *desk, struct cm_relay_caller *caller, int fd)
{
    caller->client = (struct cm_relay_end){caller, fd};
    caller->saslauthd = (struct cm_relay_end){caller, -1};
    return cm_flow_open(&caller->question, CM_SASLAUTHD_QUESTION_MAX) ==
               CM_OK &&
           cm_flow_open(&caller->answer, CM_SASLAUTHD_ANSWER_MAX) == CM_OK &&
           cm_server_watch(desk->server, fd, EPOLLIN, &caller->client);
}

static struct cm_caller *
on_caller(void *arg, int fd)
{
    struct cm_relay_desk *desk = arg;
    struct cm_relay_caller *caller = calloc(1, sizeof *caller);
    if (caller && begin(desk, caller, fd)) {
        atomic_fetch_add(&desk->open, 1);
        enter(desk, caller, CM_RELAY_ASKING, CM_RELAY_QUESTION_US);
        return &caller->base;
    }
    cm_filter_count(desk->filter, CM_FILTER_NO_MEMORY);
    close(fd);
    if (caller) {
        cm_flow_close(&caller->question);
        cm_flow_close(&caller->answer);
        free(caller);
    }
    return NULL;
}

/* --- to saslauthd and back --- */

static void
note_unreached(struct cm_relay_desk *desk, const char *why)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    cm_filter_count(desk->filter, CM_FILTER_RELAY_UNREACHED);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("a login is refused since saslauthd at %s is not to be "
                    "had: %s held_back=%lu",
                    desk->saslauthd, why, held_back);
}

/* What the two sockets are waited for from now on. */
static void
watch_both(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    uint32_t client = 0, saslauthd = EPOLLIN;
    if (cm_flow_has_room(&caller->question))
        client |= EPOLLIN;
    if (cm_flow_waits(&caller->answer))
        client |= EPOLLOUT;
    if (cm_flow_waits(&caller->question))
        saslauthd |= EPOLLOUT;
    cm_server_rewatch(desk->server, caller->client.fd, client, &caller->client);
    if (caller->saslauthd.fd >= 0)
        cm_server_rewatch(desk->server, caller->saslauthd.fd, saslauthd,
                          &caller->saslauthd);
}

/*
 * Both directions, as far as they go. A saslauthd that reads no further may
 * have answered all the same. When it has closed, all it said is in our hands;
 * an answer that does not fit into them is none of a saslauthd.
 */
static void
pump(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    cm_flow_receive(&caller->question, caller->client.fd);
    if (caller->saslauthd.fd >= 0) {
        (void)cm_flow_send(&caller->question, caller->saslauthd.fd);
        cm_flow_receive(&caller->answer, caller->saslauthd.fd);
    }
    if (caller->answer.ended)
        hang_up(&caller->saslauthd);
    if (cm_flow_send(&caller->answer, caller->client.fd) != CM_OK ||
        caller->answer.told ||
        (!caller->answer.ended && !cm_flow_has_room(&caller->answer)))
        part(desk, caller);
    else
        watch_both(desk, caller);
}

/* Later there may be a place, in its queue or among our descriptors. */
static bool
is_passing_trouble(int error)
{
    return error == EAGAIN || error == EMFILE || error == ENFILE ||
           error == ENOBUFS || error == ENOMEM;
}

/* A connection to saslauthd, or -1 and errno. */
static int
dial_saslauthd(const struct cm_relay_desk *desk)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", desk->saslauthd);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int failed =
        connect(fd, (struct sockaddr *)&sun, sizeof sun) < 0 ? errno : 0;
    if (!failed && cm_peer_process(fd) == getpid())
        failed = ELOOP; /* we ourselves, by another name */
    if (failed) {
        close(fd);
        errno = failed;
        return -1;
    }
    return fd;
}

static void
dial(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    int64_t left_us = caller->give_up_us - cm_clock_mono_us();
    int fd = dial_saslauthd(desk);
    if (fd >= 0) {
        caller->saslauthd.fd = fd;
        if (cm_server_watch(desk->server, fd, EPOLLIN, &caller->saslauthd)) {
            enter(desk, caller, CM_RELAY_PASSING, left_us);
            pump(desk, caller);
            return;
        }
    } else if (is_passing_trouble(errno) && left_us > 0) {
        cm_server_rewatch(desk->server, caller->client.fd, 0, &caller->client);
        enter(desk, caller, CM_RELAY_DIALLING, DIAL_PAUSE_US);
        return;
    }
    note_unreached(desk, strerror(errno));
    part(desk, caller);
}

/* Nothing of ours, or nothing more. */
static void
hand_on(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    caller->give_up_us = cm_clock_mono_us() + CM_RELAY_ANSWER_US;
    dial(desk, caller);
}

/* --- what is done instead, or before --- */

static void
hold(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
     const struct cm_question *question, const struct cm_ruling *ruling)
{
    cm_late_begin(&caller->late, &ruling->incident, &question->guest,
                  &desk->held);
    cm_server_rewatch(desk->server, caller->client.fd, 0, &caller->client);
    enter(desk, caller, CM_RELAY_HELD, cm_late_look(&caller->late));
}

static void
refuse(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
       struct cm_ruling *ruling)
{
    size_t len;
    const char *no = cm_saslauthd_refusal(&len);
    bool told = send(caller->client.fd, no, len, MSG_DONTWAIT | MSG_NOSIGNAL) ==
                (ssize_t)len;
    cm_incident_close(desk->filter, &ruling->incident,
                      told ? CM_INCIDENT_APPLIED : CM_INCIDENT_UNAVAILABLE,
                      told ? NULL : "the mail server has gone");
    part(desk, caller);
}

static void
carry_out(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
          const struct cm_question *question, struct cm_ruling *ruling)
{
    if (ruling->kind != CM_RULING_PASS && cm_filter_halted(desk->filter)) {
        cm_incident_close(desk->filter, &ruling->incident,
                          CM_INCIDENT_UNAVAILABLE, "halted");
        hand_on(desk, caller);
        return;
    }
    switch (ruling->kind) {
    case CM_RULING_DELAY:
        hold(desk, caller, question, ruling);
        return;
    case CM_RULING_REFUSE:
        refuse(desk, caller, ruling);
        return;
    case CM_RULING_PASS:
    case CM_RULING_HIDE: /* of EHLO keywords: not here */
        hand_on(desk, caller);
        return;
    }
}

/* --- questions --- */

static void
hand_over(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
          struct cm_question *question)
{
    caller->hearing = cm_hearing_begin(desk->server->clerks, question, caller);
    if (!caller->hearing) {
        cm_filter_count(desk->filter, CM_FILTER_NO_MEMORY);
        hand_on(desk, caller);
        return;
    }
    cm_server_rewatch(desk->server, caller->client.fd, 0, &caller->client);
    enter(desk, caller, CM_RELAY_JUDGED, desk->server->opts.deadline_ms * 1000);
}

static void
judge(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
      struct cm_question *question)
{
    struct cm_ruling ruling;
    if (cm_question_may_wait(question)) {
        hand_over(desk, caller, question);
        return;
    }
    cm_question_judge(question, &ruling);
    carry_out(desk, caller, question, &ruling);
    cm_question_fini(question);
}

static bool
is_awake(const struct cm_relay_desk *desk)
{
    return !atomic_load(&desk->quiet) && cm_filter_is_live(desk->filter);
}

/* Sendmail serves a client by one process, which has a milter session with us
 * as well: so we know whose login it is. */
static void
on_question(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    const struct cm_secret *bytes = &caller->question.bytes;
    struct cm_saslauthd_who who;
    struct cm_question question;
    cm_saslauthd_read(&who, bytes->data, bytes->len);
    if (!is_awake(desk) ||
        !cm_question_open_login(&question, desk->filter, &who)) {
        hand_on(desk, caller);
        return;
    }
    question.guest.process = cm_peer_process(caller->client.fd);
    (void)cm_attendance_look(desk->filter->attendance, question.guest.process,
                             &question.guest);
    judge(desk, caller, &question);
}

/* Who says no more before the question is whole wants no answer. */
static void
listen_to(struct cm_relay_desk *desk, struct cm_relay_caller *caller)
{
    const struct cm_secret *bytes = &caller->question.bytes;
    cm_flow_receive(&caller->question, caller->client.fd);
    enum cm_saslauthd_state state =
        cm_saslauthd_measure(bytes->data, bytes->len);
    if (state == CM_SASLAUTHD_MORE) {
        if (caller->question.ended)
            part(desk, caller);
        return;
    }
    atomic_store(&desk->asked, true);
    cm_filter_count(desk->filter, CM_FILTER_RELAY_QUESTIONS);
    if (state == CM_SASLAUTHD_WHOLE)
        on_question(desk, caller);
    else
        hand_on(desk, caller);
}

/* --- what the server calls --- */

static void
on_event(void *arg, void *watched, uint32_t events)
{
    struct cm_relay_desk *desk = arg;
    struct cm_relay_end *end = watched;
    struct cm_relay_caller *caller = end->caller;
    bool lost = events & (EPOLLHUP | EPOLLERR);
    if (end->fd < 0)
        return;
    if (caller->phase == CM_RELAY_ASKING)
        listen_to(desk, caller);
    else if (end == &caller->client && lost)
        part(desk, caller);
    else if (caller->phase == CM_RELAY_PASSING)
        pump(desk, caller);
}

static void
take_back(struct cm_relay_desk *desk)
{
    struct cm_hearing *hearing;
    while ((hearing = cm_hearing_take(desk->server->clerks))) {
        struct cm_relay_caller *caller = hearing->asker;
        caller->hearing = NULL;
        carry_out(desk, caller, &hearing->question, &hearing->ruling);
        cm_hearing_free(&hearing);
    }
}

/* Wait no longer for what we ourselves make it wait for. */
static void
release(struct cm_relay_desk *desk, struct cm_relay_caller *caller,
        const char *how)
{
    cm_hearing_call_off(&caller->hearing);
    cm_late_end(&caller->late, desk->filter, how);
    hand_on(desk, caller);
}

static void
on_timer(void *arg, struct cm_caller *base)
{
    struct cm_relay_desk *desk = arg;
    struct cm_relay_caller *caller =
        CM_OWNER(struct cm_relay_caller, base, base);
    int64_t next_us;
    switch (caller->phase) {
    case CM_RELAY_ASKING:
        part(desk, caller);
        return;
    case CM_RELAY_JUDGED:
        cm_filter_count(desk->filter, CM_FILTER_RELAY_LATE);
        release(desk, caller, NULL);
        return;
    case CM_RELAY_HELD:
        next_us = cm_late_look(&caller->late);
        if (next_us > 0)
            enter(desk, caller, CM_RELAY_HELD, next_us);
        else
            release(desk, caller, NULL);
        return;
    case CM_RELAY_DIALLING:
        dial(desk, caller);
        return;
    case CM_RELAY_PASSING:
        note_unreached(desk, "no answer in time");
        part(desk, caller);
        return;
    }
}

static void
on_wake(void *arg)
{
    struct cm_relay_desk *desk = arg;
    const char *why = NULL;
    take_back(desk);
    if (atomic_load(&desk->quiet))
        why = "cut short: the filter stops";
    else if (cm_filter_halted(desk->filter))
        why = "cut short: chaos was halted";
    if (!why)
        return;
    for (struct cm_caller *base = desk->server->callers, *next; base;
         base = next) {
        struct cm_relay_caller *caller =
            CM_OWNER(struct cm_relay_caller, base, base);
        next = base->next;
        if (caller->phase == CM_RELAY_JUDGED || caller->phase == CM_RELAY_HELD)
            release(desk, caller, why);
    }
}

static void
on_end(void *arg, struct cm_caller *base)
{
    part(arg, CM_OWNER(struct cm_relay_caller, base, base));
}

const struct cm_server_trade cm_relay_desk_trade = {.name = "saslauthd relay",
                                                    .on_caller = on_caller,
                                                    .on_event = on_event,
                                                    .on_timer = on_timer,
                                                    .on_wake = on_wake,
                                                    .on_end = on_end};

void
cm_relay_desk_close(struct cm_relay_desk *desk)
{
    if (desk->server && desk->server->clerks)
        take_back(desk);
}
