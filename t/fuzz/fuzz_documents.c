/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever bytes come by HTTP, from Redis, in RCPT, by the command hook or by
 * the saslauthd relay: parsing them must neither crash nor leak, and what it
 * lets through must keep its promises. Under libFuzzer this is the target:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DCM_LIBFUZZER ...
 *
 * Built as usual it is a program that runs the files it is given, or else those
 * of the corpus beside its source, and is a test of `make check`.
 */
#include "milter/filter/saslauthd.h"
#include "milter/filter/smtp_command.h"
#include "milter/filter/socketmap.h"
#include "milter/model/address.h"
#include "milter/model/event.h"
#include "milter/model/localstack_json.h"
#include "milter/model/mailpit_json.h"
#include "milter/model/rule_json.h"
#include "milter/model/ruleset.h"

#include <dirent.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

/* A canonical address is its own canonical form, within the limits. */
static void
try_address(const char *text, size_t len, unsigned flags)
{
    struct cm_address once, twice, base;
    struct cm_err err;
    if (cm_address_parse(&once, text, len, flags, &err) != CM_OK)
        return;
    demand(strlen(once.text) == once.len, "the length of an address");
    demand(once.domain_off <= once.len, "the domain within the address");
    demand(cm_address_parse(&twice, once.text, once.len, flags, &err) == CM_OK,
           "a canonical address is valid");
    demand(strcmp(once.text, twice.text) == 0 &&
               once.domain_off == twice.domain_off,
           "a canonical address is canonical");
    if (cm_address_strip_tag(&once, "+-", &base))
        demand(cm_address_parse(&twice, base.text, base.len, flags, &err) ==
                   CM_OK,
               "an address without its tag is valid");
}

/* What the API has answered once, it must take and answer again. */
static void
try_inbox(const char *text, size_t len)
{
    struct cm_inbox *inbox = NULL, *again = NULL;
    struct cm_problems problems;
    struct cm_err err;
    json_t *in = NULL, *out = NULL;
    if (cm_inbox_compile(&inbox, text, len, &err) != CM_OK)
        return;
    demand(inbox->nrules <= CM_INBOX_RULES_MAX, "at most five rules");
    cm_problems_init(&problems);
    demand(cm_json_parse(&in, text, len, &err) == CM_OK, "it parsed before");
    demand(cm_inbox_normalize(&out, in, "", &problems) == CM_OK,
           "what compiles can be normalized");
    size_t out_len = 0;
    char *answer = cm_json_dump(out, &out_len);
    demand(answer != NULL, "an answer");
    if (out_len <= CM_INBOX_DOC_MAX) {
        demand(cm_inbox_compile(&again, answer, out_len, &err) == CM_OK,
               "a normalized configuration compiles");
        demand(again->nrules == inbox->nrules &&
                   again->enabled == inbox->enabled &&
                   again->expires_at_ms == inbox->expires_at_ms,
               "a normalized configuration is the same");
    }
    free(answer);
    cm_inbox_release(&again);
    cm_inbox_release(&inbox);
    json_decref(out);
    json_decref(in);
}

/* One rule is a list of rules. Its set takes it over. */
static void
try_ruleset(const struct cm_rule *rule)
{
    struct cm_client client = {.family = AF_INET};
    struct cm_address recipient;
    struct cm_event event = {.stage = rule->stage,
                             .client = &client,
                             .recipient = &recipient,
                             .size_bytes = -1};
    struct cm_ruleset *set = NULL;
    struct cm_rule *rules = malloc(sizeof *rules);
    demand(rules != NULL, "memory");
    demand(cm_address_parse(&recipient, "a@b", 3, 0, NULL) == CM_OK, "a@b");
    *rules = *rule;
    demand(cm_ruleset_new(&set, rules, 1) == CM_OK, "a rule is a list of one");
    demand(cm_ruleset_next(set, &event, 0) <= 1, "no rule out of nowhere");
    demand(rules->match.attempt.given || !cm_ruleset_asks_attempt(set, &event),
           "nobody counts what nobody asks for");
    for (size_t i = 0; i < rules->match.nheaders; i++)
        demand(!rules->enabled ||
                   cm_ruleset_wants_header(set, rules->match.headers[i].name),
               "a header in a condition is wanted");
    demand(cm_ruleset_body_bytes(set) >= 0, "no less than nothing");
    cm_ruleset_release(&set);
}

