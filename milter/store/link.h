/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LINK_H
#define CM_LINK_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redisReply; /* hiredis's; only files of this room look inside */

/*
 * One connection to Redis, with what hiredis 0.14 lacks: a deadline over the
 * whole exchange (its SO_RCVTIMEO counts per read), a ceiling on what a reply
 * may hold, and answers sorted into an enum. After any failure the connection
 * is gone for good: late bytes of an old answer are never read as a new one.
 * Not thread-safe: one thread at a time.
 */
struct cm_link_opts {
    const char
        *address; /* "unix:/path" or "tcp:host:port" ("tcp:[::1]:6379") */
    const char *username; /* NULL or "": the default user */
    const char *password; /* NULL or "": no AUTH; never logged */
    int database;         /* >= 0 */
    int connect_timeout_ms;
    int command_timeout_ms;
    const char *client_name; /* shown by CLIENT LIST; NULL: none */
};

/* What Redis said, sorted once; callers switch on this, never on text. */
enum cm_redis_class {
    CM_REDIS_OK,
    CM_REDIS_GONE,     /* no connection, broken, or no answer in time */
    CM_REDIS_LATER,    /* LOADING, BUSY, MASTERDOWN, TRYAGAIN, CLUSTERDOWN,
                          NOREPLICAS, MISCONF, OOM: refused for now */
    CM_REDIS_READONLY, /* a replica, or a failover: find the master again */
    CM_REDIS_DENIED,   /* NOAUTH, WRONGPASS, NOPERM */
    CM_REDIS_NOSCRIPT,
    CM_REDIS_MOVED, /* MOVED, ASK */
    CM_REDIS_WRONGTYPE,
    CM_REDIS_CONFLICT, /* our own scripts: another revision is there */
    CM_REDIS_INVALID,  /* our own scripts: name or document is not valid */
    CM_REDIS_REFUSED   /* any other error: our own command was wrong */
};

struct cm_link;

/*
 * cm_link_open - connect, AUTH, SELECT, CLIENT SETNAME and PING within the
 * connect timeout plus the command timeout, name resolution included. CM_OK,
 * CM_EINVAL (address), CM_EIO, CM_ETIMEOUT, CM_EPROTO (Redis refused: wrong
 * password, still loading), CM_ENOMEM.
 */
enum cm_status cm_link_open(struct cm_link **link_r,
                            const struct cm_link_opts *opts,
                            struct cm_err *err) CM_MUST_CHECK;
/* cm_link_open_within - the same under another time limit, and with the
 * interrupt of cm_link_interrupt_fd in force from the start (-1: none). */
enum cm_status cm_link_open_within(struct cm_link **link_r,
                                   const struct cm_link_opts *opts,
                                   int timeout_ms, int interrupt_fd,
                                   struct cm_err *err) CM_MUST_CHECK;
void cm_link_close(struct cm_link **link);

/* cm_link_check_address - the address's syntax alone, for settings. */
enum cm_status cm_link_check_address(const char *address,
                                     struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_link_command - send one command and wait for its reply.
 *
 * argc, argv, lens  arguments, binary-safe; lens NULL: strings
 * timeout_ms        over the whole exchange; 0: the command timeout
 * reply_r           out on CM_OK: free with cm_link_reply_free; never an error
 *                   reply at top level
 *
 * CM_OK; CM_EPROTO with *class_r telling what kind of error reply it was (the
 * link lives on); CM_EIO, CM_ETIMEOUT (*class_r is CM_REDIS_GONE and the link
 * is dead: every later command fails at once). class_r may be NULL.
 */
enum cm_status cm_link_command(struct cm_link *link,
                               struct redisReply **reply_r, int argc,
                               const char *const *argv, const size_t *lens,
                               int timeout_ms, enum cm_redis_class *class_r,
                               struct cm_err *err) CM_MUST_CHECK;

/* Pipelining: append any number, then collect as many replies, in order. An
 * error reply is returned as a reply here (CM_OK); cm_link_reply_class sorts
 * it. */
enum cm_status cm_link_append(struct cm_link *link, int argc,
                              const char *const *argv, const size_t *lens,
                              struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_link_collect(struct cm_link *link,
                               struct redisReply **reply_r, int timeout_ms,
                               struct cm_err *err) CM_MUST_CHECK;

enum cm_redis_class cm_link_reply_class(const struct redisReply *reply);
void cm_link_reply_free(struct redisReply **reply);

/* cm_link_alive - false after the first failure. */
bool cm_link_alive(const struct cm_link *link);
/* cm_link_quiet - alive, and the server has neither hung up nor said anything
 * that nobody asked for: fit to be used after a rest. */
bool cm_link_quiet(const struct cm_link *link);

/* Link options that somebody keeps. dup: *copy is overwritten; CM_ENOMEM leaves
 * nothing to free. fini wipes the password. */
enum cm_status cm_link_opts_dup(struct cm_link_opts *copy,
                                const struct cm_link_opts *opts) CM_MUST_CHECK;
void cm_link_opts_fini(struct cm_link_opts *copy);

/* cm_link_interrupt_fd - when this descriptor becomes readable, a command that
 * waits ends with CM_EIO (for a prompt stop). -1: none. Borrowed. */
void cm_link_interrupt_fd(struct cm_link *link, int fd);

#endif
