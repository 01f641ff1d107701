/* SPDX-License-Identifier: BSD-2-Clause */
/* What a rule's conditions say to an event: yes, no, or nobody knows. */
#include "milter/model/address.h"
#include "milter/model/event.h"
#include "milter/model/rule.h"
#include "milter/model/rule_json.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* An event about which everything is known. */
static struct {
    struct cm_client client;
    struct cm_address sender, recipient, base, null_sender;
    struct cm_header headers[3];
    struct cm_event event;
} world;

static struct cm_address
address(const char *text)
{
    struct cm_address addr;
    struct cm_err err;
    if (cm_address_parse(&addr, text, strlen(text), 0, &err) != CM_OK)
        fail_msg("%s: %s", text, err.msg);
    return addr;
}

static int
setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    world.client.family = AF_INET;
    inet_pton(AF_INET, "192.0.2.7", world.client.addr);
    world.sender = address("Bob@Sender.example");
    world.null_sender = address("<>");
    world.recipient = address("user+tag@example.com");
    world.base = address("user@example.com");
    world.headers[0] = (struct cm_header){"Subject", "Spring Sale"};
    world.headers[1] = (struct cm_header){"X-Campaign", "a"};
    world.headers[2] = (struct cm_header){"x-campaign", "Spring-26"};
    world.event = (struct cm_event){
        .stage = CM_STAGE_MESSAGE,
        .client = &world.client,
        .helo = "MX1.Sender.Example",
        .user = "tester",
        .mechanism = "plain",
        .sender = &world.sender,
        .recipient = &world.recipient,
        .recipient_base = &world.base,
        .headers = world.headers,
        .nheaders = 3,
        .headers_known = true,
        .size_bytes = 1000,
        .attempt = 2,
    };
    return 0;
}

/* A rule of these conditions, wherever a document may put them. */
static struct cm_rule
rule_of(const char *conditions, const char *stage)
{
    struct cm_rule rule;
    struct cm_problems problems;
    json_t *doc = json_loads(conditions, 0, NULL);
    cm_problems_init(&problems);
    assert_non_null(doc);
    if (!json_object_get(doc, "fault"))
        json_object_set_new(doc, "fault", json_pack("{s:s}", "kind", "error"));
    json_object_set_new(doc, "stage", json_string(stage));
    if (cm_rule_compile(&rule, "r1", doc, 0, &problems) != CM_OK)
        fail_msg("%s: %s", conditions, cm_problems_first(&problems));
    json_decref(doc);
    return rule;
}

