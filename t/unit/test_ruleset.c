/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index must find what a walk over all rules finds, in the same order, and
 * must not look at more of them when there are more. cm_rule_matches is wrapped
 * (ld --wrap) to count the looks.
 */
#include "milter/model/address.h"
#include "milter/model/coin.h"
#include "milter/model/event.h"
#include "milter/model/rule_json.h"
#include "milter/model/ruleset.h"
#include "t/unit/failing_alloc.h"

#include <arpa/inet.h>
#include <jansson.h>
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
#include <time.h>

enum cm_verity __real_cm_rule_matches(const struct cm_rule *rule,
                                      const struct cm_event *event);
enum cm_verity __wrap_cm_rule_matches(const struct cm_rule *rule,
                                      const struct cm_event *event);
static unsigned long looks;

enum cm_verity
__wrap_cm_rule_matches(const struct cm_rule *rule, const struct cm_event *event)
{
    looks++;
    return __real_cm_rule_matches(rule, event);
}

/* --- rules and events from texts --- */

static void
compile(struct cm_rule *rule, size_t i, const char *doc)
{
    struct cm_problems problems;
    char id[24];
    json_t *json = json_loads(doc, 0, NULL);
    snprintf(id, sizeof id, "r%zu", i);
    cm_problems_init(&problems);
    if (!json || cm_rule_compile(rule, id, json, 0, &problems) != CM_OK)
        fail_msg("%s: %s", doc, cm_problems_first(&problems));
    json_decref(json);
}

static struct cm_ruleset *
set_of(const char *const docs[], size_t n)
{
    struct cm_ruleset *set = NULL;
    struct cm_rule *rules = calloc(n, sizeof *rules);
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++)
        compile(&rules[i], i, docs[i]);
    assert_int_equal(cm_ruleset_new(&set, rules, n), CM_OK);
    return set;
}

static struct {
    struct cm_client client;
    struct cm_address sender, recipient, base;
    struct cm_event event;
} it;

static const struct cm_event *
event(enum cm_stage stage, const char *recipient, const char *client)
{
    memset(&it, 0, sizeof it);
    it.event = (struct cm_event){.stage = stage, .size_bytes = -1};
    if (recipient) {
        assert_int_equal(cm_address_parse(&it.recipient, recipient,
                                          strlen(recipient), 0, NULL),
                         CM_OK);
        it.event.recipient = &it.recipient;
        if (cm_address_strip_tag(&it.recipient, "+", &it.base))
            it.event.recipient_base = &it.base;
    }
    if (client) {
        bool v4 = inet_pton(AF_INET, client, it.client.addr) == 1;
        it.client.family = v4 ? AF_INET : AF_INET6;
        assert_true(v4 || inet_pton(AF_INET6, client, it.client.addr) == 1);
        it.event.client = &it.client;
    }
    return &it.event;
}

/* The positions that come out, "0 3 7". */
static void
list(const struct cm_ruleset *set, const struct cm_event *ev, char out[256])
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0;
         (i = cm_ruleset_next(set, ev, i)) < cm_ruleset_count(set); i++)
        n += (size_t)snprintf(out + n, 256 - n, "%s%zu", n > 0 ? " " : "", i);
}

#define ERROR "\"fault\":{\"kind\":\"error\"}}"

static const char *const mixed[] = {
    /* 0 */ "{\"inbox\":\"*@example.com\"," ERROR,
    /* 1 */ "{\"inbox\":\"a@example.com\"," ERROR,
    /* 2 */ "{\"domain\":\"example.com\"," ERROR,
    /* 3 */ "{\"client\":\"192.0.2.0/24\"," ERROR,
    /* 4 */ "{\"client\":\"192.0.2.7\"," ERROR,
    /* 5 */ "{" ERROR,
    /* 6 */ "{\"inbox\":\"a@example.com\",\"client\":\"192.0.2.9\"," ERROR,
    /* 7 */ "{\"inbox\":\"a+t@example.com\"," ERROR,
    /* 8 */ "{\"stage\":\"mail\",\"client\":\"192.0.2.0/24\"," ERROR,
    /* 9 */ "{\"enabled\":false," ERROR,
    /* 10 */ "{\"expiresAt\":\"1970-01-01T00:00:01Z\"," ERROR,
    /* 11 */ "{\"client\":\"2001:db8::/32\"," ERROR,
    /* 12 */ "{\"inbox\":\"a@example.com\"," ERROR,
    /* 13 */ "{\"stage\":\"message\",\"header\":{\"A\":\"b\"}," ERROR,
    /* 14 */ "{\"client\":\"192.0.2.0/24\",\"attempt\":{\"lte\":2}," ERROR,
};
#define NMIXED (sizeof mixed / sizeof *mixed)

