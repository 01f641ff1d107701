/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocks of client addresses, the trie that finds them, and the client. */
#include "milter/model/cidr.h"
#include "milter/model/cidr_trie.h"
#include "milter/model/coin.h"
#include "milter/model/event.h"
#include "t/unit/failing_alloc.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static const struct {
    const char *name, *text;
    int family; /* 0: refused */
    unsigned bits;
} blocks[] = {
    {"block", "192.0.2.0/24", AF_INET, 24},
    {"host", "192.0.2.1", AF_INET, 32},
    {"all of IPv4", "0.0.0.0/0", AF_INET, 0},
    {"odd prefix", "10.128.0.0/9", AF_INET, 9},
    {"IPv6 block", "2001:db8::/32", AF_INET6, 32},
    {"IPv6 host", "2001:db8::1", AF_INET6, 128},
    {"all of IPv6", "::/0", AF_INET6, 0},
    {"mapped host is IPv4", "::ffff:192.0.2.1", AF_INET, 32},
    {"mapped block is IPv4", "::ffff:192.0.2.0/120", AF_INET, 24},
    {"host bits", "192.0.2.1/24", 0, 0},
    {"host bits within a byte", "10.64.0.0/9", 0, 0},
    {"IPv6 host bits", "2001:db8::1/64", 0, 0},
    {"prefix too long", "192.0.2.0/33", 0, 0},
    {"IPv6 prefix too long", "::/129", 0, 0},
    {"no prefix after the slash", "192.0.2.0/", 0, 0},
    {"signed prefix", "192.0.2.0/+8", 0, 0},
    {"two slashes", "192.0.2.0/24/8", 0, 0},
    {"space", "192.0.2.0/24 ", 0, 0},
    {"three bytes", "192.0.2/24", 0, 0},
    {"leading zeros", "192.0.02.0/24", 0, 0},
    {"name", "localhost", 0, 0},
    {"empty", "", 0, 0},
    {"zone", "fe80::1%eth0", 0, 0},
    {"far too long",
     "1111111111111111111111111111111111111111111111111111111111111111111", 0,
     0},
};

static void
test_cidr_parse_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        struct cm_cidr cidr = {0};
        struct cm_err err = {.msg = ""};
        enum cm_status status = cm_cidr_parse(&cidr, blocks[i].text, &err);
        bool good = blocks[i].family != 0;
        if (status != (good ? CM_OK : CM_EINVAL) ||
            cidr.family != blocks[i].family || cidr.bits != blocks[i].bits ||
            good == (*err.msg != '\0'))
            fail_msg("%s: family %d bits %u %s", blocks[i].name, cidr.family,
                     cidr.bits, err.msg);
    }
}

static struct cm_cidr
block(const char *text)
{
    struct cm_cidr cidr;
    struct cm_err err;
    if (cm_cidr_parse(&cidr, text, &err) != CM_OK)
        fail_msg("%s: %s", text, err.msg);
    return cidr;
}

static void
test_cidr_contains_at_the_borders(void **state)
{
    static const struct {
        const char *block, *host;
        bool in;
    } cases[] = {
        {"192.0.2.0/24", "192.0.2.0", true},
        {"192.0.2.0/24", "192.0.2.255", true},
        {"192.0.2.0/24", "192.0.3.0", false},
        {"10.128.0.0/9", "10.127.255.255", false},
        {"10.128.0.0/9", "10.128.0.0", true},
        {"0.0.0.0/0", "255.255.255.255", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "1.2.3.4", false},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.0", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_cidr outer = block(cases[i].block);
        struct cm_cidr host = block(cases[i].host);
        if (cm_cidr_contains(&outer, host.family, host.addr) != cases[i].in)
            fail_msg("%s in %s", cases[i].host, cases[i].block);
    }
}

/* The numbers of the blocks around a host, widest first: "3 1". */
static void
lookup(const struct cm_cidr_trie *trie, const char *host, char out[64])
{
    struct cm_cidr h = block(host);
    size_t at = cm_cidr_trie_first(trie, h.family, h.addr), n = 0;
    out[0] = '\0';
    for (; at != CM_CIDR_TRIE_NONE; at = cm_cidr_trie_next(trie, at, h.addr))
        n += (size_t)snprintf(out + n, 64 - n, "%s%zu", n > 0 ? " " : "",
                              cm_cidr_trie_value(trie, at));
}

