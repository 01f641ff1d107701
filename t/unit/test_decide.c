/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decisions: who is asked in what order, when a coin is tossed, and that doubt
 * never hurts.
 */
#include "milter/model/address.h"
#include "milter/model/decide.h"
#include "milter/model/reply.h"
#include "milter/model/localstack_json.h"
#include "milter/model/rule_json.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libcrypto may run out of memory: then there is no coin (ld --wrap). */
static bool no_crypto;

bool __real_cm_coin_seeded(uint64_t seed, const char *rule, const char *sender,
                           const char *recipient, uint64_t occurrence,
                           enum cm_coin_purpose purpose, uint64_t *draw_r);
bool __wrap_cm_coin_seeded(uint64_t seed, const char *rule, const char *sender,
                           const char *recipient, uint64_t occurrence,
                           enum cm_coin_purpose purpose, uint64_t *draw_r);

bool
__wrap_cm_coin_seeded(uint64_t seed, const char *rule, const char *sender,
                      const char *recipient, uint64_t occurrence,
                      enum cm_coin_purpose purpose, uint64_t *draw_r)
{
    return !no_crypto && __real_cm_coin_seeded(seed, rule, sender, recipient,
                                               occurrence, purpose, draw_r);
}

static struct {
    struct cm_address sender, recipient;
    struct cm_event event;
    struct cm_coin coin;
} it;

static int
setup(void **state)
{
    (void)state;
    no_crypto = false;
    memset(&it, 0, sizeof it);
    it.event = (struct cm_event){
        .stage = CM_STAGE_RCPT,
        .now_ms = 1769860800000, /* 2026-01-31T12:00:00Z */
        .sender = &it.sender,
        .recipient = &it.recipient,
        .size_bytes = -1,
    };
    assert_int_equal(cm_address_parse(&it.sender, "b@y", 3, 0, NULL), CM_OK);
    assert_int_equal(cm_address_parse(&it.recipient, "a@x", 3, 0, NULL), CM_OK);
    cm_coin_init(&it.coin, 1, 2);
    return 0;
}

static struct cm_inbox *
inbox_of(const char *doc)
{
    struct cm_inbox *inbox = NULL;
    struct cm_err err;
    if (cm_inbox_compile(&inbox, doc, strlen(doc), &err) != CM_OK)
        fail_msg("%s: %s", doc, err.msg);
    return inbox;
}

/* docs is a JSON array of rules, which get the ids r0, r1, ... */
static struct cm_ruleset *
rules_of(const char *docs)
{
    struct cm_ruleset *set = NULL;
    struct cm_problems problems;
    json_t *list = json_loads(docs, 0, NULL);
    size_t n = json_array_size(list);
    struct cm_rule *rules = calloc(n + 1, sizeof *rules);
    assert_non_null(list);
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        char id[24];
        snprintf(id, sizeof id, "r%zu", i);
        cm_problems_init(&problems);
        if (cm_rule_compile(&rules[i], id, json_array_get(list, i), 0,
                            &problems) != CM_OK)
            fail_msg("rule %zu: %s", i, cm_problems_first(&problems));
    }
    assert_int_equal(cm_ruleset_new(&set, rules, n), CM_OK);
    json_decref(list);
    return set;
}

/* The whole walk in words: "inbox:drop r1 r2?": `?` asks for the occurrence. */
static void
walk_all(const struct cm_inbox *inbox, const struct cm_ruleset *rules,
         char out[256])
{
    struct cm_walk walk;
    struct cm_decision d;
    enum cm_decide_step step;
    size_t n = 0;
    out[0] = '\0';
    cm_decide_start(&walk, inbox, rules, &it.event, &it.coin);
    while ((step = cm_decide_next(&walk, &d)) != CM_DECIDE_NONE) {
        assert_true(n < 200);
        n += (size_t)snprintf(out + n, 256 - n, "%s%s%s%s", n > 0 ? " " : "",
                              d.from_inbox ? "inbox:" : "", d.rule->id,
                              step == CM_DECIDE_NEED_OCCURRENCE ? "?" : "");
        if (step == CM_DECIDE_NEED_OCCURRENCE)
            cm_decide_occurrence(&walk, 1);
    }
    assert_null(d.rule);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NONE); /* it stays */
}

#define PARTS                                                                  \
    "\"latency\":{\"enabled\":true},\"connectionDrop\":{\"enabled\":true},"    \
    "\"randomError\":{\"enabled\":true,\"errorRate\":1},"                      \
    "\"greylist\":{\"enabled\":true},\"blackhole\":{\"enabled\":true}"
