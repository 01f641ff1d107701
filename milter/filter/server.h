/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SERVER_H
#define CM_SERVER_H

#include "milter/err.h"
#include "milter/filter/clerks.h"
#include "milter/filter/timers.h"
#include "milter/filter/unix_socket.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What a mail server asks us besides the milter protocol, it asks on a unix
 * socket: one thread and one epoll set for all who call there, timers for what
 * is held or has a deadline, clerks for what may have to wait. What is said on
 * a connection is its user's affair (hook_desk.h, relay_desk.h).
 */
struct cm_server_opts {
    const char *path; /* of the unix socket */
    mode_t mode;
    const char *user, *group; /* it is given to; "": as created */
    size_t callers_max;       /* others wait to be accepted; 0: any number */
    unsigned clerks;          /* threads for decisions that ask Redis, 1.. */
    int64_t deadline_ms;      /* of such a decision, 1.. */
};

/* One who calls: the first member of what its user allocates, and the server
 * frees. */
struct cm_caller {
    struct cm_caller *prev, *next; /* of all, or of the graveyard */
    struct cm_timer timer;         /* one may be set at any time */
};

/* What the user does, all of it in the server's thread. A caller that has been
 * parted with may still be named by an event of the same round. */
struct cm_server_trade {
    const char *name; /* "command hook", for the log */
    /* fd is taken over; NULL: not admitted. */
    struct cm_caller *(*on_caller)(void *arg, int fd);
    void (*on_event)(void *arg, void *watched, uint32_t events);
    void (*on_timer)(void *arg, struct cm_caller *caller);
    void (*on_wake)(void *arg); /* a clerk, or cm_server_wake */
    /* The server ends: close what the caller has open, and part with it. */
    void (*on_end)(void *arg, struct cm_caller *caller);
};

struct cm_server {
    struct cm_unix_socket socket;
    int listen_fd, wake_fd, epoll_fd;
    struct cm_server_opts opts; /* its texts are not kept */
    const struct cm_server_trade *trade;
    void *arg;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    struct cm_timers timers;
    struct cm_timer accept_timer; /* set while there are no descriptors */
    struct cm_clerks *clerks;
    struct cm_caller *callers, *graveyard;
    size_t ncallers;
};

/* cm_server_open - make the socket, with the rights that takes. opts: borrowed
 * for the call. CM_OK; CM_ECONFLICT: another process listens there; CM_EINVAL,
 * CM_EIO. cm_server_fini may be called either way. */
enum cm_status cm_server_open(struct cm_server *server_r,
                              const struct cm_server_opts *opts,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_server_start - begin to accept. trade and arg outlive the server. CM_OK,
 * CM_ENOMEM, CM_EIO. */
enum cm_status cm_server_start(struct cm_server *server,
                               const struct cm_server_trade *trade, void *arg,
                               struct cm_err *err) CM_MUST_CHECK;

/* cm_server_wake - have on_wake called. Thread-safe; to no effect before
 * cm_server_start. */
void cm_server_wake(struct cm_server *server);

/* cm_server_remove - take the socket's name away. */
void cm_server_remove(struct cm_server *server);

/* cm_server_end - end the thread and its callers (on_end), wait for the
 * clerks; what was given to them is then to be taken. cm_server_fini - after
 * that, the rest. */
void cm_server_end(struct cm_server *server);
void cm_server_fini(struct cm_server *server);

/* --- for the user, in the server's thread --- */

/* cm_server_watch - have on_event called with watched for these events of fd,
 * and always for its end; cm_server_rewatch - for others from now on. Closing
 * fd ends it. false when out of memory. */
bool cm_server_watch(struct cm_server *server, int fd, uint32_t events,
                     void *watched);
void cm_server_rewatch(struct cm_server *server, int fd, uint32_t events,
                       void *watched);

/* cm_server_alarm - have on_timer called, once, in so many microseconds;
 * cm_server_calm - or not, also when none is set. */
void cm_server_alarm(struct cm_server *server, struct cm_caller *caller,
                     int64_t in_us);
void cm_server_calm(struct cm_server *server, struct cm_caller *caller);

/* cm_server_part - the caller is gone; freed when the round is over. */
void cm_server_part(struct cm_server *server, struct cm_caller *caller);

#endif
