/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a client is still there, as this host's kernel tells: on loopback,
 * without privileges.
 */
#include "milter/filter/presence.h"
#include "t/lab/tcp_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fixture {
    int listener;
    uint16_t port;
    struct tcp_pair pair;
};

static const enum tcp_kind kinds[] = {TCP_V4, TCP_V6, TCP_MAPPED};
#define KINDS_N (sizeof kinds / sizeof kinds[0])

static void
open_pair(struct fixture *f, enum tcp_kind kind)
{
    f->port = tcp_free_port();
    f->listener = tcp_listen(kind, f->port);
    tcp_connect(&f->pair, f->listener, kind, f->port);
}

static void
close_pair(struct fixture *f)
{
    tcp_close(&f->pair);
    close(f->listener);
}

static void
reset_client(struct fixture *f)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(f->pair.client, SOL_SOCKET, SO_LINGER, &at_once,
                                sizeof at_once),
                     0);
    close(f->pair.client);
    f->pair.client = -1;
}

/* On loopback a segment is there when the call returns; a loaded kernel may
 * need a moment more. */
static void
expect(const struct cm_presence *presence, enum cm_presence_now want)
{
    enum cm_presence_now now = cm_presence_look(presence);
    for (int i = 0; i < 1000 && now != want; i++) {
        usleep(1000);
        now = cm_presence_look(presence);
    }
    assert_int_equal(now, want);
}

static void
test_presence_look_tells_here_from_closed_from_gone(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS_N; i++) {
        struct fixture f;
        struct cm_presence presence;
        open_pair(&f, kinds[i]);
        cm_presence_begin(&presence, &f.pair.tuple);
        assert_true(presence.known);
        assert_int_equal(cm_presence_look(&presence), CM_PRESENCE_HERE);
        assert_int_equal(shutdown(f.pair.client, SHUT_WR), 0);
        expect(&presence, CM_PRESENCE_CLOSED);
        reset_client(&f);
        expect(&presence, CM_PRESENCE_GONE);
        close_pair(&f);
    }
}

static void
test_presence_look_closed_before_the_begin_is_no_news(void **state)
{
    struct fixture f;
    struct cm_presence before, after;
    (void)state;
    open_pair(&f, TCP_V4);
    cm_presence_begin(&before, &f.pair.tuple);
    assert_int_equal(shutdown(f.pair.client, SHUT_WR), 0);
    expect(&before, CM_PRESENCE_CLOSED);
    cm_presence_begin(&after, &f.pair.tuple);
    assert_int_equal(cm_presence_look(&after), CM_PRESENCE_HERE);
    close_pair(&f);
}

/* The cookie tells them apart; the addresses do not. */
static void
test_presence_look_later_connection_of_the_same_name_is_another(void **state)
{
    struct fixture f;
    struct cm_presence first;
    struct tcp_pair second = {-1, -1, {.client.family = 0}};
    (void)state;
    open_pair(&f, TCP_V4);
    cm_presence_begin(&first, &f.pair.tuple);
    tcp_connect(&second, f.listener, TCP_V4, f.port);
    struct cm_presence other = first;
    other.conn.tuple = second.tuple;
    assert_int_equal(cm_presence_look(&other), CM_PRESENCE_GONE);
    assert_int_equal(cm_presence_look(&first), CM_PRESENCE_HERE);
    tcp_close(&second);
    close_pair(&f);
}

static void
test_presence_begin_unknown_connection_is_never_gone(void **state)
{
    struct fixture f;
    struct cm_presence presence;
    (void)state;
    open_pair(&f, TCP_V4);
    cm_presence_begin(&presence, NULL);
    assert_int_equal(cm_presence_look(&presence), CM_PRESENCE_UNKNOWN);

    /* Behind a proxy the MTA names a client that this host has never met. */
    struct cm_tuple proxied = f.pair.tuple;
    proxied.client.addr[3]++;
    cm_presence_begin(&presence, &proxied);
    assert_int_equal(cm_presence_look(&presence), CM_PRESENCE_UNKNOWN);

    struct cm_tuple any_mta = f.pair.tuple;
    memset(any_mta.mta.addr, 0, sizeof any_mta.mta.addr);
    cm_presence_begin(&presence, &any_mta);
    assert_int_equal(cm_presence_look(&presence), CM_PRESENCE_UNKNOWN);
    close_pair(&f);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presence_look_tells_here_from_closed_from_gone),
        cmocka_unit_test(test_presence_look_closed_before_the_begin_is_no_news),
        cmocka_unit_test(
            test_presence_look_later_connection_of_the_same_name_is_another),
        cmocka_unit_test(test_presence_begin_unknown_connection_is_never_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
