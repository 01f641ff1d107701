/* SPDX-License-Identifier: BSD-2-Clause */
/* What MTAs write into {daemon_addr} and {daemon_port}, and what is made of it:
 * the texts of Postfix 3.7 and Sendmail 8.17, and texts that are neither. */
#include "milter/filter/tuple.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct cm_client
client_of(const char *text, uint16_t port)
{
    struct cm_client client;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_port = htons(port)};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        cm_client_from_sockaddr(&client, (struct sockaddr *)&in);
    else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
        cm_client_from_sockaddr(&client, (struct sockaddr *)&in6);
    else
        cm_client_from_sockaddr(&client, NULL);
    return client;
}

static const struct {
    const char *name, *client, *addr, *port;
    const char *mta; /* as printed; "any"; NULL: refused */
} texts[] = {
    {"IPv4", "192.0.2.9", "192.0.2.1", "25", "192.0.2.1"},
    {"IPv6", "2001:db8::9", "2001:db8::1", "25", "2001:db8::1"},
    {"prefix", "2001:db8::9", "IPv6:2001:db8::1", "25", "2001:db8::1"},
    {"prefix in capitals", "2001:db8::9", "IPV6:2001:DB8::1", "587",
     "2001:db8::1"},
    {"long form", "::1", "IPv6:0:0:0:0:0:0:0:1", "25", "::1"},
    {"longest", "2001:db8::9", "IPv6:2001:0db8:0000:0000:0000:0000:192.0.2.255",
     "65535", "2001:db8::c000:2ff"},
    {"zone", "fe80::9", "fe80::1%eth0", "25", "fe80::1"},
    {"prefix and zone", "fe80::9", "IPv6:fe80::1%2", "25", "fe80::1"},
    {"any IPv4", "192.0.2.9", "0.0.0.0", "25", "any"},
    {"any IPv6", "2001:db8::9", "IPv6:0:0:0:0:0:0:0:0", "25", "any"},
    {"any IPv6, short", "2001:db8::9", "::", "25", "any"},
    {"IPv4 client on [::]", "192.0.2.9", "IPv6:0:0:0:0:0:0:0:0", "25", "any"},
    {"mapped client", "::ffff:192.0.2.9", "192.0.2.1", "25", "192.0.2.1"},
    {"mapped client on [::]", "::ffff:192.0.2.9", "IPv6:::", "25", "any"},
    {"mapped address", "192.0.2.9", "::ffff:192.0.2.1", "25", "192.0.2.1"},
    {"mapped address with prefix", "192.0.2.9", "IPv6:::ffff:192.0.2.1", "25",
     "192.0.2.1"},
    {"mapped any", "192.0.2.9", "::ffff:0.0.0.0", "25", "any"},
    {"no address", "192.0.2.9", NULL, "25", "any"},
    {"no address, IPv6", "2001:db8::9", NULL, "25", "any"},
    {"lowest port", "192.0.2.9", "192.0.2.1", "1", "192.0.2.1"},
    {"port with zeros", "192.0.2.9", "192.0.2.1", "00025", "192.0.2.1"},

    {"no port", "192.0.2.9", "192.0.2.1", NULL, NULL},
    {"empty port", "192.0.2.9", "192.0.2.1", "", NULL},
    {"port 0", "192.0.2.9", "192.0.2.1", "0", NULL},
    {"port too high", "192.0.2.9", "192.0.2.1", "65536", NULL},
    {"port far too high", "192.0.2.9", "192.0.2.1", "4294967321", NULL},
    {"named port", "192.0.2.9", "192.0.2.1", "smtp", NULL},
    {"signed port", "192.0.2.9", "192.0.2.1", "+25", NULL},
    {"negative port", "192.0.2.9", "192.0.2.1", "-25", NULL},
    {"blank before the port", "192.0.2.9", "192.0.2.1", " 25", NULL},
    {"blank after the port", "192.0.2.9", "192.0.2.1", "25 ", NULL},
    {"empty address", "192.0.2.9", "", "25", NULL},
    {"prefix alone", "2001:db8::9", "IPv6:", "25", NULL},
    {"prefix before IPv4", "192.0.2.9", "IPv6:192.0.2.1", "25", NULL},
    {"two prefixes", "2001:db8::9", "IPv6:IPv6:::1", "25", NULL},
    {"brackets", "2001:db8::9", "[2001:db8::1]", "25", NULL},
    {"name", "192.0.2.9", "localhost", "25", NULL},
    {"unix socket", "192.0.2.9", "local:/run/x", "25", NULL},
    {"unknown", "192.0.2.9", "unknown", "25", NULL},
    {"zone of IPv4", "192.0.2.9", "192.0.2.1%eth0", "25", NULL},
    {"short IPv4", "192.0.2.9", "192.0.2", "25", NULL},
    {"blank after the address", "192.0.2.9", "192.0.2.1 ", "25", NULL},
    {"far too long", "192.0.2.9",
     "IPv6:2001:0db8:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:01",
     "25", NULL},
    {"two families", "192.0.2.9", "2001:db8::1", "25", NULL},
    {"two families, other way", "2001:db8::9", "192.0.2.1", "25", NULL},
    {"IPv6 client on 0.0.0.0", "2001:db8::9", "0.0.0.0", "25", NULL},
    {"no TCP client", "-", "192.0.2.1", "25", NULL},
};

