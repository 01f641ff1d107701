/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A caller is idle, or its question is with a clerk, or its answer is held;
 * only while idle is it read from, so one that asks ahead waits.
 *
 * A mail server that gets no answer, or whose connection is closed, ends its
 * client's session with 421. So everything that goes wrong here ends in "not
 * found", and the command passes; only a peer that does not speak the protocol
 * is left.
 */
#include "milter/filter/hook_desk.h"
#include "milter/filter/attendance.h"
#include "milter/filter/filter.h"
#include "milter/filter/hearing.h"
#include "milter/filter/incident.h"
#include "milter/filter/owner.h"
#include "milter/filter/question.h"
#include "milter/filter/ticket.h"
#include "milter/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const char gone[] = "the session ended before the reply was due";

/* --- callers --- */

/* Deaf, only its end is heard of. */
static void
set_deaf(struct cm_hook_desk *desk, struct cm_hook_caller *caller, bool deaf)
{
    if (caller->deaf != deaf)
        cm_server_rewatch(desk->server, caller->line.fd, deaf ? 0 : EPOLLIN,
                          caller);
    caller->deaf = deaf;
}

static void
part(struct cm_hook_desk *desk, struct cm_hook_caller *caller)
{
    cm_late_end(&caller->late, desk->filter, gone);
    cm_hearing_call_off(&caller->hearing);
    cm_hook_line_close(&caller->line);
    cm_server_part(desk->server, &caller->base);
}

static struct cm_caller *
on_caller(void *arg, int fd)
{
    struct cm_hook_desk *desk = arg;
    struct cm_hook_caller *caller = calloc(1, sizeof *caller);
    if (!caller) {
        close(fd);
    } else if (cm_hook_line_open(&caller->line, fd) == CM_OK) {
        if (cm_server_watch(desk->server, fd, EPOLLIN, caller))
            return &caller->base;
        cm_hook_line_close(&caller->line);
    }
    cm_filter_count(desk->filter, CM_FILTER_NO_MEMORY);
    free(caller);
    return NULL;
}

/* --- answers --- */

/* What is read next is the next question. */
static void
expect(struct cm_hook_desk *desk, struct cm_hook_caller *caller, bool answered)
{
    if (answered)
        set_deaf(desk, caller, false);
    else
        part(desk, caller);
}

static void
let_pass(struct cm_hook_desk *desk, struct cm_hook_caller *caller)
{
    expect(desk, caller, cm_hook_line_pass(&caller->line));
}

static void
hold(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
     const struct cm_question *question, const struct cm_ruling *ruling)
{
    cm_late_begin(&caller->late, &ruling->incident, &question->guest,
                  &desk->held);
    cm_server_alarm(desk->server, &caller->base, cm_late_look(&caller->late));
    set_deaf(desk, caller, true);
}

static void
refuse(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
       const struct cm_question *question, struct cm_ruling *ruling)
{
    struct cm_filter *filter = desk->filter;
    struct cm_ticket *ticket = NULL;
    char word[CM_TICKET_WORD_BYTES];
    if (cm_ticket_new(&ticket, question->rules, ruling->reply,
                      &ruling->incident) != CM_OK) {
        cm_filter_count(filter, CM_FILTER_NO_MEMORY);
        cm_incident_close(filter, &ruling->incident, CM_INCIDENT_UNAVAILABLE,
                          "no memory or no randomness");
        let_pass(desk, caller);
        return;
    }
    memcpy(word, ticket->word, sizeof word);
    if (cm_attendance_issue(filter->attendance, question->guest.process,
                            question->guest.session, ticket)) {
        expect(desk, caller, cm_hook_line_found(&caller->line, word));
    } else {
        cm_ticket_void(filter, &ticket, "the session has ended");
        let_pass(desk, caller);
    }
}

static void
hide(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
     struct cm_ruling *ruling)
{
    bool told = cm_hook_line_found(&caller->line, ruling->keywords);
    cm_incident_close(desk->filter, &ruling->incident,
                      told ? CM_INCIDENT_APPLIED : CM_INCIDENT_UNAVAILABLE,
                      told ? NULL : "the mail server has gone");
    expect(desk, caller, told);
}

