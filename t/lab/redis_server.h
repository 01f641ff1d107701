/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef REDIS_SERVER_H
#define REDIS_SERVER_H

#include "milter/store/link.h"

#include <stdbool.h>
#include <sys/types.h>

/*
 * A real redis-server of the test's own: on a unix socket in a new directory,
 * without a TCP port, dead when the test is. Every function fails the test when
 * it cannot do its work.
 */
struct redis_server {
    char dir[64];
    char socket[80];
    char address[96]; /* for cm_link_opts */
    pid_t pid;        /* 0: not running */
};

void redis_server_start(struct redis_server *server); /* new directory */
void redis_server_again(struct redis_server *server); /* same one, after kill */
void redis_server_kill(struct redis_server *server);  /* SIGKILL */
void redis_server_freeze(struct redis_server *server);
void redis_server_thaw(struct redis_server *server);
void redis_server_end(struct redis_server *server); /* kill, remove directory */

struct cm_link_opts redis_server_opts(const struct redis_server *server);

/* redis_say - one command, arguments up to a NULL; its reply. The last one's
 * reply is freed by the next call. try: CM_REDIS_OK or what kind of error. */
const struct redisReply *redis_say(const struct redis_server *server, ...)
    __attribute__((sentinel));
enum cm_redis_class redis_try(const struct redis_server *server, ...)
    __attribute__((sentinel));
void redis_say_done(void); /* free the last reply */

/* redis_cli - what `redis-cli -s SOCKET <args>` prints, without the last line
 * end; args as a shell would read them. Free it. */
char *redis_cli(const struct redis_server *server, const char *args);

/* Polls once a millisecond. */
#define WAIT_UNTIL(condition, ms)                                              \
    do {                                                                       \
        int64_t until_ = cm_clock_mono_ms() + (ms);                            \
        while (!(condition)) {                                                 \
            if (cm_clock_mono_ms() >= until_)                                  \
                fail_msg("not within %d ms: %s", (int)(ms), #condition);       \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

#endif