static const struct {
    const char *name;
    enum cm_stage stage;
    const char *recipient, *client;
    int64_t now_ms;
    const char *found;
} lookups[] = {
    {"exact, domain, client and the rest, in order", CM_STAGE_RCPT,
     "A@Example.com", "192.0.2.7", 5000, "0 1 2 3 4 5 12"},
    {"another inbox of the domain", CM_STAGE_RCPT, "b@example.com", "192.0.2.8",
     5000, "0 2 3 5"},
    {"tagged: both spellings", CM_STAGE_RCPT, "a+t@example.com", NULL, 5000,
     "0 1 2 5 7 12"},
    {"other tag: the base", CM_STAGE_RCPT, "a+x@example.com", NULL, 5000,
     "0 1 2 5 12"},
    {"both conditions of one rule", CM_STAGE_RCPT, "a@example.com", "192.0.2.9",
     5000, "0 1 2 3 5 6 12"},
    {"nobody known", CM_STAGE_RCPT, NULL, NULL, 5000, "5"},
    {"IPv6", CM_STAGE_RCPT, "x@y", "2001:db8::9", 5000, "5 11"},
    {"before expiry", CM_STAGE_RCPT, "x@y", NULL, 999, "5 10"},
    {"at expiry", CM_STAGE_RCPT, "x@y", NULL, 1000, "5"},
    {"another stage", CM_STAGE_MAIL, NULL, "192.0.2.7", 5000, "8"},
    {"a stage of no rule", CM_STAGE_QUIT, NULL, "192.0.2.7", 5000, ""},
    {"headers not known", CM_STAGE_MESSAGE, "a@example.com", NULL, 5000, ""},
};

static void
test_ruleset_next_table(void **state)
{
    struct cm_ruleset *set = set_of(mixed, NMIXED);
    (void)state;
    for (size_t i = 0; i < sizeof lookups / sizeof *lookups; i++) {
        char found[256];
        event(lookups[i].stage, lookups[i].recipient, lookups[i].client);
        it.event.now_ms = lookups[i].now_ms;
        list(set, &it.event, found);
        if (strcmp(found, lookups[i].found) != 0)
            fail_msg("%s: %s", lookups[i].name, found);
    }
    cm_ruleset_release(&set);
}

static void
test_ruleset_stages_and_headers_of_enabled_rules(void **state)
{
    static const char *const off[] = {
        "{\"enabled\":false,\"stage\":\"message\",\"header\":{\"A\":\"b\"}"
        "," ERROR,
        "{\"stage\":\"helo\"," ERROR,
    };
    struct cm_ruleset *set = set_of(mixed, NMIXED);
    struct cm_ruleset *quiet = set_of(off, 2);
    (void)state;
    assert_int_equal(cm_ruleset_count(set), NMIXED);
    assert_string_equal(cm_ruleset_at(set, 6)->id, "r6");
    assert_int_equal(cm_ruleset_stages(set),
                     CM_STAGE_BIT(CM_STAGE_MAIL) | CM_STAGE_BIT(CM_STAGE_RCPT) |
                         CM_STAGE_BIT(CM_STAGE_MESSAGE));
    assert_true(cm_ruleset_wants_headers(set));
    assert_int_equal(cm_ruleset_stages(quiet), CM_STAGE_BIT(CM_STAGE_HELO));
    assert_false(cm_ruleset_wants_headers(quiet));
    cm_ruleset_release(&quiet);
    cm_ruleset_release(&set);
}

