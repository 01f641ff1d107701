/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FAKE_REDIS_H
#define FAKE_REDIS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <pthread.h>

/*
 * A server that answers PING like Redis, and every other command with the bytes
 * it was told, which need not be a reply at all. One connection at a time.
 */
struct fake_redis {
    char path[64], address[72];
    const char *say; /* what it says to anything but PING */
    size_t say_len;
    bool endless; /* says it again and again until the peer hangs up */
    int pause_ms; /* between single bytes; 0: all at once */
    bool hang_up; /* afterwards */
    int listen_fd;
    pthread_t thread;
    atomic_bool stop;
    atomic_size_t sent; /* bytes */
};

void fake_redis_start(struct fake_redis *fake);
void fake_redis_end(struct fake_redis *fake);

#endif
