/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hiredis is used as a formatter, a parser and two buffers; sockets, waiting
 * and deadlines are ours. Its blocking mode was rejected: its timeout counts
 * per read, so a server that sends a byte a second holds a caller for ever
 * (measured with 0.14.1). It has no ceiling on replies either and aborts when
 * memory runs out, so bytes and elements of a reply are counted here, the
 * latter by stepping in front of the parser's function that makes arrays.
 */
#include "milter/store/link.h"
#include "milter/clock.h"
#include "milter/store/dial.h"
#include "milter/store/redis.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CM_REPLY_BYTES_MAX    ((size_t)64 * 1024 * 1024)
#define CM_REPLY_ELEMENTS_MAX ((size_t)1000000)
#define CM_REPLY_DEPTH_MAX    7   /* as hiredis 0.14 has it; 1.x has no limit */
#define CM_REPLY_TEXT         160 /* bytes of an error reply that we repeat */

struct cm_link {
    redisContext *ctx; /* NULL: dead */
    redisReplyObjectFunctions fn;
    void *(*create_array)(const redisReadTask *, cm_redis_count);
    size_t reply_bytes, reply_elements; /* of the reply being read */
    bool too_large;
    int command_timeout_ms;
    int interrupt_fd;
};

/* --- what Redis says --- */

static const struct {
    const char *word;
    enum cm_redis_class class;
} words[] = {
    {"LOADING", CM_REDIS_LATER},       {"BUSY", CM_REDIS_LATER},
    {"MASTERDOWN", CM_REDIS_LATER},    {"TRYAGAIN", CM_REDIS_LATER},
    {"CLUSTERDOWN", CM_REDIS_LATER},   {"NOREPLICAS", CM_REDIS_LATER},
    {"MISCONF", CM_REDIS_LATER},       {"OOM", CM_REDIS_LATER},
    {"READONLY", CM_REDIS_READONLY},   {"NOAUTH", CM_REDIS_DENIED},
    {"WRONGPASS", CM_REDIS_DENIED},    {"NOPERM", CM_REDIS_DENIED},
    {"NOSCRIPT", CM_REDIS_NOSCRIPT},   {"MOVED", CM_REDIS_MOVED},
    {"ASK", CM_REDIS_MOVED},           {"WRONGTYPE", CM_REDIS_WRONGTYPE},
    {"CMCONFLICT", CM_REDIS_CONFLICT}, {"CMINVALID", CM_REDIS_INVALID},
};

enum cm_redis_class
cm_link_reply_class(const struct redisReply *reply)
{
    if (!reply)
        return CM_REDIS_GONE;
    if (reply->type != REDIS_REPLY_ERROR)
        return CM_REDIS_OK;
    size_t len = 0;
    while (len < reply->len && reply->str[len] != ' ')
        len++;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i].word) == len &&
            memcmp(words[i].word, reply->str, len) == 0)
            return words[i].class;
    return CM_REDIS_REFUSED;
}

void
cm_link_reply_free(struct redisReply **reply)
{
    if (*reply)
        freeReplyObject(*reply);
    *reply = NULL;
}