static void
test_ruleset_none_and_empty(void **state)
{
    struct cm_ruleset *set = NULL;
    const struct cm_event *ev = event(CM_STAGE_RCPT, "a@b", NULL);
    (void)state;
    assert_int_equal(cm_ruleset_next(NULL, ev, 0), 0);
    assert_int_equal(cm_ruleset_count(NULL), 0);
    assert_int_equal(cm_ruleset_stages(NULL), 0);
    assert_false(cm_ruleset_wants_headers(NULL));
    assert_false(cm_ruleset_wants_header(NULL, "a"));
    assert_false(cm_ruleset_wants_size(NULL));
    assert_int_equal(cm_ruleset_body_bytes(NULL), 0);
    assert_false(cm_ruleset_asks_attempt(NULL, ev));
    assert_null(cm_ruleset_ref(NULL));
    cm_ruleset_release(&set);
    assert_int_equal(cm_ruleset_new(&set, NULL, 0), CM_OK);
    assert_int_equal(cm_ruleset_next(set, ev, 0), 0);
    assert_false(cm_ruleset_wants_headers(set));
    assert_false(cm_ruleset_asks_attempt(set, ev));
    struct cm_ruleset *again = cm_ruleset_ref(set);
    cm_ruleset_release(&set);
    assert_int_equal(cm_ruleset_count(again), 0);
    cm_ruleset_release(&again);
}

/* --- what must be watched of a message --- */

#define LATE        "{\"stage\":\"message\","
#define MUTATE(how) "\"fault\":{\"kind\":\"mutate\"," how "}}"

static const struct {
    const char *name, *docs[3];
    const char *headers; /* of A, B, C, D those that are wanted */
    bool size;
    int64_t body_bytes;
} watches[] = {
    {"nothing", {"{" ERROR}, "", false, 0},
    {"headers of conditions, without case",
     {LATE "\"header\":{\"A\":\"x\",\"c\":\"y\"}," ERROR,
      LATE "\"header\":{\"C\":\"z\"}," ERROR},
     "AC",
     false,
     0},
    {"a header to drop", {"{" MUTATE("\"dropHeader\":\"b\"")}, "B", false, 0},
    {"of both kinds",
     {LATE "\"header\":{\"d\":\"x\"}," MUTATE("\"dropHeader\":\"B\""),
      "{" MUTATE("\"dropHeader\":\"D\"")},
     "BD",
     false,
     0},
    {"a header to add",
     {"{" MUTATE("\"addHeader\":{\"A\":\"x\"}")},
     "",
     false,
     0},
    {"disabled rules",
     {"{\"enabled\":false,\"stage\":\"message\",\"header\":{\"A\":\"x\"},"
      "\"size\":{\"gte\":1}," ERROR,
      "{\"enabled\":false," MUTATE("\"flipBits\":1")},
     "",
     false,
     0},
    {"the size received", {LATE "\"size\":{\"gte\":1}," ERROR}, "", true, 0},
    {"the size declared",
     {"{\"stage\":\"mail\",\"size\":{\"gte\":1}," ERROR,
      "{\"stage\":\"rcpt\",\"size\":{\"gte\":1}," ERROR,
      "{\"stage\":\"data\",\"size\":{\"gte\":1}," ERROR},
     "",
     false,
     0},
    {"as much as the longest wants",
     {"{" MUTATE("\"truncateBody\":7"), "{" MUTATE("\"truncateBody\":100"),
      "{" MUTATE("\"truncateBody\":0")},
     "",
     false,
     100},
    {"all for flipped bits",
     {"{" MUTATE("\"truncateBody\":7"), "{" MUTATE("\"flipBits\":1")},
     "",
     false,
     INT64_MAX},
    {"an empty body", {"{" MUTATE("\"truncateBody\":0")}, "", false, 0},
    {"in shadow mode conditions still look, nothing is changed",
     {"{\"mode\":\"shadow\",\"header\":{\"A\":\"x\"},\"size\":{\"lte\":9}"
      "," MUTATE("\"flipBits\":1"),
      "{\"mode\":\"shadow\"," MUTATE("\"dropHeader\":\"B\"")},
     "A",
     true,
     0},
    {"steps of a sequence need nothing",
     {LATE "\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 x\","
           "{\"kind\":\"latency\",\"ms\":1},{\"kind\":\"drop\"},"
           "{\"kind\":\"blackhole\"}]}}"},
     "",
     false,
     0},
};