static void
test_tuple_make_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct cm_tuple tuple, untouched;
        struct cm_err err = {CM_OK, ""};
        struct cm_client client = client_of(texts[i].client, 40000);
        char text[46] = "any";
        memset(&untouched, 0x5a, sizeof untouched);
        tuple = untouched;
        enum cm_status status =
            cm_tuple_make(&tuple, &client, texts[i].addr, texts[i].port, &err);
        if ((status == CM_OK) != (texts[i].mta != NULL))
            fail_msg("%s: %s", texts[i].name, cm_status_name(status));
        if (!texts[i].mta) {
            assert_int_equal(status, CM_EINVAL);
            assert_true(err.msg[0]);
            assert_memory_equal(&tuple, &untouched, sizeof tuple);
            continue;
        }
        if (!cm_tuple_any_mta(&tuple))
            cm_client_print(&tuple.mta, text, sizeof text);
        if (strcmp(text, texts[i].mta) != 0)
            fail_msg("%s: %s", texts[i].name, text);
        assert_true(cm_tuple_valid(&tuple));
        assert_true(cm_tuple_end_equal(&tuple.client, &client));
        assert_int_equal(tuple.mta.port, strtoul(texts[i].port, NULL, 10));
    }
}

static void
test_tuple_make_client_without_port_is_refused(void **state)
{
    (void)state;
    struct cm_client client = client_of("192.0.2.9", 0);
    struct cm_tuple tuple;
    assert_int_equal(cm_tuple_make(&tuple, &client, "192.0.2.1", "25", NULL),
                     CM_EINVAL);
}

static void
test_tuple_valid_finds_each_fault(void **state)
{
    (void)state;
    struct cm_tuple good = {.client = client_of("192.0.2.9", 40000),
                            .mta = client_of("192.0.2.1", 25)};
    struct cm_tuple bad = good;
    assert_true(cm_tuple_valid(&good));
    bad.client.port = 0;
    assert_false(cm_tuple_valid(&bad));
    bad = good;
    bad.mta.port = 0;
    assert_false(cm_tuple_valid(&bad));
    bad = good;
    bad.mta.family = AF_INET6;
    assert_false(cm_tuple_valid(&bad));
    bad.client.family = bad.mta.family = AF_UNIX;
    assert_false(cm_tuple_valid(&bad));
}

static void
test_tuple_end_equal_looks_at_all(void **state)
{
    (void)state;
    struct cm_client a = client_of("192.0.2.1", 25), b = a;
    assert_true(cm_tuple_end_equal(&a, &b));
    b.addr[12] = 1; /* beyond an IPv4 address: does not count */
    assert_true(cm_tuple_end_equal(&a, &b));
    b = client_of("192.0.2.2", 25);
    assert_false(cm_tuple_end_equal(&a, &b));
    b = client_of("192.0.2.1", 26);
    assert_false(cm_tuple_end_equal(&a, &b));
    a = client_of("2001:db8::1", 25);
    b = client_of("2001:db8::2", 25);
    assert_false(cm_tuple_end_equal(&a, &b));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tuple_make_table),
        cmocka_unit_test(test_tuple_make_client_without_port_is_refused),
        cmocka_unit_test(test_tuple_valid_finds_each_fault),
        cmocka_unit_test(test_tuple_end_equal_looks_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