#define ALL_INBOX                                                              \
    "inbox:drop inbox:greylist inbox:randomError inbox:blackhole "             \
    "inbox:latency"
#define ERROR "\"fault\":{\"kind\":\"error\"}"

static const struct {
    const char *name, *inbox, *rules;
    enum cm_stage stage;
    const char *walk;
} walks[] = {
    {"nothing", NULL, NULL, CM_STAGE_RCPT, ""},
    {"inbox in order of priority, for every stage",
     "{\"enabled\":true," PARTS "}", NULL, CM_STAGE_RCPT, ALL_INBOX},
    {"inbox before rules", "{\"enabled\":true," PARTS "}",
     "[{" ERROR "},{" ERROR "}]", CM_STAGE_RCPT, ALL_INBOX " r0 r1"},
    {"inbox only at rcpt", "{\"enabled\":true," PARTS "}",
     "[{\"stage\":\"message\"," ERROR "}]", CM_STAGE_MESSAGE, "r0"},
    {"inbox disabled", "{\"enabled\":false," PARTS "}", NULL, CM_STAGE_RCPT,
     ""},
    {"inbox expired this very moment",
     "{\"enabled\":true,\"expiresAt\":\"2026-01-31T12:00:00Z\"," PARTS "}",
     NULL, CM_STAGE_RCPT, ""},
    {"inbox expires in a millisecond",
     "{\"enabled\":true,\"expiresAt\":\"2026-01-31T12:00:00.001Z\","
     "\"blackhole\":{\"enabled\":true}}",
     NULL, CM_STAGE_RCPT, "inbox:blackhole"},
    {"a part disabled",
     "{\"enabled\":true,\"connectionDrop\":{\"enabled\":false},"
     "\"blackhole\":{\"enabled\":true}}",
     NULL, CM_STAGE_RCPT, "inbox:blackhole"},
    {"probability 0 is passed over",
     "{\"enabled\":true,\"connectionDrop\":{\"enabled\":true,"
     "\"probability\":0},\"randomError\":{\"enabled\":true,\"errorRate\":0},"
     "\"latency\":{\"enabled\":true}}",
     "[{\"probability\":0," ERROR "},{" ERROR "}]", CM_STAGE_RCPT,
     "inbox:latency r1"},
    {"rules of another stage, inbox, client, expired, disabled", NULL,
     "[{\"stage\":\"mail\"," ERROR "},{\"inbox\":\"z@x\"," ERROR "},"
     "{\"client\":\"0.0.0.0/0\"," ERROR "},"
     "{\"expiresAt\":\"2026-01-31T12:00:00Z\"," ERROR "},"
     "{\"enabled\":false," ERROR "},{\"inbox\":\"a@x\"," ERROR "}]",
     CM_STAGE_RCPT, "r5"},
    {"shadow rules are told as well", NULL,
     "[{\"mode\":\"shadow\"," ERROR "},{" ERROR "}]", CM_STAGE_RCPT, "r0 r1"},
    {"a seed asks only where chance has a say", NULL,
     "[{\"seed\":1," ERROR "},"
     "{\"seed\":1,\"probability\":0," ERROR "},"
     "{\"seed\":1,\"fault\":{\"kind\":\"latency\",\"ms\":5}},"
     "{\"seed\":1,\"fault\":{\"kind\":\"latency\",\"min\":1,\"max\":2}},"
     "{\"seed\":1,\"fault\":{\"kind\":\"error\",\"types\":[\"temporary\"]}},"
     "{\"seed\":1,\"probability\":0.999999999," ERROR "}]",
     CM_STAGE_RCPT, "r0 r2 r3? r3 r4? r4 r5? r5"},
    {"a seeded inbox asks as inbox",
     "{\"enabled\":true,\"seed\":7,\"latency\":{\"enabled\":true},"
     "\"blackhole\":{\"enabled\":true}}",
     NULL, CM_STAGE_RCPT, "inbox:blackhole inbox:latency? inbox:latency"},
};

static void
test_decide_walk_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof walks / sizeof *walks; i++) {
        char out[256];
        struct cm_inbox *inbox =
            walks[i].inbox ? inbox_of(walks[i].inbox) : NULL;
        struct cm_ruleset *rules =
            walks[i].rules ? rules_of(walks[i].rules) : NULL;
        it.event.stage = walks[i].stage;
        walk_all(inbox, rules, out);
        if (strcmp(out, walks[i].walk) != 0)
            fail_msg("%s: %s", walks[i].name, out);
        cm_ruleset_release(&rules);
        cm_inbox_release(&inbox);
    }
}