static void
test_ruleset_watch_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof watches / sizeof *watches; i++) {
        static const char *const names[] = {"A", "b", "C", "d"};
        char wanted[5] = "";
        size_t ndocs = 0, n = 0;
        while (ndocs < 3 && watches[i].docs[ndocs])
            ndocs++;
        struct cm_ruleset *set = set_of(watches[i].docs, ndocs);
        for (int k = 0; k < 4; k++)
            if (cm_ruleset_wants_header(set, names[k]))
                wanted[n++] = (char)('A' + k);
        if (strcmp(wanted, watches[i].headers) != 0 ||
            cm_ruleset_wants_headers(set) != (n > 0) ||
            cm_ruleset_wants_size(set) != watches[i].size ||
            cm_ruleset_body_bytes(set) != watches[i].body_bytes)
            fail_msg("%s: %s, %d, %lld", watches[i].name, wanted,
                     cm_ruleset_wants_size(set),
                     (long long)cm_ruleset_body_bytes(set));
        assert_false(cm_ruleset_wants_header(set, ""));
        assert_false(cm_ruleset_wants_header(set, "AA"));
        cm_ruleset_release(&set);
    }
}

static void
test_ruleset_wants_header_among_many(void **state)
{
    enum { RULES = 500 };
    struct cm_rule *rules = calloc(RULES, sizeof *rules);
    struct cm_ruleset *set = NULL;
    (void)state;
    assert_non_null(rules);
    for (size_t i = 0; i < RULES; i++) { /* each name twice, in two cases */
        char doc[128];
        snprintf(doc, sizeof doc, LATE "\"header\":{\"%s-%zu\":\"*\"}," ERROR,
                 i % 2 ? "X" : "x", i / 2 * 7919 % 1000);
        compile(&rules[i], i, doc);
    }
    assert_int_equal(cm_ruleset_new(&set, rules, RULES), CM_OK);
    for (size_t i = 0; i < 1000; i++) {
        char name[16];
        bool there = false;
        for (size_t k = 0; k < RULES / 2; k++)
            there = there || k * 7919 % 1000 == i;
        snprintf(name, sizeof name, "X-%zu", i);
        assert_int_equal(cm_ruleset_wants_header(set, name), there);
    }
    cm_ruleset_release(&set);
}

/* --- attempts --- */

#define ATTEMPT "\"attempt\":{\"lte\":2}," ERROR