static const struct {
    const char *name, *stage, *conditions;
    enum cm_verity known;  /* to the full event */
    enum cm_verity nobody; /* to an event that knows nothing */
} cases[] = {
    {"no condition", "message", "{}", CM_YES, CM_YES},
    {"inbox, full address", "rcpt", "{\"inbox\":\"User+Tag@Example.com\"}",
     CM_YES, CM_UNKNOWN},
    {"inbox, without the tag", "rcpt", "{\"inbox\":\"user@example.com\"}",
     CM_YES, CM_UNKNOWN},
    {"inbox, another tag", "rcpt", "{\"inbox\":\"user+x@example.com\"}", CM_NO,
     CM_UNKNOWN},
    {"inbox glob", "rcpt", "{\"inbox\":\"*@EXAMPLE.com\"}", CM_YES, CM_UNKNOWN},
    {"inbox glob on the base", "rcpt", "{\"inbox\":\"us?r@*\"}", CM_YES,
     CM_UNKNOWN},
    {"inbox glob elsewhere", "rcpt", "{\"inbox\":\"*@example.org\"}", CM_NO,
     CM_UNKNOWN},
    {"domain", "rcpt", "{\"domain\":\"Example.COM.\"}", CM_YES, CM_UNKNOWN},
    {"domain is not its child", "rcpt", "{\"domain\":\"com\"}", CM_NO,
     CM_UNKNOWN},
    {"sender", "mail", "{\"sender\":\"bob@sender.example\"}", CM_YES,
     CM_UNKNOWN},
    {"sender glob", "mail", "{\"sender\":\"*@sender.example\"}", CM_YES,
     CM_UNKNOWN},
    {"null sender", "mail", "{\"sender\":\"<>\"}", CM_NO, CM_UNKNOWN},
    {"client block", "mail", "{\"client\":\"192.0.2.0/24\"}", CM_YES,
     CM_UNKNOWN},
    {"client host", "mail", "{\"client\":\"192.0.2.8\"}", CM_NO, CM_UNKNOWN},
    {"client of the other family", "mail", "{\"client\":\"::/0\"}", CM_NO,
     CM_UNKNOWN},
    {"helo, any case", "mail", "{\"helo\":\"mx1.sender.EXAMPLE\"}", CM_YES,
     CM_UNKNOWN},
    {"helo glob", "mail", "{\"helo\":\"MX?.*\"}", CM_YES, CM_UNKNOWN},
    {"user", "mail", "{\"user\":\"tester\"}", CM_YES, CM_UNKNOWN},
    {"user, case counts", "mail", "{\"user\":\"Tester\"}", CM_NO, CM_UNKNOWN},
    {"user glob", "mail", "{\"user\":\"test*\"}", CM_YES, CM_UNKNOWN},
    {"mechanism", "auth", "{\"mechanism\":\"Plain\"}", CM_YES, CM_UNKNOWN},
    {"other mechanism", "auth", "{\"mechanism\":\"LOGIN\"}", CM_NO, CM_UNKNOWN},
    {"header, any of that name, any case", "message",
     "{\"header\":{\"X-CAMPAIGN\":\"SPRING*\"}}", CM_YES, CM_UNKNOWN},
    {"all headers must fit", "message",
     "{\"header\":{\"X-Campaign\":\"spring*\",\"Subject\":\"autumn*\"}}", CM_NO,
     CM_UNKNOWN},
    {"header that is not there", "message", "{\"header\":{\"X-None\":\"*\"}}",
     CM_NO, CM_UNKNOWN},
    {"size within", "message", "{\"size\":{\"gte\":1000,\"lte\":1000}}", CM_YES,
     CM_UNKNOWN},
    {"size above", "message", "{\"size\":{\"gte\":1001}}", CM_NO, CM_UNKNOWN},
    {"attempt within", "rcpt", "{\"attempt\":{\"lte\":2}}", CM_YES, CM_UNKNOWN},
    {"attempt beyond", "rcpt", "{\"attempt\":{\"lte\":1}}", CM_NO, CM_UNKNOWN},
    {"all of several", "rcpt",
     "{\"domain\":\"example.com\",\"sender\":\"*@sender.example\","
     "\"client\":\"192.0.0.0/16\"}",
     CM_YES, CM_UNKNOWN},
    {"one of several fails", "rcpt",
     "{\"domain\":\"example.com\",\"sender\":\"*@other.example\"}", CM_NO,
     CM_UNKNOWN},
};

static void
test_rule_matches_table(void **state)
{
    static const struct cm_event nothing = {.size_bytes = -1};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_rule rule = rule_of(cases[i].conditions, cases[i].stage);
        enum cm_verity known = cm_rule_matches(&rule, &world.event);
        enum cm_verity nobody = cm_rule_matches(&rule, &nothing);
        cm_rule_fini(&rule);
        if (known != cases[i].known || nobody != cases[i].nobody)
            fail_msg("%s: %d, %d", cases[i].name, (int)known, (int)nobody);
    }
}

static void
test_rule_matches_no_beats_unknown(void **state)
{
    struct cm_rule rule =
        rule_of("{\"sender\":\"*@other.example\",\"helo\":\"x\"}", "rcpt");
    (void)state;
    world.event.helo = NULL;
    assert_int_equal(cm_rule_matches(&rule, &world.event), CM_NO);
    world.event.sender = NULL;
    assert_int_equal(cm_rule_matches(&rule, &world.event), CM_UNKNOWN);
    world.event.helo = "y";
    assert_int_equal(cm_rule_matches(&rule, &world.event), CM_NO);
    cm_rule_fini(&rule);
}

