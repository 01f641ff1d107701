/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the page of metrics does when descriptors are short. The rest is tried
 * on the daemon itself, by t/lab/test_metrics.py.
 */
#include "milter/filter/scrape.h"
#include "milter/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FIRST_PORT 20000 /* below those that the kernel gives out by itself */
#define PORTS      10000
/* More than the page's table, or poll() would refuse it. */
#define DESCRIPTORS 64

static void
print_page(void *arg, struct cm_buf *buf)
{
    (void)arg;
    cm_buf_puts(buf, "a 1\n");
}

/* On a port that is free. */
static struct cm_scrape *
start(int *port_r)
{
    struct cm_scrape *scrape = NULL;
    struct cm_err err;
    char address[32];
    for (int i = 0; i < PORTS && !scrape; i++) {
        *port_r = FIRST_PORT + (int)((getpid() + i) % PORTS);
        snprintf(address, sizeof address, "127.0.0.1:%d", *port_r);
        enum cm_status status = cm_scrape_open(&scrape, address, &err);
        if (status != CM_OK)
            assert_int_equal(status, CM_EIO);
    }
    assert_non_null(scrape);
    assert_int_equal(cm_scrape_start(scrape, print_page, NULL, &err), CM_OK);
    return scrape;
}

static int64_t
cpu_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void
test_without_descriptors_it_waits_and_does_not_spin(void **state)
{
    static const char get[] =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct rlimit limit, none;
    char answer[512];
    int port, taken[DESCRIPTORS];
    size_t ntaken = 0;
    (void)state;
    struct cm_scrape *scrape = start(&port);
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = DESCRIPTORS;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (ntaken < DESCRIPTORS && (taken[ntaken] = dup(fd)) >= 0)
        ntaken++;
    int64_t before_ms = cpu_ms();
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(send(fd, get, sizeof get - 1, 0), sizeof get - 1);
    usleep(500000);
    int64_t spent_ms = cpu_ms() - before_ms;
    while (ntaken > 0)
        close(taken[--ntaken]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_in_range(spent_ms, 0, 100);
    ssize_t n = recv(fd, answer, sizeof answer - 1, 0);
    assert_true(n > 12);
    assert_memory_equal(answer, "HTTP/1.1 200", 12);
    close(fd);
    cm_scrape_close(&scrape);
    assert_null(scrape);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_descriptors_it_waits_and_does_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
