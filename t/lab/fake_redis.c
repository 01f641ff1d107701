/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/lab/fake_redis.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool
put(struct fake_redis *fake, int fd, const char *data, size_t len)
{
    while (len > 0 && !fake->stop) {
        struct pollfd out = {.fd = fd, .events = POLLOUT};
        if (poll(&out, 1, 100) == 0)
            continue;
        size_t piece = fake->pause_ms > 0 ? 1 : len;
        ssize_t n = send(fd, data, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0)
            return false;
        fake->sent += (size_t)n;
        data += n;
        len -= (size_t)n;
        if (fake->pause_ms > 0)
            usleep((useconds_t)fake->pause_ms * 1000);
    }
    return !fake->stop;
}

static void
serve(struct fake_redis *fake, int fd)
{
    char in[65536];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (fake->stop)
            return;
        if (poll(&p, 1, 50) == 0)
            continue;
        ssize_t n = read(fd, in, sizeof in - 1);
        if (n <= 0)
            return;
        in[n] = '\0';
        if (strstr(in, "\r\nPING\r\n")) {
            if (send(fd, "+PONG\r\n", 7, MSG_NOSIGNAL) != 7)
                return;
            continue;
        }
        do {
            if (!put(fake, fd, fake->say, fake->say_len))
                return;
        } while (fake->endless);
        if (fake->hang_up)
            return;
    }
}

static void *
fake_main(void *arg)
{
    struct fake_redis *fake = arg;
    while (!fake->stop) {
        struct pollfd p = {.fd = fake->listen_fd, .events = POLLIN};
        if (poll(&p, 1, 50) == 0)
            continue;
        int fd = accept(fake->listen_fd, NULL, NULL);
        if (fd < 0)
            continue;
        serve(fake, fd);
        close(fd);
    }
    return NULL;
}

void
fake_redis_start(struct fake_redis *fake)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(fake->path, sizeof fake->path, "/tmp/chaosmilter-fake.%ld",
             (long)getpid());
    snprintf(fake->address, sizeof fake->address, "unix:%s", fake->path);
    memcpy(addr.sun_path, fake->path, strlen(fake->path) + 1);
    unlink(fake->path);
    fake->stop = false;
    fake->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fake->listen_fd >= 0);
    assert_int_equal(
        bind(fake->listen_fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fake->listen_fd, 8), 0);
    assert_int_equal(pthread_create(&fake->thread, NULL, fake_main, fake), 0);
}

void
fake_redis_end(struct fake_redis *fake)
{
    fake->stop = true;
    pthread_join(fake->thread, NULL);
    close(fake->listen_fd);
    unlink(fake->path);
}
