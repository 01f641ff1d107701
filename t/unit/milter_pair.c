/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/unit/milter_pair.h"
#include "milter/filter/hold.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static const unsigned char progress[] = {0, 0, 0, 1, 'p'};

void
milter_pair_open_unproved(struct milter_pair *pair)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    pair->mta = fds[0];
    pair->milter = fds[1];
}

void
milter_pair_open(struct milter_pair *pair)
{
    milter_pair_open_unproved(pair);
    int fd = milter_pair_command(pair);
    assert_int_equal(fd, pair->milter);
    cm_hold_watch(fd);
    milter_pair_reply(fd, "opts");
    milter_pair_expect(pair, "opts", 1000);
}

void
milter_pair_close(struct milter_pair *pair)
{
    close(pair->milter);
    close(pair->mta);
}

int
milter_pair_command(struct milter_pair *pair)
{
    char c;
    assert_int_equal(send(pair->mta, "x", 1, 0), 1);
    assert_int_equal(read(pair->milter, &c, 1), 1);
    return cm_hold_enter();
}

void
milter_pair_reply(int fd, const char *text)
{
    struct iovec iov[2] = {
        {.iov_base = (char *)text, .iov_len = 1},
        {.iov_base = (char *)text + 1, .iov_len = strlen(text + 1)}};
    assert_int_equal(writev(fd, iov, 2), (ssize_t)strlen(text));
}

/* The next n bytes. */
static void
get(struct milter_pair *pair, void *to, size_t n, int timeout_ms)
{
    struct pollfd p = {.fd = pair->mta, .events = POLLIN};
    char *at = to;
    while (n > 0) {
        assert_int_equal(poll(&p, 1, timeout_ms), 1);
        ssize_t more = recv(pair->mta, at, n, 0);
        assert_true(more > 0);
        at += more;
        n -= (size_t)more;
    }
}

void
milter_pair_expect(struct milter_pair *pair, const char *text, int timeout_ms)
{
    char got[64];
    size_t n = strlen(text);
    assert_true(n <= sizeof got);
    get(pair, got, n, timeout_ms);
    assert_memory_equal(got, text, n);
}

void
milter_pair_expect_silence(struct milter_pair *pair, int ms)
{
    struct pollfd p = {.fd = pair->mta, .events = POLLIN};
    assert_int_equal(poll(&p, 1, ms), 0);
}

size_t
milter_pair_expect_late(struct milter_pair *pair, const char *text,
                        int timeout_ms)
{
    char got[64];
    size_t n = strlen(text), packets = 0;
    assert_in_range(n, 1, sizeof got);
    /* A packet begins with a byte that is in no text. */
    for (get(pair, got, 1, timeout_ms); got[0] == 0;
         get(pair, got, 1, timeout_ms)) {
        get(pair, got + 1, sizeof progress - 1, timeout_ms);
        assert_memory_equal(got, progress, sizeof progress);
        packets++;
    }
    get(pair, got + 1, n - 1, timeout_ms);
    assert_memory_equal(got, text, n);
    return packets;
}
