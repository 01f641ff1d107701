/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/lab/redis_server.h"
#include "milter/clock.h"
#include "milter/store/redis.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct redisReply *last_reply;

struct cm_link_opts
redis_server_opts(const struct redis_server *server)
{
    return (struct cm_link_opts){.address = server->address,
                                 .connect_timeout_ms = 1000,
                                 .command_timeout_ms = 500,
                                 .client_name = "test"};
}

static bool
answers(const struct redis_server *server)
{
    struct cm_link_opts opts = redis_server_opts(server);
    struct cm_link *link = NULL;
    bool ok = cm_link_open(&link, &opts, NULL) == CM_OK;
    cm_link_close(&link);
    return ok;
}

void
redis_server_again(struct redis_server *server)
{
    char log[96];
    snprintf(log, sizeof log, "%s/log", server->dir);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(fd, 1);
        dup2(fd, 2);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket",
               server->socket, "--dir", server->dir, "--save", "",
               "--appendonly", "no", (char *)NULL);
        _exit(127);
    }
    WAIT_UNTIL(answers(server), 10000);
}

void
redis_server_start(struct redis_server *server)
{
    memset(server, 0, sizeof *server);
    snprintf(server->dir, sizeof server->dir, "/tmp/chaosmilter-redis.XXXXXX");
    assert_non_null(mkdtemp(server->dir));
    snprintf(server->socket, sizeof server->socket, "%s/s", server->dir);
    snprintf(server->address, sizeof server->address, "unix:%s",
             server->socket);
    redis_server_again(server);
}

void
redis_server_kill(struct redis_server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
}

void
redis_server_freeze(struct redis_server *server)
{
    assert_int_equal(kill(server->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(server->pid, NULL, WUNTRACED), server->pid);
}

void
redis_server_thaw(struct redis_server *server)
{
    assert_int_equal(kill(server->pid, SIGCONT), 0);
}

static int
remove_one(const char *path, const struct stat *status, int type,
           struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

void
redis_server_end(struct redis_server *server)
{
    redis_server_kill(server);
    redis_say_done();
    if (*server->dir)
        nftw(server->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    server->dir[0] = '\0';
}

void
redis_say_done(void)
{
    cm_link_reply_free(&last_reply);
}

static enum cm_redis_class
say(const struct redis_server *server, va_list ap, struct cm_err *err)
{
    const char *argv[64];
    int argc = 0;
    while ((argv[argc] = va_arg(ap, const char *)))
        argc++;
    struct cm_link_opts opts = redis_server_opts(server);
    struct cm_link *link = NULL;
    enum cm_redis_class class = CM_REDIS_GONE;
    redis_say_done();
    if (cm_link_open(&link, &opts, err) == CM_OK &&
        cm_link_command(link, &last_reply, argc, argv, NULL, 5000, &class,
                        err) != CM_OK)
        assert_true(class != CM_REDIS_OK);
    cm_link_close(&link);
    return class;
}

const struct redisReply *
redis_say(const struct redis_server *server, ...)
{
    struct cm_err err = {CM_OK, ""};
    va_list ap;
    va_start(ap, server);
    enum cm_redis_class class = say(server, ap, &err);
    va_end(ap);
    if (class != CM_REDIS_OK)
        fail_msg("%s", err.msg);
    return last_reply;
}

enum cm_redis_class
redis_try(const struct redis_server *server, ...)
{
    struct cm_err err = {CM_OK, ""};
    va_list ap;
    va_start(ap, server);
    enum cm_redis_class class = say(server, ap, &err);
    va_end(ap);
    return class;
}

char *
redis_cli(const struct redis_server *server, const char *args)
{
    char command[4096];
    size_t cap = 65536, len = 0, n;
    char *out = malloc(cap);
    assert_non_null(out);
    snprintf(command, sizeof command, "redis-cli -s %s %s 2>&1", server->socket,
             args);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    while (len < cap - 1 && (n = fread(out + len, 1, cap - 1 - len, pipe)) > 0)
        len += n;
    pclose(pipe);
    while (len > 0 && out[len - 1] == '\n')
        len--;
    out[len] = '\0';
    return out;
}