static const struct {
    const char *name, *doc;
    bool asks;
} attempts[] = {
    {"a rule for everybody", "{" ATTEMPT, true},
    {"at data", "{\"stage\":\"data\"," ATTEMPT, true},
    {"at the end", "{\"stage\":\"message\"," ATTEMPT, true},
    {"no such condition", "{\"inbox\":\"a@example.com\"," ERROR, false},
    {"disabled", "{\"enabled\":false," ATTEMPT, false},
    {"expired", "{\"expiresAt\":\"1970-01-01T00:00:05Z\"," ATTEMPT, false},
    {"not yet expired", "{\"expiresAt\":\"1970-01-01T00:00:05.001Z\"," ATTEMPT,
     true},
    {"in shadow mode", "{\"mode\":\"shadow\"," ATTEMPT, true},
    {"the inbox", "{\"inbox\":\"a+t@example.com\"," ATTEMPT, true},
    {"the inbox without its tag", "{\"inbox\":\"a@example.com\"," ATTEMPT,
     true},
    {"another inbox", "{\"inbox\":\"b@example.com\"," ATTEMPT, false},
    {"inboxes", "{\"inbox\":\"*@example.com\"," ATTEMPT, true},
    {"other inboxes", "{\"inbox\":\"*@example.org\"," ATTEMPT, false},
    {"the domain", "{\"domain\":\"example.com\"," ATTEMPT, true},
    {"another domain", "{\"domain\":\"example.org\"," ATTEMPT, false},
    {"the client", "{\"client\":\"192.0.2.0/24\"," ATTEMPT, true},
    {"another client", "{\"client\":\"192.0.3.0/24\"," ATTEMPT, false},
    {"the inbox, another client",
     "{\"inbox\":\"a@example.com\",\"client\":\"::1\"," ATTEMPT, false},
    {"the sender", "{\"sender\":\"b@y\"," ATTEMPT, true},
    {"another sender", "{\"sender\":\"c@y\"," ATTEMPT, false},
    {"another greeting", "{\"helo\":\"other\"," ATTEMPT, false},
    {"a login where there was none", "{\"user\":\"u\"," ATTEMPT, true},
    {"a header, not seen yet",
     "{\"stage\":\"message\",\"header\":{\"A\":\"b\"}," ATTEMPT, true},
    {"a size other than the one declared",
     "{\"stage\":\"message\",\"size\":{\"lte\":5}," ATTEMPT, true},
};

/* What the event claims to know beyond RCPT must not count. */
static const struct cm_event *
event_at_rcpt(void)
{
    event(CM_STAGE_RCPT, "a+t@example.com", "192.0.2.7");
    assert_int_equal(cm_address_parse(&it.sender, "b@y", 3, 0, NULL), CM_OK);
    it.event.sender = &it.sender;
    it.event.helo = "mx";
    it.event.now_ms = 5000;
    it.event.size_bytes = 10;
    it.event.attempt = 9;
    it.event.headers_known = true;
    return &it.event;
}

static void
test_ruleset_asks_attempt_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        struct cm_ruleset *set = set_of(&attempts[i].doc, 1);
        if (cm_ruleset_asks_attempt(set, event_at_rcpt()) != attempts[i].asks)
            fail_msg("%s: %d", attempts[i].name, !attempts[i].asks);
        cm_ruleset_release(&set);
    }
}

/* --- against a walk --- */

static const char *
pick(struct cm_coin *coin, const char *const texts[], int n)
{
    return texts[cm_coin_between(cm_coin_draw(coin), 0, n - 1)];
}

/* Rules on the few recipients and clients of random_event. */
static struct cm_ruleset *
random_set(struct cm_coin *coin, size_t n)
{
    static const char *const inboxes[] = {
        "", "\"inbox\":\"a@x.y\",", "\"inbox\":\"b@x.y\",",
        "\"inbox\":\"a+t@x.y\",", "\"inbox\":\"*@x.y\","};
    static const char *const domains[] = {"", "\"domain\":\"x.y\",",
                                          "\"domain\":\"z\","};
    static const char *const clients[] = {
        "", "\"client\":\"10.0.0.0/8\",", "\"client\":\"10.1.0.0/16\",",
        "\"client\":\"10.1.2.3\",", "\"client\":\"::/0\","};
    static const char *const tries[] = {"", "", "", "\"attempt\":{\"gte\":1},"};
    static const char *const stages[] = {"rcpt", "data", "message"};
    struct cm_rule *rules = calloc(n, sizeof *rules);
    struct cm_ruleset *set = NULL;
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        char doc[256];
        snprintf(doc, sizeof doc, "{%s%s%s%s\"stage\":\"%s\"," ERROR,
                 pick(coin, inboxes, 5), pick(coin, domains, 3),
                 pick(coin, clients, 5), pick(coin, tries, 4),
                 pick(coin, stages, 3));
        compile(&rules[i], i, doc);
    }
    assert_int_equal(cm_ruleset_new(&set, rules, n), CM_OK);
    return set;
}