static void
test_decide_fills_in_reply_and_delay(void **state)
{
    struct cm_inbox *inbox = inbox_of(
        "{\"enabled\":true,\"greylist\":{\"enabled\":true},"
        "\"latency\":{\"enabled\":true,\"minDelayMs\":7,\"maxDelayMs\":9}}");
    struct cm_ruleset *rules = rules_of(
        "[{\"fault\":{\"kind\":\"error\",\"code\":550,\"text\":\"no\"}},"
        "{\"fault\":{\"kind\":\"throttle\",\"rate\":1}},"
        "{\"fault\":{\"kind\":\"error\",\"types\":[\"permanent\"]}},"
        "{\"fault\":{\"kind\":\"latency\",\"ms\":1234}}]");
    struct cm_walk walk;
    struct cm_decision d;
    (void)state;
    cm_decide_start(&walk, inbox, rules, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_ptr_equal(d.reply, cm_reply_greylist());
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_in_range(d.delay_ms, 7, 9);
    assert_null(d.reply);
    assert_int_equal(d.rule->stage, CM_STAGE_MESSAGE);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_false(d.from_inbox);
    assert_string_equal(d.reply->lines[0], "no");
    assert_int_equal(d.delay_ms, 0);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_int_equal(d.reply->code, 450);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_in_range(d.reply->code, 550, 554);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_int_equal(d.delay_ms, 1234);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NONE);
    cm_ruleset_release(&rules);
    cm_inbox_release(&inbox);
}

/* Two rules of one half each: three quarters of the mails meet one of them. */
static void
test_decide_coins_are_tossed_one_by_one(void **state)
{
    struct cm_ruleset *rules = rules_of("[{\"probability\":0.5," ERROR
                                        "},{\"probability\":0.5," ERROR "}]");
    int met[2] = {0}, mails = 20000, any = 0;
    (void)state;
    for (int i = 0; i < mails; i++) {
        struct cm_walk walk;
        struct cm_decision d;
        bool first = true;
        cm_decide_start(&walk, NULL, rules, &it.event, &it.coin);
        while (cm_decide_next(&walk, &d) == CM_DECIDE_FAULT) {
            met[d.rule->id[1] - '0']++;
            any += first;
            first = false;
        }
    }
    assert_in_range(met[0], 9700, 10300);
    assert_in_range(met[1], 9700, 10300);
    assert_in_range(any, 14700, 15300);
    cm_ruleset_release(&rules);
}

/* What certain rules do must not depend on the generator, nor move it. */
static void
test_decide_certain_rules_draw_nothing(void **state)
{
    struct cm_ruleset *rules =
        rules_of("[{" ERROR "},{\"probability\":0," ERROR "},"
                 "{\"fault\":{\"kind\":\"latency\",\"ms\":5}}]");
    struct cm_coin before = it.coin;
    char out[256];
    (void)state;
    walk_all(NULL, rules, out);
    assert_string_equal(out, "r0 r2");
    assert_memory_equal(&before, &it.coin, sizeof before);
    cm_ruleset_release(&rules);
}

/* The occurrences, out of 64, at which a seeded rule of one half fires. */
static uint64_t
fate(const struct cm_inbox *inbox, const struct cm_ruleset *rules)
{
    uint64_t fired = 0;
    for (uint64_t n = 1; n <= 64; n++) {
        struct cm_walk walk;
        struct cm_decision d;
        cm_decide_start(&walk, inbox, rules, &it.event, &it.coin);
        assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NEED_OCCURRENCE);
        cm_decide_occurrence(&walk, n);
        if (cm_decide_next(&walk, &d) == CM_DECIDE_FAULT) {
            assert_int_equal(d.occurrence, n);
            fired |= UINT64_C(1) << (n - 1);
        }
    }
    return fired;
}

static int
ones(uint64_t bits)
{
    int n = 0;
    for (; bits; bits &= bits - 1)
        n++;
    return n;
}

static void
test_decide_seeded_same_mails_same_fate(void **state)
{
    struct cm_ruleset *rules =
        rules_of("[{\"seed\":42,\"probability\":0.5," ERROR "}]");
    struct cm_ruleset *other =
        rules_of("[{\"seed\":43,\"probability\":0.5," ERROR "}]");
    (void)state;
    uint64_t first = fate(NULL, rules);
    assert_in_range(ones(first), 16, 48);
    cm_coin_init(&it.coin, 999, 999); /* another host */
    assert_true(fate(NULL, rules) == first);
    assert_true(fate(NULL, other) != first);
    it.event.sender = NULL;
    assert_true(fate(NULL, rules) != first);
    cm_ruleset_release(&other);
    cm_ruleset_release(&rules);
}