static void
check_fault(const struct cm_rule *rule)
{
    const struct cm_fault *fault = &rule->fault;
    demand(cm_fault_stages(fault) & CM_STAGE_BIT(rule->stage),
           "a rule acts where its fault can");
    if (fault->kind == CM_FAULT_HIDE)
        demand(fault->u.hide[0] != '\0', "something to hide");
    if (fault->kind != CM_FAULT_SEQUENCE)
        return;
    for (int64_t n = 1; n <= CM_SEQUENCE_STEPS_MAX + 1; n++) {
        const struct cm_fault *step = cm_fault_step(&fault->u.sequence, n);
        demand(!step || cm_fault_stages(step) & CM_STAGE_BIT(rule->stage),
               "a step acts where its sequence does");
    }
}

static void
try_rule(const char *text, size_t len)
{
    struct cm_rule rule;
    struct cm_problems problems;
    struct cm_err err;
    json_t *doc = NULL;
    if (cm_json_parse(&doc, text, len, &err) != CM_OK)
        return;
    cm_problems_init(&problems);
    if (cm_rule_compile(&rule, "r1", doc, 0, &problems) == CM_OK) {
        check_fault(&rule);
        try_ruleset(&rule);
    } else {
        demand(problems.n > 0, "a refusal says why");
    }
    json_decref(doc);
}

static void
try_localstack(const json_t *doc)
{
    struct cm_rule rule;
    struct cm_problems problems;
    cm_problems_init(&problems);
    if (cm_localstack_compile(&rule, "1", doc, "[0].", 0, &problems) == CM_OK) {
        demand(cm_fault_stages(&rule.fault) & CM_STAGE_BIT(rule.stage),
               "a fault rule acts where its fault can");
        cm_rule_fini(&rule);
    } else {
        demand(problems.n > 0, "a refusal of a fault rule says why");
    }
    cm_problems_init(&problems);
    enum cm_status status = cm_localstack_effect(&rule, doc, &problems);
    if (status == CM_OK) {
        demand(cm_fault_delay(&rule.fault.u.latency, UINT64_MAX, 0) <=
                   CM_FAULT_DELAY_MAX_MS,
               "an effect keeps the limit of delays");
        cm_rule_fini(&rule);
    } else {
        demand(status == CM_NOTFOUND || problems.n > 0,
               "a refusal of effects says why");
    }
}

static void
try_mailpit(const json_t *doc)
{
    struct cm_triggers triggers, again;
    struct cm_err err;
    if (cm_triggers_read(&triggers, doc, &err) != CM_OK)
        return;
    json_t *answer = cm_triggers_json(&triggers);
    demand(cm_triggers_read(&again, answer, &err) == CM_OK &&
               memcmp(&triggers, &again, sizeof again) == 0,
           "triggers that were answered are taken again");
    json_decref(answer);
}

/* Equal to itself, and to what it is printed as. */
static void
try_canonical(const json_t *doc)
{
    json_t *back = NULL;
    char *text = cm_json_canonical(doc);
    demand(text && cm_json_parse(&back, text, strlen(text), NULL) == CM_OK,
           "a canonical text is JSON");
    char *again = cm_json_canonical(back);
    demand(again && strcmp(text, again) == 0, "a canonical text is canonical");
    free(again);
    free(text);
    json_decref(back);
}

static void
try_faces(const char *text, size_t len)
{
    struct cm_err err;
    json_t *doc = NULL;
    if (cm_json_parse(&doc, text, len, &err) != CM_OK)
        return;
    try_canonical(doc);
    try_localstack(doc);
    try_mailpit(doc);
    json_decref(doc);
}

static void
try_list(const char *text, size_t len)
{
    struct cm_triggers triggers;
    struct cm_err err;
    char *list = strndup(text, len);
    demand(list != NULL, "memory");
    if (cm_triggers_parse(&triggers, list, &err) == CM_OK) {
        for (int i = 0; i < CM_TRIGGER_COUNT; i++)
            demand(
                !cm_trigger_check(triggers.at[i].code, triggers.at[i].percent),
                "a trigger from a list is in range");
    }
    free(list);
}