static void
carry_out(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
          const struct cm_question *question, struct cm_ruling *ruling)
{
    if (ruling->kind != CM_RULING_PASS && cm_filter_halted(desk->filter)) {
        cm_incident_close(desk->filter, &ruling->incident,
                          CM_INCIDENT_UNAVAILABLE, "halted");
        let_pass(desk, caller);
        return;
    }
    switch (ruling->kind) {
    case CM_RULING_PASS:
        let_pass(desk, caller);
        return;
    case CM_RULING_DELAY:
        hold(desk, caller, question, ruling);
        return;
    case CM_RULING_REFUSE:
        refuse(desk, caller, question, ruling);
        return;
    case CM_RULING_HIDE:
        hide(desk, caller, ruling);
        return;
    }
}

/* --- questions --- */

static void
hand_over(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
          struct cm_question *question)
{
    caller->hearing = cm_hearing_begin(desk->server->clerks, question, caller);
    if (!caller->hearing) {
        cm_filter_count(desk->filter, CM_FILTER_NO_MEMORY);
        let_pass(desk, caller);
        return;
    }
    cm_server_alarm(desk->server, &caller->base,
                    desk->server->opts.deadline_ms * 1000);
    set_deaf(desk, caller, true);
}

static void
judge(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
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
is_awake(const struct cm_hook_desk *desk)
{
    return !atomic_load(&desk->quiet) && cm_filter_is_live(desk->filter);
}

/* Whose command it is. */
static void
meet(struct cm_hook_desk *desk, pid_t process, struct cm_guest *guest,
     const char **mute)
{
    struct cm_ticket *left = NULL;
    *guest = (struct cm_guest){.process = process};
    *mute = NULL;
    if (!cm_attendance_meet(desk->filter->attendance, process, guest, &left))
        *mute = "this service has no milter session with us";
    cm_ticket_void(desk->filter, &left, "the mail server did not come for it");
}

static void
on_command(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
           const struct cm_socketmap_request *request)
{
    struct cm_smtp_command command;
    struct cm_question question;
    struct cm_guest guest;
    const char *mute;
    bool known = cm_smtp_command_read(&command, request->key, request->key_len);
    cm_hook_line_forget(&caller->line, request);
    meet(desk, caller->line.process, &guest, &mute);
    if (known && is_awake(desk) &&
        cm_question_open(&question, desk->filter, &command)) {
        question.guest = guest;
        question.mute = mute;
        judge(desk, caller, &question);
    } else {
        let_pass(desk, caller);
    }
}

/* Asked at the beginning of a session, when the milter's has not begun. */
static void
on_keywords(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
            const struct cm_socketmap_request *request)
{
    struct cm_question question;
    bool open = is_awake(desk) &&
                cm_question_open_keywords(&question, desk->filter, request->key,
                                          request->key_len);
    cm_hook_line_forget(&caller->line, request);
    if (open) {
        question.guest.process = caller->line.process;
        judge(desk, caller, &question);
    } else {
        let_pass(desk, caller);
    }
}

static void
on_other_map(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
             const struct cm_socketmap_request *request)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    cm_hook_line_forget(&caller->line, request);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("the command hook was asked for a map that it has not: its "
                    "maps are \":command\" and \":ehlo\" held_back=%lu",
                    held_back);
    let_pass(desk, caller);
}

static bool
is_map(const struct cm_socketmap_request *request, const char *name)
{
    return request->map_len == strlen(name) &&
           memcmp(request->map, name, request->map_len) == 0;
}

static void
on_question(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
            const struct cm_socketmap_request *request)
{
    cm_filter_count(desk->filter, CM_FILTER_HOOK_LOOKUPS);
    if (is_map(request, "command")) {
        atomic_store(&desk->asked_commands, true);
        on_command(desk, caller, request);
    } else if (is_map(request, "ehlo")) {
        atomic_store(&desk->asked_keywords, true);
        on_keywords(desk, caller, request);
    } else {
        on_other_map(desk, caller, request);
    }
}