/* The coin of an inbox's rule is named apart from a fault rule of that id. */
static void
test_decide_seeded_inbox_is_not_a_rule_of_the_same_name(void **state)
{
    struct cm_inbox *inbox = inbox_of(
        "{\"enabled\":true,\"seed\":42,\"connectionDrop\":{\"enabled\":true,"
        "\"probability\":0.5}}");
    struct cm_ruleset *rules =
        rules_of("[{\"id\":\"r0\",\"seed\":42,\"probability\":0.5," ERROR "}]");
    uint64_t draw, expected = 0;
    (void)state;
    for (uint64_t n = 1; n <= 64; n++) {
        assert_true(cm_coin_seeded(42, "inbox:drop", "b@y", "a@x", n,
                                   CM_COIN_FIRES, &draw));
        if (cm_coin_toss(draw, 500000000))
            expected |= UINT64_C(1) << (n - 1);
    }
    assert_true(fate(inbox, NULL) == expected);
    expected = 0;
    for (uint64_t n = 1; n <= 64; n++) {
        assert_true(
            cm_coin_seeded(42, "r0", "b@y", "a@x", n, CM_COIN_FIRES, &draw));
        if (cm_coin_toss(draw, 500000000))
            expected |= UINT64_C(1) << (n - 1);
    }
    assert_true(fate(NULL, rules) == expected);
    cm_ruleset_release(&rules);
    cm_inbox_release(&inbox);
}

static void
test_decide_pass_is_no_fault_and_goes_on(void **state)
{
    struct cm_inbox *inbox = inbox_of(
        "{\"enabled\":true,\"seed\":1,\"latency\":{\"enabled\":true}}");
    struct cm_ruleset *rules =
        rules_of("[{\"seed\":1,\"probability\":0.999999999," ERROR "},"
                 "{" ERROR "}]");
    struct cm_walk walk;
    struct cm_decision d;
    (void)state;
    cm_decide_start(&walk, inbox, rules, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NEED_OCCURRENCE);
    assert_string_equal(d.rule->id, "latency");
    assert_true(d.from_inbox);
    cm_decide_pass(&walk);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NEED_OCCURRENCE);
    assert_string_equal(d.rule->id, "r0");
    cm_decide_pass(&walk);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_string_equal(d.rule->id, "r1");
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NONE);
    cm_ruleset_release(&rules);
    cm_inbox_release(&inbox);
}

/* The number of one rule must not serve the next. */
static void
test_decide_each_seeded_rule_asks_for_itself(void **state)
{
    struct cm_ruleset *rules =
        rules_of("[{\"seed\":1,\"probability\":0.999999999," ERROR "},"
                 "{\"seed\":1,\"probability\":1e-9," ERROR "},"
                 "{\"seed\":1,\"probability\":0.999999999," ERROR "}]");
    char out[256];
    (void)state;
    walk_all(NULL, rules, out);
    assert_string_equal(out, "r0? r0 r1? r2? r2");
    cm_ruleset_release(&rules);
}

static void
test_decide_without_crypto_no_seeded_rule_acts(void **state)
{
    struct cm_ruleset *rules = rules_of(
        "[{\"seed\":1,\"probability\":0.999999999," ERROR "},"
        "{\"seed\":1,\"fault\":{\"kind\":\"latency\",\"min\":1,\"max\":2}},"
        "{\"seed\":1,\"fault\":{\"kind\":\"latency\",\"median\":1,"
        "\"sigma\":2}},"
        "{\"seed\":1,\"fault\":{\"kind\":\"error\",\"types\":"
        "[\"permanent\"]}},"
        "{\"seed\":1," ERROR "}]");
    char out[256];
    (void)state;
    walk_all(NULL, rules, out);
    assert_string_equal(out, "r0? r0 r1? r1 r2? r2 r3? r3 r4");
    no_crypto = true;
    walk_all(NULL, rules, out);
    assert_string_equal(out, "r0? r1? r2? r3? r4"); /* r4 needs no chance */
    cm_ruleset_release(&rules);
}