static const struct cm_event *
random_event(struct cm_coin *coin, enum cm_stage stage)
{
    static const char *const to[] = {"a@x.y", "b@x.y", "a+t@x.y", "c+t@z",
                                     "a@q"};
    static const char *const from[] = {"10.1.2.3", "10.1.9.9", "10.9.9.9",
                                       "11.0.0.1", "::1"};
    return event(stage, pick(coin, to, 5), pick(coin, from, 5));
}

static void
test_ruleset_next_agrees_with_walking(void **state)
{
    enum { RULES = 400, EVENTS = 2000 };
    struct cm_coin coin;
    (void)state;
    cm_coin_init(&coin, 7, 8);
    struct cm_ruleset *set = random_set(&coin, RULES);
    for (int k = 0; k < EVENTS; k++) {
        const struct cm_event *ev = random_event(
            &coin, (enum cm_stage)cm_coin_between(
                       cm_coin_draw(&coin), CM_STAGE_RCPT, CM_STAGE_MESSAGE));
        size_t at = 0;
        it.event.attempt = 1;
        for (size_t i = 0; i < RULES; i++) {
            const struct cm_rule *rule = cm_ruleset_at(set, i);
            if (rule->stage != ev->stage ||
                __real_cm_rule_matches(rule, ev) != CM_YES)
                continue;
            at = cm_ruleset_next(set, ev, at);
            assert_int_equal(at, i);
            at++;
        }
        assert_int_equal(cm_ruleset_next(set, ev, at), RULES);
    }
    cm_ruleset_release(&set);
}

static void
test_ruleset_asks_attempt_agrees_with_walking(void **state)
{
    enum { SETS = 100, RULES = 12, EVENTS = 20 };
    struct cm_coin coin;
    int yes = 0;
    (void)state;
    cm_coin_init(&coin, 9, 10);
    for (int s = 0; s < SETS; s++) {
        struct cm_ruleset *set = random_set(&coin, RULES);
        for (int k = 0; k < EVENTS; k++) {
            const struct cm_event *ev = random_event(&coin, CM_STAGE_RCPT);
            bool asks = false;
            for (size_t i = 0; i < RULES; i++) {
                const struct cm_rule *rule = cm_ruleset_at(set, i);
                asks = asks || (rule->match.attempt.given &&
                                __real_cm_rule_matches(rule, ev) != CM_NO);
            }
            assert_int_equal(cm_ruleset_asks_attempt(set, ev), asks);
            yes += asks;
        }
        cm_ruleset_release(&set);
    }
    assert_in_range(yes, SETS * EVENTS / 10, SETS * EVENTS * 9 / 10);
}

/* --- cost --- */

/* n rules of one kind, none of which the event meets but the last of them. */
static struct cm_ruleset *
set_of_kind(size_t n, const char *format)
{
    struct cm_rule *rules = calloc(n, sizeof *rules);
    struct cm_ruleset *set = NULL;
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        char doc[256], digits[32];
        snprintf(digits, sizeof digits, "%zu.%zu", 100 + i / 250, i % 250);
        snprintf(doc, sizeof doc, "{%s%s%s," ERROR, format,
                 i + 1 == n ? "9.9" : digits,
                 strstr(format, "client") ? "\"" : ".example\"");
        compile(&rules[i], i, doc);
    }
    assert_int_equal(cm_ruleset_new(&set, rules, n), CM_OK);
    return set;
}

struct cost {
    unsigned long looks;
    clock_t ticks; /* of the quickest of some rounds: the least disturbed */
};

/* Looks for one attempt among n rules of one kind, half of which ask for it,
 * but not one that the event meets. */
static unsigned long
attempt_looks_among(size_t n, const char *format, const struct cm_event *ev)
{
    struct cm_rule *rules = calloc(n, sizeof *rules);
    struct cm_ruleset *set = NULL;
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        char doc[256], digits[32];
        snprintf(digits, sizeof digits, "%zu.%zu", 100 + i / 250, i % 250);
        snprintf(doc, sizeof doc, "{%s%s%s,%s" ERROR, format,
                 i + 1 == n ? "9.9" : digits,
                 strstr(format, "client") ? "\"" : ".example\"",
                 i % 2 ? "" : "\"attempt\":{\"lte\":2},");
        compile(&rules[i], i, doc);
    }
    assert_int_equal(cm_ruleset_new(&set, rules, n), CM_OK);
    looks = 0;
    assert_false(cm_ruleset_asks_attempt(set, ev));
    cm_ruleset_release(&set);
    return looks;
}

