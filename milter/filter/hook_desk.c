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
#include "milter/clock.h"
#include "milter/filter/attendance.h"
#include "milter/filter/filter.h"
#include "milter/filter/incident.h"
#include "milter/filter/question.h"
#include "milter/filter/ticket.h"
#include "milter/log.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* A question on its way to a clerk and back. */
struct cm_hook_errand {
    struct cm_errand base;
    struct cm_hook_caller *caller; /* the desk's; NULL: called off */
    struct cm_question question;
    struct cm_ruling ruling;
};

#define OWNER(type, member, pointer)                                           \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static const char gone[] = "the session ended before the reply was due";

/* --- callers --- */

/* Deaf, only its end is heard of. */
static void
set_deaf(struct cm_hook_desk *desk, struct cm_hook_caller *caller, bool deaf)
{
    struct epoll_event event = {.events = deaf ? 0 : EPOLLIN,
                                .data.ptr = caller};
    if (caller->deaf != deaf)
        epoll_ctl(desk->epoll_fd, EPOLL_CTL_MOD, caller->line.fd, &event);
    caller->deaf = deaf;
}

static void
end_hold(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
         const char *how)
{
    if (!caller->hold.on)
        return;
    cm_hook_hold_end(&caller->hold, desk->filter, how);
    atomic_fetch_sub(&desk->held, 1);
}

static void
call_off(struct cm_hook_caller *caller)
{
    if (!caller->errand)
        return;
    caller->errand->caller = NULL;
    atomic_store(&caller->errand->base.called_off, true);
    caller->errand = NULL;
}

/* The memory goes when the round of events is over: one of them may still name
 * it. */
static void
part(struct cm_hook_desk *desk, struct cm_hook_caller *caller)
{
    end_hold(desk, caller, gone);
    call_off(caller);
    cm_timers_cancel(&desk->timers, &caller->timer);
    cm_hook_line_close(&caller->line);
    caller->line.fd = -1;
    if (caller->prev)
        caller->prev->next = caller->next;
    else
        desk->callers = caller->next;
    if (caller->next)
        caller->next->prev = caller->prev;
    desk->ncallers--;
    caller->next = desk->graveyard;
    desk->graveyard = caller;
}

void
cm_hook_desk_bury(struct cm_hook_desk *desk)
{
    while (desk->graveyard) {
        struct cm_hook_caller *caller = desk->graveyard;
        desk->graveyard = caller->next;
        free(caller);
    }
}

void
cm_hook_desk_welcome(struct cm_hook_desk *desk, int fd)
{
    struct cm_hook_caller *caller = calloc(1, sizeof *caller);
    if (!caller || !cm_timers_reserve(&desk->timers, desk->ncallers + 2)) {
        close(fd);
    } else if (cm_hook_line_open(&caller->line, fd) == CM_OK) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
        if (epoll_ctl(desk->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) {
            caller->next = desk->callers;
            if (caller->next)
                caller->next->prev = caller;
            desk->callers = caller;
            desk->ncallers++;
            return;
        }
        cm_hook_line_close(&caller->line);
    }
    cm_filter_count(desk->filter, CM_FILTER_NO_MEMORY);
    free(caller);
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
    int64_t next_us;
    cm_hook_hold_begin(&caller->hold, &ruling->incident, &question->guest);
    atomic_fetch_add(&desk->held, 1);
    if (cm_hook_hold_is_over(&caller->hold, &next_us))
        next_us = cm_clock_mono_us();
    cm_timers_set(&desk->timers, &caller->timer, next_us);
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
run_errand(struct cm_errand *base)
{
    struct cm_hook_errand *errand = OWNER(struct cm_hook_errand, base, base);
    cm_question_judge(&errand->question, &errand->ruling);
}

static void
hand_over(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
          struct cm_question *question)
{
    struct cm_hook_errand *errand = calloc(1, sizeof *errand);
    if (!errand) {
        cm_filter_count(desk->filter, CM_FILTER_NO_MEMORY);
        cm_question_fini(question);
        let_pass(desk, caller);
        return;
    }
    errand->base.run = run_errand;
    errand->question = *question; /* with its reference */
    errand->caller = caller;
    caller->errand = errand;
    cm_timers_set(&desk->timers, &caller->timer,
                  cm_clock_mono_us() + desk->deadline_us);
    set_deaf(desk, caller, true);
    cm_clerks_give(desk->clerks, &errand->base);
}

static void
judge(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
      struct cm_question *question)
{
    struct cm_ruling ruling;
    question->number = ++desk->nquestions;
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
    return caller->line.fd >= 0 && !caller->hold.on && !caller->errand;
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
free_errand(struct cm_hook_errand *errand)
{
    cm_question_fini(&errand->question);
    free(errand);
}

void
cm_hook_desk_take_back(struct cm_hook_desk *desk)
{
    struct cm_errand *base;
    while ((base = cm_clerks_take(desk->clerks))) {
        struct cm_hook_errand *errand =
            OWNER(struct cm_hook_errand, base, base);
        struct cm_hook_caller *caller = errand->caller;
        if (caller) {
            caller->errand = NULL;
            cm_timers_cancel(&desk->timers, &caller->timer);
            carry_out(desk, caller, &errand->question, &errand->ruling);
            attend(desk, caller);
        } else if (base->was_run && errand->ruling.kind != CM_RULING_PASS) {
            cm_incident_close(desk->filter, &errand->ruling.incident,
                              CM_INCIDENT_UNAVAILABLE, "decided too late");
        }
        free_errand(errand);
    }
}

/* The caller's time is up: what it waited for is due, or too late. */
static void
release(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
        const char *how)
{
    cm_timers_cancel(&desk->timers, &caller->timer);
    call_off(caller);
    bool passed = cm_hook_line_pass(&caller->line);
    end_hold(desk, caller, passed ? how : gone);
    expect(desk, caller, passed);
    attend(desk, caller);
}

void
cm_hook_desk_on_timer(struct cm_hook_desk *desk, struct cm_timer *timer)
{
    struct cm_hook_caller *caller = OWNER(struct cm_hook_caller, timer, timer);
    int64_t next_us;
    if (caller->hold.on && !cm_hook_hold_is_over(&caller->hold, &next_us)) {
        cm_timers_set(&desk->timers, timer, next_us);
        return;
    }
    if (caller->errand)
        cm_filter_count(desk->filter, CM_FILTER_HOOK_LATE);
    release(desk, caller, NULL);
}

void
cm_hook_desk_release_all(struct cm_hook_desk *desk)
{
    for (struct cm_hook_caller *caller = desk->callers, *next; caller;
         caller = next) {
        next = caller->next;
        if (!is_idle(caller))
            release(desk, caller, "cut short: the filter stops");
    }
}

void
cm_hook_desk_on_event(struct cm_hook_desk *desk, struct cm_hook_caller *caller,
                      uint32_t events)
{
    bool gone_already = caller->line.fd < 0;
    if (gone_already)
        return;
    if (is_idle(caller) ? cm_hook_line_receive(&caller->line)
                        : !(events & (EPOLLHUP | EPOLLERR)))
        attend(desk, caller);
    else
        part(desk, caller);
}

void
cm_hook_desk_close(struct cm_hook_desk *desk)
{
    while (desk->callers)
        part(desk, desk->callers);
    cm_hook_desk_bury(desk);
    if (desk->clerks) {
        cm_clerks_stop(desk->clerks);
        cm_hook_desk_take_back(desk);
        cm_clerks_free(&desk->clerks);
    }
    cm_timers_fini(&desk->timers);
}