/* M17: an event that knows nothing but its stage. */
static void
test_decide_event_without_facts(void **state)
{
    struct cm_inbox *inbox =
        inbox_of("{\"enabled\":true,\"seed\":3," PARTS "}");
    struct cm_ruleset *rules =
        rules_of("[{\"inbox\":\"a@x\"," ERROR "},{\"sender\":\"<>\"," ERROR "},"
                 "{\"seed\":1,\"probability\":0.999999999," ERROR "}]");
    char out[256];
    (void)state;
    it.event = (struct cm_event){.stage = CM_STAGE_RCPT, .size_bytes = -1};
    walk_all(inbox, rules, out);
    assert_string_equal(out, "inbox:drop inbox:greylist inbox:randomError? "
                             "inbox:randomError inbox:blackhole "
                             "inbox:latency? inbox:latency r2? r2");
    cm_ruleset_release(&rules);
    cm_inbox_release(&inbox);
}

/* --- every kind of fault --- */

/* asks: even when it is certain to fire, what it does is left to chance. */
static const struct {
    const char *fault;
    bool asks;
} all_kinds[] = {
    {"\"kind\":\"error\"", false},
    {"\"kind\":\"error\",\"types\":[\"permanent\"]", true},
    {"\"kind\":\"latency\",\"ms\":1", false},
    {"\"kind\":\"latency\",\"min\":1,\"max\":9", true},
    {"\"kind\":\"drop\"", false},
    {"\"kind\":\"greylist\"", false},
    {"\"kind\":\"blackhole\"", false},
    {"\"kind\":\"throttle\",\"rate\":1", false},
    {"\"kind\":\"sequence\",\"steps\":[{\"kind\":\"latency\",\"min\":1,\"max\":"
     "9}]",
     false}, /* a step has the attempt's number */
    {"\"kind\":\"quarantine\"", false},
    {"\"kind\":\"duplicate\"", false},
    {"\"kind\":\"misdeliver\",\"to\":\"c@z\"", false},
    {"\"kind\":\"mutate\",\"truncateBody\":1", false},
    {"\"kind\":\"mutate\",\"flipBits\":1", true},
    {"\"kind\":\"hide\",\"keywords\":[\"SIZE\"]", false},
};

static void
walk_kind(size_t kind, const char *members, char out[256])
{
    char doc[512];
    snprintf(doc, sizeof doc, "[{%s\"fault\":{%s}}]", members,
             all_kinds[kind].fault);
    struct cm_ruleset *rules = rules_of(doc);
    it.event.stage = cm_ruleset_at(rules, 0)->stage;
    it.event.keywords = cm_ruleset_at(rules, 0)->fault.kind == CM_FAULT_HIDE;
    walk_all(NULL, rules, out);
    cm_ruleset_release(&rules);
}

static void
test_decide_coin_seed_and_mode_work_for_every_kind(void **state)
{
    unsigned seen = 0;
    (void)state;
    for (size_t i = 0; i < sizeof all_kinds / sizeof *all_kinds; i++) {
        static const struct {
            const char *members, *walk, *walk_if_it_asks;
        } rows[] = {
            {"", "r0", "r0"},
            {"\"mode\":\"shadow\",\"maxHits\":1,", "r0", "r0"},
            {"\"probability\":0,", "", ""},
            {"\"seed\":5,\"probability\":0,", "", ""},
            {"\"seed\":5,", "r0", "r0? r0"},
            {"\"seed\":5,\"probability\":0.999999999,", "r0? r0", "r0? r0"},
            {"\"seed\":5,\"probability\":1e-9,", "r0?", "r0?"},
            {"\"enabled\":false,", "", ""},
        };
        char name[32];
        enum cm_fault_kind kind;
        assert_int_equal(
            sscanf(all_kinds[i].fault, "\"kind\":\"%31[a-z]", name), 1);
        assert_int_equal(cm_fault_parse_kind(name, &kind), CM_OK);
        seen |= 1u << kind;
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            char out[256];
            walk_kind(i, rows[k].members, out);
            if (strcmp(out, all_kinds[i].asks ? rows[k].walk_if_it_asks
                                              : rows[k].walk) != 0)
                fail_msg("{%s} %s: %s", all_kinds[i].fault, rows[k].members,
                         out);
        }
    }
    assert_int_equal(seen, (1u << CM_FAULT_COUNT) - 1);
}

/* --- a message with several recipients --- */

/* Which recipients, "ab", meet the one rule at the end of the message, walked
 * for each as the filter does; the attempt is the first for b, the third for a.
 */