static void
try_command(const char *line, size_t len)
{
    struct cm_smtp_command command;
    if (!cm_smtp_command_read(&command, line, len))
        return;
    demand(command.stage < CM_STAGE_COUNT, "a stage");
    demand(strlen(command.mechanism) < sizeof command.mechanism &&
               strlen(command.user) < sizeof command.user &&
               strlen(command.helo) < sizeof command.helo,
           "texts that end");
    demand(command.stage == CM_STAGE_AUTH || !command.user[0],
           "a login only at AUTH");
}

/* One question after the other, as the hook takes them off a connection. */
static void
try_questions(const char *data, size_t len)
{
    struct cm_socketmap_request request;
    while (cm_socketmap_parse(data, len, &request) == CM_SOCKETMAP_WHOLE) {
        demand(request.bytes <= len && request.bytes > 0, "it moves on");
        demand(request.map_len > 0 && request.map > data &&
                   request.key == request.map + request.map_len + 1 &&
                   request.key + request.key_len + 1 == data + request.bytes,
               "map and key within the question");
        try_command(request.key, request.key_len);
        data += request.bytes;
        len -= request.bytes;
    }
}

/* As the relay gets it: more and more, until it is whole or its memory full. */
static void
try_login(const char *data, size_t len)
{
    struct cm_saslauthd_who who;
    enum cm_saslauthd_state state = CM_SASLAUTHD_MORE;
    size_t n = 0;
    if (len > CM_SASLAUTHD_QUESTION_MAX)
        len = CM_SASLAUTHD_QUESTION_MAX;
    while (state == CM_SASLAUTHD_MORE && n < len)
        state = cm_saslauthd_measure(data, ++n);
    demand(state != CM_SASLAUTHD_MORE || n < CM_SASLAUTHD_QUESTION_MAX,
           "a full memory waits for nothing");
    demand(state != CM_SASLAUTHD_WHOLE || n >= 8, "four fields");
    demand(cm_saslauthd_measure(data, len) == state,
           "what comes later changes nothing");
    cm_saslauthd_read(&who, data, n);
    demand(strlen(who.login) < sizeof who.login &&
               strlen(who.login_at_realm) < sizeof who.login_at_realm,
           "a login and a realm that end");
    demand(state == CM_SASLAUTHD_WHOLE || !who.login[0],
           "a login of a whole question alone");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    try_address(text, size, 0);
    try_address(text, size, CM_ADDRESS_KEEP_CASE);
    try_inbox(text, size);
    try_rule(text, size);
    try_faces(text, size);
    try_list(text, size);
    try_questions(text, size);
    try_command(text, size);
    try_login(text, size);
    return 0;
}

#ifndef CM_LIBFUZZER
#define INPUT_MAX (1 << 20)

static bool
run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *data = malloc(INPUT_MAX);
    bool good = f && data;
    if (good) {
        size_t size = fread(data, 1, INPUT_MAX, f);
        LLVMFuzzerTestOneInput((const uint8_t *)data, size);
    } else {
        perror(path);
    }
    free(data);
    if (f)
        fclose(f);
    return good;
}

/* The number of files run, or -1. */
static int
run_corpus(void)
{
    const char *srcdir = getenv("srcdir");
    char dir[4096], path[8192];
    int n = 0;
    snprintf(dir, sizeof dir, "%s/t/fuzz/corpus", srcdir ? srcdir : ".");
    DIR *d = opendir(dir);
    if (!d) {
        perror(dir);
        return -1;
    }
    for (struct dirent *e; n >= 0 && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        n = run_file(path) ? n + 1 : -1;
    }
    closedir(d);
    return n;
}

int
main(int argc, char **argv)
{
    int n = argc - 1;
    for (int i = 1; i < argc; i++) {
        if (!run_file(argv[i]))
            return EXIT_FAILURE;
    }
    if (argc == 1)
        n = run_corpus();
    printf("%d inputs\n", n);
    return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