/* What is told of it: the first NO, or else the first UNKNOWN. */
static void
test_rule_failing_names_the_condition(void **state)
{
    struct cm_rule rule =
        rule_of("{\"domain\":\"example.com\",\"sender\":\"*@other.example\","
                "\"helo\":\"x\",\"user\":\"tester\"}",
                "rcpt");
    struct cm_rule hide = rule_of(
        "{\"fault\":{\"kind\":\"hide\",\"keywords\":[\"AUTH\"]}}", "helo");
    const char *condition;
    (void)state;
    assert_int_equal(cm_rule_failing(&rule, &world.event, &condition), CM_NO);
    assert_string_equal(condition, "sender");
    world.event.recipient = world.event.recipient_base = NULL;
    world.event.sender = NULL;
    assert_int_equal(cm_rule_failing(&rule, &world.event, &condition), CM_NO);
    assert_string_equal(condition, "helo");
    world.event.helo = "X";
    assert_int_equal(cm_rule_failing(&rule, &world.event, &condition),
                     CM_UNKNOWN);
    assert_string_equal(condition, "domain");
    assert_int_equal(cm_rule_failing(&hide, &world.event, &condition), CM_NO);
    assert_null(condition);
    world.event.keywords = true;
    assert_int_equal(cm_rule_failing(&hide, &world.event, &condition), CM_YES);
    assert_null(condition);
    cm_rule_fini(&rule);
    cm_rule_fini(&hide);
}

static void
test_rule_matches_null_sender_and_no_domain(void **state)
{
    struct cm_rule null_sender = rule_of("{\"sender\":\"<>\"}", "rcpt");
    struct cm_rule everybody = rule_of("{\"sender\":\"*\"}", "rcpt");
    struct cm_rule local = rule_of("{\"inbox\":\"postmaster\"}", "rcpt");
    struct cm_rule domain = rule_of("{\"domain\":\"example.com\"}", "rcpt");
    struct cm_address postmaster = address("<Postmaster>");
    (void)state;
    world.event.sender = &world.null_sender;
    assert_int_equal(cm_rule_matches(&null_sender, &world.event), CM_YES);
    assert_int_equal(cm_rule_matches(&everybody, &world.event), CM_YES);
    world.event.recipient = &postmaster;
    world.event.recipient_base = NULL;
    assert_int_equal(cm_rule_matches(&local, &world.event), CM_YES);
    assert_int_equal(cm_rule_matches(&domain, &world.event), CM_NO);
    cm_rule_fini(&null_sender);
    cm_rule_fini(&everybody);
    cm_rule_fini(&local);
    cm_rule_fini(&domain);
}

/* M17: a client that is not known by address, a header without a value. */
static void
test_rule_matches_half_known_facts(void **state)
{
    struct cm_rule client = rule_of("{\"client\":\"0.0.0.0/0\"}", "mail");
    struct cm_rule header =
        rule_of("{\"header\":{\"Subject\":\"*\"}}", "message");
    (void)state;
    world.client.family = 0;
    assert_int_equal(cm_rule_matches(&client, &world.event), CM_UNKNOWN);
    world.headers[0].value = NULL;
    assert_int_equal(cm_rule_matches(&header, &world.event), CM_NO);
    world.event.nheaders = 0;
    world.event.headers = NULL;
    assert_int_equal(cm_rule_matches(&header, &world.event), CM_NO);
    cm_rule_fini(&client);
    cm_rule_fini(&header);
}