static void
test_decide_turns_table(void **state)
{
    static const struct {
        const char *name, *rule, *met;
    } rows[] = {
        {"for the message", "{" ERROR "}", "a"},
        {"for each", "{\"fault\":{\"kind\":\"duplicate\"}}", "ab"},
        {"misdelivery", "{\"fault\":{\"kind\":\"misdeliver\",\"to\":\"c@z\"}}",
         "ab"},
        {"an attempt of the second", "{\"attempt\":{\"lte\":1}," ERROR "}",
         "b"},
        {"an attempt of both", "{\"attempt\":{\"lte\":3}," ERROR "}", "ab"},
        {"a bucket of the client",
         "{\"fault\":{\"kind\":\"throttle\",\"rate\":1,\"per\":\"client\"}}",
         "a"},
        {"a bucket each", "{\"fault\":{\"kind\":\"throttle\",\"rate\":1}}",
         "ab"},
        {"a sequence of the sender",
         "{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 x\"],"
         "\"key\":[\"sender\"]}}",
         "a"},
        {"a sequence each",
         "{\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 x\"]}}", "ab"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char doc[512], met[3] = "";
        size_t taken = 0, n = 0;
        snprintf(doc, sizeof doc, "[{\"stage\":\"message\",%s]",
                 rows[i].rule + 1);
        struct cm_ruleset *rules = rules_of(doc);
        it.event.stage = CM_STAGE_MESSAGE;
        for (int k = 0; k < 2; k++) {
            struct cm_walk walk;
            struct cm_decision d;
            assert_int_equal(
                cm_address_parse(&it.recipient, k ? "b@x" : "a@x", 3, 0, NULL),
                CM_OK);
            it.event.attempt = k ? 1 : 3;
            cm_decide_start(&walk, NULL, rules, &it.event, &it.coin);
            cm_decide_turns(&walk, taken);
            if (cm_decide_next(&walk, &d) == CM_DECIDE_FAULT)
                met[n++] = (char)('a' + k);
            taken = cm_decide_taken(&walk);
        }
        if (strcmp(met, rows[i].met) != 0)
            fail_msg("%s: %s", rows[i].name, met);
        cm_ruleset_release(&rules);
    }
}

/* --- the steps of a sequence --- */

/* Steps of every kind, at the sequence that stands first in rules. */
#define STEPS                                                                  \
    "\"stage\":\"message\",\"fault\":{\"kind\":\"sequence\",\"steps\":["       \
    "\"451 4.7.1 later\",{\"kind\":\"error\",\"types\":[\"permanent\"]},"      \
    "{\"kind\":\"latency\",\"ms\":70},"                                        \
    "{\"kind\":\"latency\",\"min\":0,\"max\":60000},"                          \
    "{\"kind\":\"latency\",\"median\":1000,\"sigma\":2},"                      \
    "{\"kind\":\"drop\"},{\"kind\":\"blackhole\"}]}}"
enum { REPLY, DRAWN_REPLY, FIXED, UNIFORM, LOGNORMAL, DROP, BLACKHOLE, NSTEPS };

static const struct cm_fault *
begin_steps(struct cm_walk *walk, const struct cm_ruleset *rules,
            struct cm_decision *d)
{
    it.event.stage = CM_STAGE_MESSAGE;
    cm_decide_start(walk, NULL, rules, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(walk, d), CM_DECIDE_FAULT);
    assert_ptr_equal(d->fault, &d->rule->fault);
    assert_int_equal(d->fault->kind, CM_FAULT_SEQUENCE);
    return d->fault->u.sequence.steps;
}

static void
test_decide_choose_fills_in_the_step(void **state)
{
    struct cm_ruleset *rules = rules_of("[{" STEPS "]");
    struct cm_walk walk;
    struct cm_decision d, of[NSTEPS];
    (void)state;
    const struct cm_fault *steps = begin_steps(&walk, rules, &d);
    for (size_t i = 0; i < NSTEPS; i++) {
        assert_true(cm_decide_choose(&walk, &d, &steps[i], i + 1, &of[i]));
        assert_ptr_equal(of[i].fault, &steps[i]);
        assert_ptr_equal(of[i].rule, d.rule);
        assert_false(of[i].from_inbox);
        assert_int_equal(of[i].reply != NULL, i <= DRAWN_REPLY);
    }
    assert_string_equal(of[REPLY].reply->lines[0], "later");
    assert_in_range(of[DRAWN_REPLY].reply->code, 550, 554);
    assert_int_equal(of[FIXED].delay_ms, 70);
    assert_in_range(of[UNIFORM].delay_ms, 0, 60000);
    assert_in_range(of[LOGNORMAL].delay_ms, 0, 60000);
    assert_int_equal(of[DROP].delay_ms, 0);
    assert_true(cm_decide_choose(&walk, &d, &steps[FIXED], 1, &d)); /* itself */
    assert_int_equal(d.delay_ms, 70);
    cm_ruleset_release(&rules);
}

/* Where no chance has a say the generator is not moved. */
static void
test_decide_choose_draws_as_little_as_it_can(void **state)
{
    struct cm_ruleset *rules = rules_of("[{" STEPS "]");
    struct cm_walk walk;
    struct cm_decision d, of;
    (void)state;
    const struct cm_fault *steps = begin_steps(&walk, rules, &d);
    for (size_t i = 0; i < NSTEPS; i++) {
        struct cm_coin before = it.coin;
        assert_true(cm_decide_choose(&walk, &d, &steps[i], 1, &of));
        bool moved = memcmp(&before, &it.coin, sizeof before) != 0;
        assert_int_equal(moved,
                         i == DRAWN_REPLY || i == UNIFORM || i == LOGNORMAL);
    }
    cm_ruleset_release(&rules);
}

static void
test_decide_choose_seeded_by_attempt(void **state)
{
    struct cm_ruleset *rules = rules_of("[{\"seed\":42," STEPS "]");
    struct cm_walk walk;
    struct cm_decision d, of;
    int64_t first[20];
    uint64_t draw;
    int differ = 0;
    (void)state;
    const struct cm_fault *steps = begin_steps(&walk, rules, &d);
    for (uint64_t n = 0; n < 20; n++) {
        assert_true(cm_decide_choose(&walk, &d, &steps[UNIFORM], n + 1, &of));
        assert_true(cm_coin_seeded(42, "r0", "b@y", "a@x", n + 1, CM_COIN_DELAY,
                                   &draw));
        assert_int_equal(of.delay_ms,
                         cm_fault_delay(&steps[UNIFORM].u.latency, draw, 0));
        first[n] = of.delay_ms;
        differ += n > 0 && first[n] != first[n - 1];
    }
    assert_in_range(differ, 17, 19);
    cm_coin_init(&it.coin, 999, 999); /* another host, in another order */
    for (uint64_t n = 20; n-- > 0;) {
        assert_true(cm_decide_choose(&walk, &d, &steps[UNIFORM], n + 1, &of));
        assert_int_equal(of.delay_ms, first[n]);
    }
    cm_ruleset_release(&rules);
}

static void
test_decide_choose_keeps_the_occurrence_of_the_toss(void **state)
{
    struct cm_ruleset *rules =
        rules_of("[{\"seed\":42,\"probability\":0.999999999," STEPS "]");
    struct cm_walk walk;
    struct cm_decision d, of;
    (void)state;
    it.event.stage = CM_STAGE_MESSAGE;
    cm_decide_start(&walk, NULL, rules, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NEED_OCCURRENCE);
    cm_decide_occurrence(&walk, 5);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_true(cm_decide_choose(&walk, &d, &d.fault->u.sequence.steps[UNIFORM],
                                 3, &of));
    assert_int_equal(of.occurrence, 5);
    cm_ruleset_release(&rules);
}

static void
test_decide_choose_without_crypto_is_no_fault(void **state)
{
    struct cm_ruleset *rules = rules_of("[{\"seed\":42," STEPS "]");
    struct cm_walk walk;
    struct cm_decision d, of = {.delay_ms = -7};
    (void)state;
    const struct cm_fault *steps = begin_steps(&walk, rules, &d);
    no_crypto = true;
    assert_false(cm_decide_choose(&walk, &d, &steps[UNIFORM], 1, &of));
    assert_false(cm_decide_choose(&walk, &d, &steps[LOGNORMAL], 1, &of));
    assert_false(cm_decide_choose(&walk, &d, &steps[DRAWN_REPLY], 1, &of));
    assert_int_equal(of.delay_ms, -7);
    assert_true(cm_decide_choose(&walk, &d, &steps[REPLY], 1, &of));
    assert_true(cm_decide_choose(&walk, &d, &steps[DROP], 1, &of));
    cm_ruleset_release(&rules);
}

/* A drawn reply must not end the session of others, as in a plain rule. */
static void
test_decide_choose_spares_the_session_of_others(void **state)
{
    struct cm_ruleset *rules = rules_of(
        "[{\"fault\":{\"kind\":\"sequence\",\"steps\":[{\"kind\":\"error\","
        "\"types\":[\"temporary\"]}]}}]");
    struct cm_walk walk;
    struct cm_decision d, of;
    bool ended = false;
    (void)state;
    cm_decide_start(&walk, NULL, rules, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    const struct cm_fault *step = &d.fault->u.sequence.steps[0];
    for (int i = 0; i < 400; i++) {
        assert_true(cm_decide_choose(&walk, &d, step, 1, &of));
        ended = ended || cm_reply_ends_session(of.reply);
    }
    assert_true(ended);
    it.event.others = true;
    for (int i = 0; i < 400; i++) {
        assert_true(cm_decide_choose(&walk, &d, step, 1, &of));
        assert_false(cm_reply_ends_session(of.reply));
    }
    cm_ruleset_release(&rules);
}

/* --- effects --- */

/* r0, r1, ... of docs, then one effect of 80 ms at RCPT. */
static struct cm_ruleset *
rules_and_effect(const char *docs)
{
    struct cm_ruleset *set = NULL;
    struct cm_problems problems;
    json_t *list = json_loads(docs, 0, NULL);
    json_t *effect = json_loads("{\"latency\":80,\"stage\":\"rcpt\"}", 0, NULL);
    size_t n = json_array_size(list);
    struct cm_rule *rules = calloc(n + 1, sizeof *rules);
    assert_non_null(rules);
    cm_problems_init(&problems);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(cm_rule_compile(&rules[i], i > 0 ? "r1" : "r0",
                                         json_array_get(list, i), 0, &problems),
                         CM_OK);
    assert_int_equal(cm_localstack_effect(&rules[n], effect, &problems), CM_OK);
    assert_int_equal(cm_ruleset_new(&set, rules, n + 1), CM_OK);
    json_decref(effect);
    json_decref(list);
    return set;
}

static void
test_effects_decide_nothing_and_are_walked_alone(void **state)
{
    struct cm_walk walk;
    struct cm_decision d;
    char out[256];
    (void)state;
    struct cm_ruleset *set =
        rules_and_effect("[{\"stage\":\"message\"," ERROR "},"
                         "{\"probability\":0," ERROR "}]");
    assert_int_equal(cm_ruleset_effects(set), 2);
    assert_int_equal(cm_ruleset_effect_stages(set),
                     CM_STAGE_BIT(CM_STAGE_RCPT));
    assert_int_equal(cm_ruleset_stages(set),
                     CM_STAGE_BIT(CM_STAGE_RCPT) |
                         CM_STAGE_BIT(CM_STAGE_MESSAGE));
    walk_all(NULL, set, out);
    assert_string_equal(out, "");
    cm_decide_effects(&walk, set, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_FAULT);
    assert_string_equal(d.rule->id, "latency");
    assert_int_equal(d.delay_ms, 80);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NONE);
    it.event.stage = CM_STAGE_MESSAGE;
    cm_decide_effects(&walk, set, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NONE);
    cm_ruleset_release(&set);

    set = rules_and_effect("[]");
    assert_int_equal(cm_ruleset_effects(set), 0);
    assert_int_equal(cm_ruleset_stages(set), 0);
    cm_ruleset_release(&set);
    cm_decide_effects(&walk, NULL, &it.event, &it.coin);
    assert_int_equal(cm_decide_next(&walk, &d), CM_DECIDE_NONE);
}

int
main(void)
{
#define CASE(fn) cmocka_unit_test_setup(fn, setup)
    static const struct CMUnitTest tests[] = {
        CASE(test_decide_walk_table),
        CASE(test_decide_fills_in_reply_and_delay),
        CASE(test_decide_coins_are_tossed_one_by_one),
        CASE(test_decide_certain_rules_draw_nothing),
        CASE(test_decide_seeded_same_mails_same_fate),
        CASE(test_decide_seeded_inbox_is_not_a_rule_of_the_same_name),
        CASE(test_decide_pass_is_no_fault_and_goes_on),
        CASE(test_decide_each_seeded_rule_asks_for_itself),
        CASE(test_decide_without_crypto_no_seeded_rule_acts),
        CASE(test_decide_event_without_facts),
        CASE(test_decide_coin_seed_and_mode_work_for_every_kind),
        CASE(test_decide_turns_table),
        CASE(test_decide_choose_fills_in_the_step),
        CASE(test_decide_choose_draws_as_little_as_it_can),
        CASE(test_decide_choose_seeded_by_attempt),
        CASE(test_decide_choose_keeps_the_occurrence_of_the_toss),
        CASE(test_decide_choose_without_crypto_is_no_fault),
        CASE(test_decide_choose_spares_the_session_of_others),
        CASE(test_effects_decide_nothing_and_are_walked_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
