/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One thread does it all: a question takes some microseconds to be judged from
 * memory, and a delay is a timer. Only what may have to ask Redis goes to
 * clerks, under a timer too.
 */
#include "milter/filter/server.h"
#include "milter/clock.h"
#include "milter/filter/owner.h"
#include "milter/log.h"
#include "milter/store/thread.h"

#include <errno.h>
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

/* --- what is watched --- */

bool
cm_server_watch(struct cm_server *server, int fd, uint32_t events,
                void *watched)
{
    struct epoll_event event = {.events = events, .data.ptr = watched};
    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void
cm_server_rewatch(struct cm_server *server, int fd, uint32_t events,
                  void *watched)
{
    struct epoll_event event = {.events = events, .data.ptr = watched};
    epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

void
cm_server_alarm(struct cm_server *server, struct cm_caller *caller,
                int64_t in_us)
{
    cm_timers_cancel(&server->timers, &caller->timer);
    cm_timers_set(&server->timers, &caller->timer, cm_clock_mono_us() + in_us);
}

void
cm_server_calm(struct cm_server *server, struct cm_caller *caller)
{
    cm_timers_cancel(&server->timers, &caller->timer);
}

/* --- who calls --- */

static bool
is_full(const struct cm_server *server)
{
    return server->opts.callers_max > 0 &&
           server->ncallers >= server->opts.callers_max;
}

static void
listen_again(struct cm_server *server)
{
    bool may = !is_full(server) && server->accept_timer.slot == 0;
    cm_server_rewatch(server, server->listen_fd, may ? EPOLLIN : 0,
                      &server->listen_fd);
}

static void
admit(struct cm_server *server, int fd)
{
    struct cm_caller *caller;
    if (!cm_timers_reserve(&server->timers, server->ncallers + 2)) {
        close(fd);
        return;
    }
    caller = server->trade->on_caller(server->arg, fd);
    if (!caller)
        return;
    caller->prev = NULL;
    caller->next = server->callers;
    if (caller->next)
        caller->next->prev = caller;
    server->callers = caller;
    server->ncallers++;
}

void
cm_server_part(struct cm_server *server, struct cm_caller *caller)
{
    cm_server_calm(server, caller);
    if (caller->prev)
        caller->prev->next = caller->next;
    else
        server->callers = caller->next;
    if (caller->next)
        caller->next->prev = caller->prev;
    caller->next = server->graveyard;
    server->graveyard = caller;
    bool was_full = is_full(server);
    server->ncallers--;
    if (was_full)
        listen_again(server);
}

/* Between rounds, since an event of one may name a caller that has gone. */
static void
bury(struct cm_server *server)
{
    while (server->graveyard) {
        struct cm_caller *caller = server->graveyard;
        server->graveyard = caller->next;
        free(caller);
    }
}

static void
note_trouble(struct cm_server *server, const char *why)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("the %s cannot accept a connection: %s held_back=%lu",
                    server->trade->name, why, held_back);
}

static void
accept_all(struct cm_server *server)
{
    int fd = -1;
    while (!is_full(server) &&
           (fd = accept4(server->listen_fd, NULL, NULL,
                         SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        admit(server, fd);
    if (is_full(server)) {
        note_trouble(server, "as many as there may be are open");
        listen_again(server);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
               errno == ENOMEM) {
        note_trouble(server, strerror(errno));
        cm_timers_set(&server->timers, &server->accept_timer,
                      cm_clock_mono_us() + ACCEPT_PAUSE_US);
        listen_again(server);
    }
}

/* --- the loop --- */

static void
ring_timers(struct cm_server *server)
{
    struct cm_timer *timer;
    while ((timer = cm_timers_first(&server->timers)) &&
           timer->due_us <= cm_clock_mono_us()) {
        cm_timers_cancel(&server->timers, timer);
        if (timer == &server->accept_timer)
            listen_again(server);
        else
            server->trade->on_timer(server->arg,
                                    CM_OWNER(struct cm_caller, timer, timer));
    }
}

static void
on_event(struct cm_server *server, const struct epoll_event *event)
{
    eventfd_t n;
    if (event->data.ptr == &server->listen_fd) {
        accept_all(server);
    } else if (event->data.ptr == &server->wake_fd) {
        eventfd_read(server->wake_fd, &n);
        server->trade->on_wake(server->arg);
    } else {
        server->trade->on_event(server->arg, event->data.ptr, event->events);
    }
}

/* Rounded up, so that a timer is due when we wake. */
static int
wait_ms(const struct cm_server *server)
{
    const struct cm_timer *timer = cm_timers_first(&server->timers);
    if (!timer)
        return -1;
    int64_t left_us = timer->due_us - cm_clock_mono_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

static void *
server_main(void *arg)
{
    struct cm_server *server = arg;
    struct epoll_event events[EVENTS];
    while (!atomic_load(&server->stopping)) {
        int n = epoll_wait(server->epoll_fd, events, EVENTS, wait_ms(server));
        for (int i = 0; i < n; i++)
            on_event(server, &events[i]);
        ring_timers(server);
        bury(server);
    }
    return NULL;
}

void
cm_server_wake(struct cm_server *server)
{
    eventfd_write(server->wake_fd, 1);
}

/* --- its life --- */

static enum cm_status
listen_on(struct cm_server *server, const struct cm_server_opts *opts,
          struct cm_err *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", opts->path);
    server->listen_fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t saved = umask(0777 & ~opts->mode);
    bool bound =
        server->listen_fd >= 0 &&
        bind(server->listen_fd, (struct sockaddr *)&sun, sizeof sun) == 0;
    umask(saved);
    enum cm_status status = CM_OK;
    if (!bound || listen(server->listen_fd, BACKLOG) < 0)
        status = cm_err_set(err, CM_EIO, "cannot listen on %s: %s", opts->path,
                            strerror(errno));
    if (status == CM_OK)
        status =
            cm_unix_socket_give(&server->socket, opts->user, opts->group, err);
    if (status != CM_OK && bound)
        cm_unix_socket_remove(&server->socket);
    return status;
}

enum cm_status
cm_server_open(struct cm_server *server_r, const struct cm_server_opts *opts,
               struct cm_err *err)
{
    memset(server_r, 0, sizeof *server_r);
    server_r->listen_fd = server_r->epoll_fd = -1;
    server_r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server_r->socket.dir_fd = -1;
    server_r->opts = *opts;
    server_r->opts.path = server_r->opts.user = server_r->opts.group = NULL;
    enum cm_status status = cm_unix_socket_check(opts->path, err);
    if (status == CM_OK)
        status = cm_unix_socket_open(&server_r->socket, opts->path, err);
    if (status == CM_OK)
        status = listen_on(server_r, opts, err);
    return status;
}

enum cm_status
cm_server_start(struct cm_server *server, const struct cm_server_trade *trade,
                void *arg, struct cm_err *err)
{
    server->trade = trade;
    server->arg = arg;
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll_fd < 0 || server->wake_fd < 0 ||
        !cm_server_watch(server, server->listen_fd, EPOLLIN,
                         &server->listen_fd) ||
        !cm_server_watch(server, server->wake_fd, EPOLLIN, &server->wake_fd))
        return cm_err_set(err, CM_EIO, "the %s: %s", trade->name,
                          strerror(errno));
    if (!cm_timers_reserve(&server->timers, 1))
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status = cm_clerks_start(
        &server->clerks, server->opts.clerks, server->wake_fd, err);
    if (status == CM_OK)
        status = cm_thread_start(&server->thread, server_main, server, err);
    server->started = status == CM_OK;
    return status;
}

void
cm_server_remove(struct cm_server *server)
{
    cm_unix_socket_remove(&server->socket);
}

void
cm_server_end(struct cm_server *server)
{
    if (server->started) {
        atomic_store(&server->stopping, true);
        cm_server_wake(server);
        pthread_join(server->thread, NULL);
        server->started = false;
    }
    while (server->callers)
        server->trade->on_end(server->arg, server->callers);
    bury(server);
    if (server->clerks)
        cm_clerks_stop(server->clerks);
}

void
cm_server_fini(struct cm_server *server)
{
    cm_clerks_free(&server->clerks);
    cm_timers_fini(&server->timers);
    cm_unix_socket_fini(&server->socket);
    int fds[] = {server->listen_fd, server->wake_fd, server->epoll_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    server->listen_fd = server->wake_fd = server->epoll_fd = -1;
}
