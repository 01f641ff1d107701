/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The socket, the thread, and what wakes it. One thread and one epoll set serve
 * all connections: a question takes some microseconds to be judged from memory,
 * and a delay is a timer. Only what may have to ask Redis goes to clerks, under
 * a timer too. What is asked and answered is in hook_desk.c.
 */
#include "milter/filter/hook.h"
#include "milter/clock.h"
#include "milter/filter/filter.h"
#include "milter/filter/hook_desk.h"
#include "milter/filter/unix_socket.h"
#include "milter/log.h"
#include "milter/store/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG         1024
#define EVENTS          64
#define ACCEPT_PAUSE_US 50000 /* when no descriptor is left */

struct cm_hook {
    struct cm_unix_socket socket;
    int listen_fd, wake_fd;
    unsigned nclerks;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    struct cm_timer accept_timer; /* set while nobody is accepted */
    struct cm_hook_desk desk;
};

/* --- the loop --- */

static void
listen_again(struct cm_hook *hook, bool again)
{
    struct epoll_event event = {.events = again ? EPOLLIN : 0,
                                .data.ptr = &hook->listen_fd};
    epoll_ctl(hook->desk.epoll_fd, EPOLL_CTL_MOD, hook->listen_fd, &event);
}

static void
accept_all(struct cm_hook *hook)
{
    int fd;
    while ((fd = accept4(hook->listen_fd, NULL, NULL,
                         SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        cm_hook_desk_welcome(&hook->desk, fd);
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
        errno == ENOMEM) {
        static struct cm_log_gate gate;
        unsigned long held_back;
        if (cm_log_gate_open(&gate, &held_back))
            cm_log_warn("the command hook cannot accept a connection: %s "
                        "held_back=%lu",
                        strerror(errno), held_back);
        listen_again(hook, false);
        cm_timers_set(&hook->desk.timers, &hook->accept_timer,
                      cm_clock_mono_us() + ACCEPT_PAUSE_US);
    }
}

static void
ring_timers(struct cm_hook *hook)
{
    struct cm_timers *timers = &hook->desk.timers;
    struct cm_timer *timer;
    while ((timer = cm_timers_first(timers)) &&
           timer->due_us <= cm_clock_mono_us()) {
        cm_timers_cancel(timers, timer);
        if (timer == &hook->accept_timer)
            listen_again(hook, true);
        else
            cm_hook_desk_on_timer(&hook->desk, timer);
    }
}

static void
on_wake(struct cm_hook *hook)
{
    eventfd_t n;
    eventfd_read(hook->wake_fd, &n);
    cm_hook_desk_take_back(&hook->desk);
    if (atomic_load(&hook->desk.quiet))
        cm_hook_desk_release_all(&hook->desk);
}

static void
on_event(struct cm_hook *hook, const struct epoll_event *event)
{
    if (event->data.ptr == &hook->listen_fd)
        accept_all(hook);
    else if (event->data.ptr == &hook->wake_fd)
        on_wake(hook);
    else
        cm_hook_desk_on_event(&hook->desk, event->data.ptr, event->events);
}

/* Rounded up, so that a timer is due when we wake. */
static int
wait_ms(const struct cm_hook *hook)
{
    const struct cm_timer *timer = cm_timers_first(&hook->desk.timers);
    if (!timer)
        return -1;
    int64_t left_us = timer->due_us - cm_clock_mono_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

static void *
hook_main(void *arg)
{
    struct cm_hook *hook = arg;
    struct epoll_event events[EVENTS];
    while (!atomic_load(&hook->stopping)) {
        int n = epoll_wait(hook->desk.epoll_fd, events, EVENTS, wait_ms(hook));
        for (int i = 0; i < n; i++)
            on_event(hook, &events[i]);
        ring_timers(hook);
        cm_hook_desk_bury(&hook->desk);
    }
    return NULL;
}

/* --- its life --- */

static enum cm_status
listen_on(struct cm_hook *hook, const struct cm_hook_opts *opts,
          struct cm_err *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", opts->path);
    hook->listen_fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t saved = umask(0777 & ~opts->mode);
    bool bound =
        hook->listen_fd >= 0 &&
        bind(hook->listen_fd, (struct sockaddr *)&sun, sizeof sun) == 0;
    umask(saved);
    enum cm_status status = CM_OK;
    if (!bound || listen(hook->listen_fd, BACKLOG) < 0)
        status = cm_err_set(err, CM_EIO, "cannot listen on %s: %s", opts->path,
                            strerror(errno));
    if (status == CM_OK)
        status =
            cm_unix_socket_give(&hook->socket, opts->user, opts->group, err);
    if (status != CM_OK && bound)
        cm_unix_socket_remove(&hook->socket);
    return status;
}

enum cm_status
cm_hook_open(struct cm_hook **hook_r, const struct cm_hook_opts *opts,
             struct cm_err *err)
{
    struct cm_hook *hook = calloc(1, sizeof *hook);
    if (!hook)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    hook->listen_fd = hook->desk.epoll_fd = hook->wake_fd = -1;
    hook->socket.dir_fd = -1;
    hook->nclerks = opts->clerks;
    hook->desk.deadline_us = opts->deadline_ms * 1000;
    enum cm_status status = cm_unix_socket_check(opts->path, err);
    if (status == CM_OK)
        status = cm_unix_socket_open(&hook->socket, opts->path, err);
    if (status == CM_OK)
        status = listen_on(hook, opts, err);
    if (status != CM_OK)
        cm_hook_free(&hook);
    *hook_r = hook;
    return status;
}

static bool
watch(struct cm_hook *hook, int *fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = fd};
    return epoll_ctl(hook->desk.epoll_fd, EPOLL_CTL_ADD, *fd, &event) == 0;
}

enum cm_status
cm_hook_start(struct cm_hook *hook, struct cm_filter *filter,
              struct cm_err *err)
{
    hook->desk.filter = filter;
    hook->desk.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    hook->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (hook->desk.epoll_fd < 0 || hook->wake_fd < 0 ||
        !watch(hook, &hook->listen_fd) || !watch(hook, &hook->wake_fd))
        return cm_err_set(err, CM_EIO, "the command hook: %s", strerror(errno));
    if (!cm_timers_reserve(&hook->desk.timers, 1))
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status =
        cm_clerks_start(&hook->desk.clerks, hook->nclerks, hook->wake_fd, err);
    if (status == CM_OK)
        status = cm_thread_start(&hook->thread, hook_main, hook, err);
    hook->started = status == CM_OK;
    return status;
}

void
cm_hook_quiet(struct cm_hook *hook)
{
    atomic_store(&hook->desk.quiet, true);
    eventfd_write(hook->wake_fd, 1);
}

void
cm_hook_remove(struct cm_hook *hook)
{
    cm_unix_socket_remove(&hook->socket);
}

void
cm_hook_free(struct cm_hook **hook)
{
    struct cm_hook *h = *hook;
    if (!h)
        return;
    if (h->started) {
        atomic_store(&h->stopping, true);
        eventfd_write(h->wake_fd, 1);
        pthread_join(h->thread, NULL);
    }
    cm_hook_desk_close(&h->desk);
    cm_unix_socket_fini(&h->socket);
    int fds[] = {h->listen_fd, h->desk.epoll_fd, h->wake_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(h);
    *hook = NULL;
}

static const char no_hook[] = "no command hook is set up (hook.socket)";

const char *
cm_hook_why_not(const struct cm_hook *hook)
{
    if (!hook)
        return no_hook;
    if (!atomic_load(&hook->desk.asked_commands))
        return "no mail server has asked the command hook yet "
               "(smtpd_command_filter)";
    return NULL;
}

const char *
cm_hook_why_not_hide(const struct cm_hook *hook)
{
    if (!hook)
        return no_hook;
    if (!atomic_load(&hook->desk.asked_keywords))
        return "no mail server has asked the command hook yet "
               "(smtpd_discard_ehlo_keyword_address_maps)";
    return NULL;
}

size_t
cm_hook_held(const struct cm_hook *hook)
{
    return hook ? atomic_load(&hook->desk.held) : 0;
}