/* An error reply is text from outside: printable ASCII only, and not all. */
static enum cm_status
refused(const struct redisReply *reply, struct cm_err *err)
{
    char text[CM_REPLY_TEXT + 1];
    size_t n = 0;
    for (; n < reply->len && n < CM_REPLY_TEXT; n++) {
        unsigned char c = (unsigned char)reply->str[n];
        text[n] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    text[n] = '\0';
    return cm_err_set(err, CM_EPROTO, "Redis: %s", text);
}

/* --- the parser's guard --- */

static void *
guarded_array(const redisReadTask *task, cm_redis_count elements)
{
    struct cm_link *link = task->privdata;
    int depth = 0;
    for (const redisReadTask *at = task->parent; at; at = at->parent)
        if (++depth == CM_REPLY_DEPTH_MAX)
            link->too_large = true; /* freeing it would recurse */
    if (link->too_large ||
        (size_t)elements > CM_REPLY_ELEMENTS_MAX - link->reply_elements) {
        link->too_large = true;
        return NULL; /* hiredis takes it for lack of memory and gives up */
    }
    link->reply_elements += (size_t)elements;
    return link->create_array(task, elements);
}

static void
guard(struct cm_link *link)
{
    link->fn = *link->ctx->reader->fn;
    link->create_array = link->fn.createArray;
    link->fn.createArray = guarded_array;
    link->ctx->reader->fn = &link->fn;
    link->ctx->reader->privdata = link;
}

/* --- life and death --- */

static void
kill_link(struct cm_link *link)
{
    if (link->ctx)
        redisFree(link->ctx);
    link->ctx = NULL;
}

static enum cm_status
broken(struct cm_link *link, const char *doing, struct cm_err *err)
{
    enum cm_status st = cm_err_set(err, CM_EIO, "Redis: %s: %s", doing,
                                   link->too_large ? "the reply is too large"
                                                   : link->ctx->errstr);
    kill_link(link);
    return st;
}

void
cm_link_close(struct cm_link **link)
{
    if (!*link)
        return;
    kill_link(*link);
    free(*link);
    *link = NULL;
}

bool
cm_link_alive(const struct cm_link *link)
{
    return link->ctx != NULL;
}

bool
cm_link_quiet(const struct cm_link *link)
{
    if (!link->ctx || link->ctx->reader->pos < link->ctx->reader->len)
        return false;
    struct pollfd fd = {.fd = link->ctx->fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 0;
}

void
cm_link_interrupt_fd(struct cm_link *link, int fd)
{
    link->interrupt_fd = fd;
}

enum cm_status
cm_link_check_address(const char *address, struct cm_err *err)
{
    return cm_dial_check(address, err);
}

/* --- one exchange --- */

/* Sends what waits to be sent, waits, takes in what has come. */
static enum cm_status
pump(struct cm_link *link, int64_t deadline_ms, struct cm_err *err)
{
    int sent = 0;
    if (redisBufferWrite(link->ctx, &sent) != REDIS_OK)
        return broken(link, "write", err);
    short events = POLLIN, ready = 0;
    if (!sent)
        events |= POLLOUT;
    enum cm_status st = cm_dial_wait(link->ctx->fd, events, deadline_ms,
                                     link->interrupt_fd, &ready, err);
    if (st != CM_OK) {
        kill_link(link);
        return st;
    }
    if (ready & ~POLLOUT) {
        size_t before = link->ctx->reader->len;
        if (redisBufferRead(link->ctx) != REDIS_OK)
            return broken(link, "read", err);
        link->reply_bytes += link->ctx->reader->len - before;
        if (link->reply_bytes > CM_REPLY_BYTES_MAX) {
            kill_link(link);
            return cm_err_set(err, CM_EIO, "Redis: the reply is too large");
        }
    }
    return CM_OK;
}

static enum cm_status
collect_until(struct cm_link *link, struct redisReply **reply_r,
              int64_t deadline_ms, struct cm_err *err)
{
    if (!link->ctx)
        return cm_err_set(err, CM_EIO, "Redis: the link is down");
    for (;;) {
        void *reply = NULL;
        if (redisGetReplyFromReader(link->ctx, &reply) != REDIS_OK)
            return broken(link, "reply", err);
        if (reply) {
            link->reply_elements = 0;
            link->reply_bytes = link->ctx->reader->len - link->ctx->reader->pos;
            *reply_r = reply;
            return CM_OK;
        }
        enum cm_status st = pump(link, deadline_ms, err);
        if (st != CM_OK)
            return st;
    }
}

enum cm_status
cm_link_append(struct cm_link *link, int argc, const char *const *argv,
               const size_t *lens, struct cm_err *err)
{
    if (!link->ctx)
        return cm_err_set(err, CM_EIO, "Redis: the link is down");
    /* hiredis forgot the const; it only reads. */
    if (redisAppendCommandArgv(link->ctx, argc, (const char **)argv, lens) !=
        REDIS_OK)
        return broken(link, "command", err);
    return CM_OK;
}

enum cm_status
cm_link_collect(struct cm_link *link, struct redisReply **reply_r,
                int timeout_ms, struct cm_err *err)
{
    int64_t timeout = timeout_ms > 0 ? timeout_ms : link->command_timeout_ms;
    return collect_until(link, reply_r, cm_clock_mono_ms() + timeout, err);
}

static enum cm_status
command_until(struct cm_link *link, struct redisReply **reply_r, int argc,
              const char *const *argv, const size_t *lens, int64_t deadline_ms,
              enum cm_redis_class *class_r, struct cm_err *err)
{
    enum cm_redis_class class = CM_REDIS_GONE;
    struct redisReply *reply = NULL;
    enum cm_status st = cm_link_append(link, argc, argv, lens, err);
    if (st == CM_OK)
        st = collect_until(link, &reply, deadline_ms, err);
    if (st == CM_OK) {
        class = cm_link_reply_class(reply);
        if (class == CM_REDIS_OK) {
            *reply_r = reply;
            reply = NULL;
        } else {
            st = refused(reply, err);
        }
    }
    cm_link_reply_free(&reply);
    if (class_r)
        *class_r = class;
    return st;
}

enum cm_status
cm_link_command(struct cm_link *link, struct redisReply **reply_r, int argc,
                const char *const *argv, const size_t *lens, int timeout_ms,
                enum cm_redis_class *class_r, struct cm_err *err)
{
    int64_t timeout = timeout_ms > 0 ? timeout_ms : link->command_timeout_ms;
    return command_until(link, reply_r, argc, argv, lens,
                         cm_clock_mono_ms() + timeout, class_r, err);
}

/* --- opening --- */

static enum cm_status
ask(struct cm_link *link, int64_t deadline_ms, struct cm_err *err, int argc,
    const char *const *argv)
{
    struct redisReply *reply = NULL;
    enum cm_status st =
        command_until(link, &reply, argc, argv, NULL, deadline_ms, NULL, err);
    cm_link_reply_free(&reply);
    return st;
}

/* A server may repeat a command's arguments in its error reply, so of an AUTH
 * that failed nothing but the error's first word may be shown. */
static enum cm_status
authenticate(struct cm_link *link, const struct cm_link_opts *opts,
             int64_t deadline_ms, struct cm_err *err)
{
    const char *argv[3] = {"AUTH"};
    int argc = 1;
    struct cm_err why = {CM_OK, ""};
    if (opts->username && *opts->username)
        argv[argc++] = opts->username;
    argv[argc++] = opts->password;
    enum cm_status st = ask(link, deadline_ms, &why, argc, argv);
    if (st == CM_EPROTO) {
        char word[24] = "";
        if (sscanf(why.msg, "Redis: %20[A-Z]", word) != 1)
            memcpy(word, "error", sizeof "error");
        return cm_err_set(err, st, "Redis refused the password (%s)", word);
    }
    if (st != CM_OK)
        return cm_err_set(err, st, "%s", why.msg);
    return CM_OK;
}

static enum cm_status
introduce(struct cm_link *link, const struct cm_link_opts *opts,
          int64_t deadline_ms, struct cm_err *err)
{
    enum cm_status st = CM_OK;
    if (opts->password && *opts->password)
        st = authenticate(link, opts, deadline_ms, err);
    if (st == CM_OK && opts->database > 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", opts->database);
        st = ask(link, deadline_ms, err, 2, (const char *[]){"SELECT", number});
    }
    if (st == CM_OK && opts->client_name) {
        st = ask(link, deadline_ms, err, 3,
                 (const char *[]){"CLIENT", "SETNAME", opts->client_name});
        if (st == CM_EPROTO)
            st = CM_OK; /* an ornament, and the user may lack the right */
    }
    if (st == CM_OK)
        st = ask(link, deadline_ms, err, 1, (const char *[]){"PING"});
    return st;
}

enum cm_status
cm_link_open_within(struct cm_link **link_r, const struct cm_link_opts *opts,
                    int timeout_ms, int interrupt_fd, struct cm_err *err)
{
    int64_t now = cm_clock_mono_ms();
    int64_t dial_ms = opts->connect_timeout_ms < timeout_ms
                          ? opts->connect_timeout_ms
                          : timeout_ms;
    int fd = -1;
    enum cm_status st =
        cm_dial(&fd, opts->address, now + dial_ms, interrupt_fd, err);
    if (st != CM_OK)
        return st;
    struct cm_link *link = calloc(1, sizeof *link);
    if (link)
        link->ctx = redisConnectFd(fd);
    if (!link || !link->ctx) {
        close(fd);
        free(link);
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    link->ctx->flags &= ~REDIS_BLOCK; /* EAGAIN is no error to us */
    link->command_timeout_ms = opts->command_timeout_ms;
    link->interrupt_fd = interrupt_fd;
    guard(link);
    st = introduce(link, opts, now + timeout_ms, err);
    if (st != CM_OK)
        cm_link_close(&link);
    *link_r = link;
    return st;
}

enum cm_status
cm_link_open(struct cm_link **link_r, const struct cm_link_opts *opts,
             struct cm_err *err)
{
    return cm_link_open_within(
        link_r, opts, opts->connect_timeout_ms + opts->command_timeout_ms, -1,
        err);
}

/* --- options --- */

static bool
copy_text(const char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

enum cm_status
cm_link_opts_dup(struct cm_link_opts *copy, const struct cm_link_opts *opts)
{
    *copy = *opts;
    copy->address = copy->username = copy->password = copy->client_name = NULL;
    if (copy_text(&copy->address, opts->address) &&
        copy_text(&copy->username, opts->username) &&
        copy_text(&copy->password, opts->password) &&
        copy_text(&copy->client_name, opts->client_name))
        return CM_OK;
    cm_link_opts_fini(copy);
    return CM_ENOMEM;
}

void
cm_link_opts_fini(struct cm_link_opts *copy)
{
    if (copy->password)
        explicit_bzero((char *)copy->password, strlen(copy->password));
    free((char *)copy->address);
    free((char *)copy->username);
    free((char *)copy->password);
    free((char *)copy->client_name);
    memset(copy, 0, sizeof *copy);
}