static struct cost
cost_among(size_t n, const char *format, const struct cm_event *ev)
{
    struct cm_ruleset *set = set_of_kind(n, format);
    struct cost cost = {.ticks = 0};
    looks = 0;
    assert_int_equal(cm_ruleset_next(set, ev, 0), n - 1);
    assert_int_equal(cm_ruleset_next(set, ev, n), n);
    cost.looks = looks;
    for (int round = 0; round < 5; round++) {
        clock_t begin = clock();
        for (int i = 0; i < 10000; i++)
            assert_int_equal(cm_ruleset_next(set, ev, 0), n - 1);
        clock_t ticks = clock() - begin;
        if (round == 0 || ticks < cost.ticks)
            cost.ticks = ticks;
    }
    cm_ruleset_release(&set);
    return cost;
}

static void
test_ruleset_next_cost_does_not_grow_with_rules(void **state)
{
    static const struct {
        const char *name, *format, *recipient, *client;
    } kinds[] = {
        {"exact inbox", "\"inbox\":\"u@9.", "u@9.9.9.example", NULL},
        {"domain", "\"domain\":\"d.", "u@d.9.9.example", NULL},
        {"client", "\"client\":\"10.200.", NULL, "10.200.9.9"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct cm_event *ev =
            event(CM_STAGE_RCPT, kinds[i].recipient, kinds[i].client);
        struct cost few = cost_among(10, kinds[i].format, ev);
        struct cost many = cost_among(10000, kinds[i].format, ev);
        if (few.looks != 1 || many.looks != 1)
            fail_msg("%s: %lu looks among 10, %lu among 10,000", kinds[i].name,
                     few.looks, many.looks);
        unsigned long asks = attempt_looks_among(10000, kinds[i].format, ev);
        if (asks != 0)
            fail_msg("%s: %lu looks for an attempt", kinds[i].name, asks);
        /* A walk would take a thousand times as long. */
        if (many.ticks > 20 * (few.ticks + 100))
            fail_msg("%s: %ld ticks among 10, %ld among 10,000", kinds[i].name,
                     (long)few.ticks, (long)many.ticks);
    }
}

static void
test_ruleset_new_without_memory_takes_the_rules_all_the_same(void **state)
{
    enum cm_status status = CM_ENOMEM;
    struct cm_ruleset *set = NULL;
    long n = 1;
    (void)state;
    for (; status != CM_OK; n++) {
        struct cm_rule *rules = calloc(NMIXED, sizeof *rules);
        assert_non_null(rules);
        for (size_t i = 0; i < NMIXED; i++)
            compile(&rules[i], i, mixed[i]);
        failing_alloc_arm(n);
        status = cm_ruleset_new(&set, rules, NMIXED);
        bool failed = failing_alloc_disarm();
        assert_int_equal(status, failed ? CM_ENOMEM : CM_OK);
        if (failed)
            assert_null(set);
    }
    assert_true(n > 5);
    assert_int_equal(cm_ruleset_count(set), NMIXED);
    cm_ruleset_release(&set);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ruleset_next_table),
        cmocka_unit_test(test_ruleset_stages_and_headers_of_enabled_rules),
        cmocka_unit_test(test_ruleset_none_and_empty),
        cmocka_unit_test(test_ruleset_watch_table),
        cmocka_unit_test(test_ruleset_wants_header_among_many),
        cmocka_unit_test(test_ruleset_asks_attempt_table),
        cmocka_unit_test(test_ruleset_next_agrees_with_walking),
        cmocka_unit_test(test_ruleset_asks_attempt_agrees_with_walking),
        cmocka_unit_test(test_ruleset_next_cost_does_not_grow_with_rules),
        cmocka_unit_test(
            test_ruleset_new_without_memory_takes_the_rules_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