static bool
is_idle(const struct cm_hook_caller *caller)
{
    return caller->line.fd >= 0 && !caller->late.on && !caller->hearing;
}

/* All questions that have come, until one takes time. */
static void
attend(struct cm_hook_desk *desk, struct cm_hook_caller *caller)
{
    struct cm_socketmap_request request;
    while (is_idle(caller)) {
        switch (cm_hook_line_next(&caller->line, &request)) {
        case CM_SOCKETMAP_MORE:
            return;
        case CM_SOCKETMAP_WHOLE:
            on_question(desk, caller, &request);
            break;
        case CM_SOCKETMAP_LONG:
            cm_filter_count(desk->filter, CM_FILTER_HOOK_LOOKUPS);
            let_pass(desk, caller);
            break;
        case CM_SOCKETMAP_BAD:
            cm_filter_count(desk->filter, CM_FILTER_HOOK_MALFORMED);
            part(desk, caller);
            break;
        }
    }
}

static void
take_back(struct cm_hook_desk *desk)
{
    struct cm_hearing *hearing;
    while ((hearing = cm_hearing_take(desk->server->clerks))) {
        struct cm_hook_caller *caller = hearing->asker;
        caller->hearing = NULL;
        cm_server_calm(desk->server, &caller->base);
        carry_out(desk, caller, &hearing->question, &hearing->ruling);
        attend(desk, caller);
        cm_hearing_free(&hearing);
    }
}

/* The caller's time is up: what it waited for is due, or too late. */
static void
release(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
        const char *how)
{
    cm_server_calm(desk->server, &caller->base);
    cm_hearing_call_off(&caller->hearing);
    bool passed = cm_hook_line_pass(&caller->line);
    cm_late_end(&caller->late, desk->filter, passed ? how : gone);
    expect(desk, caller, passed);
    attend(desk, caller);
}

static void
on_timer(void *arg, struct cm_caller *base)
{
    struct cm_hook_desk *desk = arg;
    struct cm_hook_caller *caller = CM_OWNER(struct cm_hook_caller, base, base);
    int64_t next_us = caller->late.on ? cm_late_look(&caller->late) : 0;
    if (next_us > 0) {
        cm_server_alarm(desk->server, base, next_us);
        return;
    }
    if (caller->hearing)
        cm_filter_count(desk->filter, CM_FILTER_HOOK_LATE);
    release(desk, caller, NULL);
}

static void
release_all(struct cm_hook_desk *desk, const char *detail)
{
    for (struct cm_caller *base = desk->server->callers, *next; base;
         base = next) {
        struct cm_hook_caller *caller =
            CM_OWNER(struct cm_hook_caller, base, base);
        next = base->next;
        if (!is_idle(caller))
            release(desk, caller, detail);
    }
}

static void
on_wake(void *arg)
{
    struct cm_hook_desk *desk = arg;
    take_back(desk);
    if (atomic_load(&desk->quiet))
        release_all(desk, "cut short: the filter stops");
    else if (cm_filter_halted(desk->filter))
        release_all(desk, "cut short: chaos was halted");
}

static void
on_event(void *arg, void *watched, uint32_t events)
{
    struct cm_hook_desk *desk = arg;
    struct cm_hook_caller *caller = watched;
    bool gone_already = caller->line.fd < 0;
    if (gone_already)
        return;
    if (is_idle(caller) ? cm_hook_line_receive(&caller->line)
                        : !(events & (EPOLLHUP | EPOLLERR)))
        attend(desk, caller);
    else
        part(desk, caller);
}

static void
on_end(void *arg, struct cm_caller *base)
{
    part(arg, CM_OWNER(struct cm_hook_caller, base, base));
}

const struct cm_server_trade cm_hook_desk_trade = {.name = "command hook",
                                                   .on_caller = on_caller,
                                                   .on_event = on_event,
                                                   .on_timer = on_timer,
                                                   .on_wake = on_wake,
                                                   .on_end = on_end};

void
cm_hook_desk_close(struct cm_hook_desk *desk)
{
    if (desk->server && desk->server->clerks)
        take_back(desk);
}