static const struct {
    const char *name, *doc;
    bool for_message;
} turns[] = {
    {"an error", "{\"fault\":{\"kind\":\"error\"}}", true},
    {"a latency", "{\"fault\":{\"kind\":\"latency\",\"ms\":1}}", true},
    {"a drop", "{\"fault\":{\"kind\":\"drop\"}}", true},
    {"a quarantine", "{\"fault\":{\"kind\":\"quarantine\"}}", true},
    {"a mutation", "{\"fault\":{\"kind\":\"mutate\",\"flipBits\":1}}", true},
    {"a sender, a client",
     "{\"sender\":\"b@y\",\"client\":\"::1\",\"fault\":{\"kind\":\"error\"}}",
     true},
    {"an inbox", "{\"inbox\":\"a@x\",\"fault\":{\"kind\":\"error\"}}", false},
    {"inboxes", "{\"inbox\":\"*\",\"fault\":{\"kind\":\"error\"}}", false},
    {"a domain", "{\"domain\":\"x\",\"fault\":{\"kind\":\"error\"}}", false},
    {"an attempt", "{\"attempt\":{\"lte\":2},\"fault\":{\"kind\":\"error\"}}",
     false},
    {"a blackhole", "{\"fault\":{\"kind\":\"blackhole\"}}", false},
    {"a duplicate", "{\"fault\":{\"kind\":\"duplicate\"}}", false},
    {"a misdelivery", "{\"fault\":{\"kind\":\"misdeliver\",\"to\":\"c@z\"}}",
     false},
    {"greylisting", "{\"fault\":{\"kind\":\"greylist\"}}", false},
    {"a bucket per inbox",
     "{\"fault\":{\"kind\":\"throttle\",\"rate\":1,\"per\":\"inbox\"}}", false},
    {"a bucket per domain",
     "{\"fault\":{\"kind\":\"throttle\",\"rate\":1,\"per\":\"domain\"}}",
     false},
    {"a bucket per sender",
     "{\"fault\":{\"kind\":\"throttle\",\"rate\":1,\"per\":\"sender\"}}", true},
    {"a bucket per client",
     "{\"fault\":{\"kind\":\"throttle\",\"rate\":1,\"per\":\"client\"}}", true},
    {"a sequence", "{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 x\"]}}",
     false},
    {"a sequence per client and sender",
     "{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 x\"],"
     "\"key\":[\"client\",\"sender\"]}}",
     true},
};

static void
test_rule_is_for_message_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        struct cm_rule rule = rule_of(turns[i].doc, "message");
        bool for_message = cm_rule_is_for_message(&rule);
        cm_rule_fini(&rule);
        if (for_message != turns[i].for_message)
            fail_msg("%s: %d", turns[i].name, for_message);
    }
}

static void
test_rule_in_force_until_it_expires(void **state)
{
    struct cm_rule rule = {.enabled = true, .expires_at_ms = 1000};
    (void)state;
    assert_true(cm_rule_in_force(&rule, 999));
    assert_false(cm_rule_in_force(&rule, 1000));
    rule.expires_at_ms = CM_RULE_NEVER_EXPIRES;
    assert_true(cm_rule_in_force(&rule, INT64_MAX - 1));
    rule.enabled = false;
    assert_false(cm_rule_in_force(&rule, 0));
}

static void
test_rule_fini_zeroed(void **state)
{
    struct cm_rule rule = {.id = NULL};
    (void)state;
    cm_rule_fini(&rule);
    cm_rule_fini(&rule);
}

int
main(void)
{
#define CASE(fn) cmocka_unit_test_setup(fn, setup)
    static const struct CMUnitTest tests[] = {
        CASE(test_rule_matches_table),
        CASE(test_rule_matches_no_beats_unknown),
        CASE(test_rule_failing_names_the_condition),
        CASE(test_rule_matches_null_sender_and_no_domain),
        CASE(test_rule_matches_half_known_facts),
        CASE(test_rule_is_for_message_table),
        CASE(test_rule_in_force_until_it_expires),
        CASE(test_rule_fini_zeroed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