static void
test_cidr_trie_finds_nested_blocks_widest_first(void **state)
{
    static const char *const in[] = {
        "10.1.2.3", "10.0.0.0/8",  "10.1.0.0/16", "0.0.0.0/0", "10.1.2.0/24",
        "::/0",     "2001:db8::1", "10.1.2.3",    "10.1.2.2",
    };
    static const struct {
        const char *host, *found;
    } cases[] = {
        {"10.1.2.3", "3 1 2 4 0"}, {"10.1.2.2", "3 1 2 4 8"},
        {"10.1.2.4", "3 1 2 4"},   {"10.1.3.3", "3 1 2"},
        {"10.2.2.3", "3 1"},       {"11.1.2.3", "3"},
        {"2001:db8::1", "5 6"},    {"2001:db8::2", "5"},
    };
    struct cm_cidr_trie trie;
    (void)state;
    assert_int_equal(cm_cidr_trie_init(&trie, 9), CM_OK);
    for (size_t i = 0; i < 9; i++) {
        struct cm_cidr b = block(in[i]);
        size_t *value = cm_cidr_trie_insert(&trie, &b);
        if (i == 7)
            assert_int_equal(*value, 0); /* there already */
        else
            assert_int_equal(*value, CM_CIDR_TRIE_NONE);
        if (*value == CM_CIDR_TRIE_NONE)
            *value = i;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char found[64];
        lookup(&trie, cases[i].host, found);
        if (strcmp(found, cases[i].found) != 0)
            fail_msg("%s: %s", cases[i].host, found);
    }
    assert_int_equal(cm_cidr_trie_first(&trie, AF_UNIX, (uint8_t[16]){0}),
                     CM_CIDR_TRIE_NONE);
    cm_cidr_trie_fini(&trie);
}

/* Against a walk over all blocks, with many forks and shared prefixes. */
static void
test_cidr_trie_agrees_with_walking(void **state)
{
    enum { N = 500 };
    static struct cm_cidr all[N];
    struct cm_cidr_trie trie;
    struct cm_coin coin;
    (void)state;
    cm_coin_init(&coin, 5, 6);
    assert_int_equal(cm_cidr_trie_init(&trie, N), CM_OK);
    for (size_t i = 0; i < N; i++) {
        char text[64];
        unsigned bits = (unsigned)cm_coin_between(cm_coin_draw(&coin), 0, 32);
        uint32_t net = (uint32_t)cm_coin_draw(&coin) & 0x03030303u;
        net = bits ? net & ~(uint32_t)((1ull << (32 - bits)) - 1) : 0;
        snprintf(text, sizeof text, "%u.%u.%u.%u/%u", net >> 24,
                 net >> 16 & 255, net >> 8 & 255, net & 255, bits);
        all[i] = block(text);
        *cm_cidr_trie_insert(&trie, &all[i]) = all[i].bits;
    }
    for (int k = 0; k < 5000; k++) {
        uint8_t host[16] = {0};
        uint32_t draw = htonl((uint32_t)cm_coin_draw(&coin) & 0x03030303u);
        unsigned walked[33] = {0}, found[33] = {0};
        memcpy(host, &draw, 4);
        for (size_t i = 0; i < N; i++)
            walked[all[i].bits] |= cm_cidr_contains(&all[i], AF_INET, host);
        size_t at = cm_cidr_trie_first(&trie, AF_INET, host);
        for (; at != CM_CIDR_TRIE_NONE; at = cm_cidr_trie_next(&trie, at, host))
            found[cm_cidr_trie_value(&trie, at)]++;
        assert_memory_equal(walked, found, sizeof walked);
    }
    cm_cidr_trie_fini(&trie);
}

static void
test_cidr_trie_init_without_memory(void **state)
{
    struct cm_cidr_trie trie;
    (void)state;
    failing_alloc_arm(1);
    enum cm_status status = cm_cidr_trie_init(&trie, 3);
    failing_alloc_disarm();
    assert_int_equal(status, CM_ENOMEM);
    cm_cidr_trie_fini(&trie);
    assert_int_equal(cm_cidr_trie_init(&trie, 0), CM_OK);
    cm_cidr_trie_fini(&trie);
}

static void
test_client_from_sockaddr_and_print(void **state)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(1234)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(99)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct cm_client client;
    char text[46];
    (void)state;
    inet_pton(AF_INET, "192.0.2.9", &in.sin_addr);
    cm_client_from_sockaddr(&client, (struct sockaddr *)&in);
    cm_client_print(&client, text, sizeof text);
    assert_string_equal(text, "192.0.2.9");
    assert_int_equal(client.port, 1234);

    inet_pton(AF_INET6, "2001:db8::1", &in6.sin6_addr);
    cm_client_from_sockaddr(&client, (struct sockaddr *)&in6);
    cm_client_print(&client, text, sizeof text);
    assert_string_equal(text, "2001:db8::1");
    assert_int_equal(client.port, 99);

    inet_pton(AF_INET6, "::ffff:192.0.2.9", &in6.sin6_addr);
    cm_client_from_sockaddr(&client, (struct sockaddr *)&in6);
    assert_int_equal(client.family, AF_INET);
    cm_client_print(&client, text, sizeof text);
    assert_string_equal(text, "192.0.2.9");

    cm_client_from_sockaddr(&client, (struct sockaddr *)&un);
    assert_int_equal(client.family, 0);
    cm_client_from_sockaddr(&client, NULL);
    cm_client_print(&client, text, sizeof text);
    assert_string_equal(text, "unknown");
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cidr_parse_table),
        cmocka_unit_test(test_cidr_contains_at_the_borders),
        cmocka_unit_test(test_cidr_trie_finds_nested_blocks_widest_first),
        cmocka_unit_test(test_cidr_trie_agrees_with_walking),
        cmocka_unit_test(test_cidr_trie_init_without_memory),
        cmocka_unit_test(test_client_from_sockaddr_and_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
