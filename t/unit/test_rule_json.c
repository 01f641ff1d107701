/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rule documents: each table row is a document and either the sentences that
 * refuse it or a few words on the rule that it becomes.
 */
#include "milter/model/address.h"
#include "milter/model/reply.h"
#include "milter/model/rule_json.h"
#include "t/unit/failing_alloc.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends, cut to fit. */
static void say(char out[2048], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
say(char out[2048], const char *fmt, ...)
{
    size_t n = strlen(out);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out + n, 2048 - n, fmt, ap);
    va_end(ap);
}

static void
say_reply(char out[2048], const struct cm_reply *reply)
{
    for (size_t i = 0; i < reply->nlines; i++)
        say(out, "%s%d %s|%s", i > 0 ? "/" : "", reply->code, reply->enhanced,
            reply->lines[i]);
}

static void
say_fault(char out[2048], const struct cm_fault *f)
{
    say(out, "%s", f->kind == CM_FAULT_COUNT ? "ok" : cm_fault_name(f->kind));
    switch (f->kind) {
    case CM_FAULT_ERROR:
        say(out, " ");
        if (f->u.error.reply)
            say_reply(out, f->u.error.reply);
        else
            say(out, "types %u", f->u.error.types);
        break;
    case CM_FAULT_LATENCY:
        say(out, " %d %lld..%lld %g %g", (int)f->u.latency.kind,
            (long long)f->u.latency.min_ms, (long long)f->u.latency.max_ms,
            f->u.latency.median_ms, f->u.latency.sigma);
        break;
    case CM_FAULT_DROP:
        say(out, " %s %s", f->u.drop.how == CM_DROP_RST ? "rst" : "fin",
            f->u.drop.outcome == CM_DROP_LOST ? "lost" : "ackLost");
        break;
    case CM_FAULT_GREYLIST:
        say(out, " %lld %lld %lld %d", (long long)f->u.greylist.window_ms,
            (long long)f->u.greylist.max_attempts,
            (long long)f->u.greylist.min_delay_ms, (int)f->u.greylist.track);
        break;
    case CM_FAULT_BLACKHOLE:
        say(out, " %d", f->u.blackhole.webhooks);
        break;
    case CM_FAULT_THROTTLE:
        say(out, " %g %lld %d ", f->u.throttle.rate,
            (long long)f->u.throttle.burst, (int)f->u.throttle.per);
        say_reply(out, f->u.throttle.reply);
        break;
    case CM_FAULT_SEQUENCE:
        say(out, " key %u repeat %d ttl %lld:", f->u.sequence.key,
            f->u.sequence.repeat, (long long)f->u.sequence.ttl_ms);
        for (size_t i = 0; i < f->u.sequence.nsteps; i++) {
            say(out, " [");
            say_fault(out, &f->u.sequence.steps[i]);
            say(out, "]");
        }
        break;
    case CM_FAULT_QUARANTINE:
        say(out, " %s", f->u.quarantine_reason);
        break;
    case CM_FAULT_MISDELIVER:
        say(out, " %s", f->u.misdeliver_to);
        break;
    case CM_FAULT_MUTATE:
        say(out, " %d %lld %s %s", (int)f->u.mutate.how,
            (long long)f->u.mutate.n, f->u.mutate.name ? f->u.mutate.name : "-",
            f->u.mutate.value ? f->u.mutate.value : "-");
        break;
    case CM_FAULT_HIDE:
        say(out, " %s", f->u.hide);
        break;
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_COUNT:
        break;
    }
}

#define KEYWORDS                                                               \
    "STARTTLS, SIZE, SMTPUTF8, PIPELINING, AUTH, 8BITMIME, DSN, ETRN, "        \
    "ENHANCEDSTATUSCODES, VRFY, CHUNKING"

#define LIMIT(side, what)                                                      \
    "{\"kind\":\"latency\",\"limit\":\"" side "\",\"of\":\"" what "\"}"

static const struct {
    const char *name, *fault;
    const char *stage, *out; /* NULL stage: refused, out the sentences */
} faults[] = {
    {"error, defaults", "{\"kind\":\"error\"}", "rcpt",
     "error 451 4.3.0|Service unavailable"},
    {"error, permanent code", "{\"kind\":\"error\",\"code\":550}", "rcpt",
     "error 550 5.3.0|Service unavailable"},
    {"error, all",
     "{\"kind\":\"error\",\"code\":554,\"enhanced\":\"5.7.1\","
     "\"text\":[\"one %\",\"two\"]}",
     "rcpt", "error 554 5.7.1|one %/554 5.7.1|two"},
    {"error of several lines without an enhanced code",
     "{\"kind\":\"error\",\"enhanced\":\"\",\"text\":[\"a\",\"b\"]}", NULL,
     "fault.text must be one line where there is no enhanced status code"},
    {"error without an enhanced code",
     "{\"kind\":\"error\",\"code\":421,\"enhanced\":\"\",\"text\":\"bye\"}",
     "rcpt", "error 421 |bye"},
    {"error drawn",
     "{\"kind\":\"error\",\"types\":[\"permanent\",\"temporary\"]}", "rcpt",
     "error types 3"},
    {"error, code", "{\"kind\":\"error\",\"code\":250}", NULL,
     "fault.code must not be less than 400"},
    {"error, code 600", "{\"kind\":\"error\",\"code\":600}", NULL,
     "fault.code must not be greater than 599"},
    {"M14 error, 4x1", "{\"kind\":\"error\",\"code\":\"4x1\"}", NULL,
     "fault.code must be an integer number"},
    {"H7 error, 451.0", "{\"kind\":\"error\",\"code\":451.0}", NULL,
     "fault.code must be an integer number"},
    {"error, class",
     "{\"kind\":\"error\",\"code\":451,"
     "\"enhanced\":\"5.3.0\"}",
     NULL, "fault.enhanced must be of the same class as the code"},
    {"H1 error, line break", "{\"kind\":\"error\",\"text\":\"x\\r\\n250 ok\"}",
     NULL, "fault.text must be printable ASCII without line breaks"},
    {"H1 error, line separator", "{\"kind\":\"error\",\"text\":\"a\\u2028\"}",
     NULL, "fault.text must be printable ASCII without line breaks"},
    {"error, second line", "{\"kind\":\"error\",\"text\":[\"a\",\"\",5]}", NULL,
     "fault.text[1] must not be empty; fault.text[2] must be a string or an "
     "array of strings"},
    {"error, no lines", "{\"kind\":\"error\",\"text\":[]}", NULL,
     "fault.text must have 1 to 32 lines"},
    {"error, text a number", "{\"kind\":\"error\",\"text\":5}", NULL,
     "fault.text must be a string or an array of strings"},
    {"error, types and code",
     "{\"kind\":\"error\",\"types\":[\"temporary\"],\"code\":451}", NULL,
     "fault.types must not be given together with code, enhanced or text"},
    {"error, no types", "{\"kind\":\"error\",\"types\":[]}", NULL,
     "fault.types must not be empty"},
    {"error, several faults",
     "{\"kind\":\"error\",\"foo\":1,\"code\":1,\"enhanced\":5,"
     "\"text\":\"\\n\"}",
     NULL,
     "fault.property foo should not exist; "
     "fault.code must not be less than 400; fault.enhanced must be a string; "
     "fault.text must be printable ASCII without line breaks"},

    {"latency, fixed", "{\"kind\":\"latency\",\"ms\":1500.4}", "rcpt",
     "latency 0 1500..1500 0 0"},
    {"latency, uniform", "{\"kind\":\"latency\",\"min\":10,\"max\":20}", "rcpt",
     "latency 1 10..20 0 0"},
    {"latency, lognormal",
     "{\"kind\":\"latency\",\"median\":250,\"sigma\":0.5}", "rcpt",
     "latency 2 0..0 250 0.5"},
    {"latency, none", "{\"kind\":\"latency\"}", NULL,
     "fault.ms must be given, or min and max, or median and sigma, or limit "
     "and of, and only one of these"},
    {"latency, two ways",
     "{\"kind\":\"latency\",\"ms\":1,\"min\":1,"
     "\"max\":2}",
     NULL,
     "fault.ms must be given, or min and max, or median and sigma, or limit "
     "and of, and only one of these"},
    {"latency, half a way", "{\"kind\":\"latency\",\"min\":1}", NULL,
     "fault.max must be given together with min"},
    {"latency, other half", "{\"kind\":\"latency\",\"sigma\":1}", NULL,
     "fault.median must be given together with sigma"},
    {"latency, min above max", "{\"kind\":\"latency\",\"min\":2,\"max\":1}",
     NULL, "fault.min must not be greater than max"},
    {"latency, too long", "{\"kind\":\"latency\",\"ms\":60001}", NULL,
     "fault.ms must not be greater than 60000"},
    {"M24 latency, negative", "{\"kind\":\"latency\",\"ms\":-1}", NULL,
     "fault.ms must not be less than 0"},
    {"latency, median 0", "{\"kind\":\"latency\",\"median\":0,\"sigma\":1}",
     NULL, "fault.median must be greater than 0"},
    {"latency, justUnder of connect", LIMIT("justUnder", "connect"), "connect",
     "latency 0 299000..299000 0 0"},
    {"latency, justOver of connect", LIMIT("justOver", "connect"), "connect",
     "latency 0 301000..301000 0 0"},
    {"latency, justUnder of mail", LIMIT("justUnder", "mail"), "mail",
     "latency 0 299000..299000 0 0"},
    {"latency, justOver of mail", LIMIT("justOver", "mail"), "mail",
     "latency 0 301000..301000 0 0"},
    {"latency, justUnder of rcpt", LIMIT("justUnder", "rcpt"), "rcpt",
     "latency 0 299000..299000 0 0"},
    {"latency, justOver of rcpt", LIMIT("justOver", "rcpt"), "rcpt",
     "latency 0 301000..301000 0 0"},
    {"latency, justUnder of data", LIMIT("justUnder", "data"), "data",
     "latency 0 119000..119000 0 0"},
    {"latency, justOver of data", LIMIT("justOver", "data"), "data",
     "latency 0 121000..121000 0 0"},
    {"latency, justUnder of message", LIMIT("justUnder", "message"), "message",
     "latency 0 599000..599000 0 0"},
    {"latency, justOver of message", LIMIT("justOver", "message"), "message",
     "latency 0 601000..601000 0 0"},
    {"latency, limit of what", "{\"kind\":\"latency\",\"limit\":\"justOver\"}",
     NULL, "fault.of must be given together with limit"},
    {"latency, limit of helo", LIMIT("justOver", "helo"), NULL,
     "fault.of must be one of the following values: connect, mail, rcpt, data, "
     "message"},
    {"latency, limit and ms",
     "{\"kind\":\"latency\",\"limit\":\"justOver\",\"of\":\"data\","
     "\"ms\":1}",
     NULL,
     "fault.ms must be given, or min and max, or median and sigma, or limit "
     "and of, and only one of these"},

    {"drop, defaults", "{\"kind\":\"drop\"}", "message", "drop rst lost"},
    {"drop, all",
     "{\"kind\":\"drop\",\"how\":\"fin\","
     "\"outcome\":\"ackLost\"}",
     "message", "drop fin ackLost"},
    {"drop, how", "{\"kind\":\"drop\",\"how\":\"421\"}", NULL,
     "fault.how must be one of the following values: rst, fin"},

    {"greylist, defaults", "{\"kind\":\"greylist\"}", "rcpt",
     "greylist 300000 2 0 2"},
    {"greylist, all",
     "{\"kind\":\"greylist\",\"retryWindowMs\":0,\"maxAttempts\":1.5,"
     "\"trackBy\":\"sender\",\"minDelayMs\":1000}",
     "rcpt", "greylist 0 2 1000 1"},
    {"greylist, attempts", "{\"kind\":\"greylist\",\"maxAttempts\":0}", NULL,
     "fault.maxAttempts must not be less than 1"},
    {"greylist, window", "{\"kind\":\"greylist\",\"retryWindowMs\":1e300}",
     NULL, "fault.retryWindowMs must not be greater than 31622400000"},

    {"blackhole", "{\"kind\":\"blackhole\"}", "message", "blackhole 0"},
    {"blackhole with webhooks",
     "{\"kind\":\"blackhole\",\"triggerWebhooks\":true}", "message",
     "blackhole 1"},

    {"throttle, defaults", "{\"kind\":\"throttle\",\"rate\":2.5}", "rcpt",
     "throttle 2.5 3 0 450 4.2.1|Too many messages, try again later"},
    {"throttle, all",
     "{\"kind\":\"throttle\",\"rate\":0.1,\"burst\":7,\"per\":\"client\","
     "\"code\":421,\"text\":\"slow down\"}",
     "rcpt", "throttle 0.1 7 3 421 4.3.0|slow down"},
    {"throttle, slow", "{\"kind\":\"throttle\",\"rate\":0.01}", "rcpt",
     "throttle 0.01 1 0 450 4.2.1|Too many messages, try again later"},
    {"throttle, no rate", "{\"kind\":\"throttle\"}", NULL,
     "fault.rate must be a number conforming to the specified constraints"},
    {"throttle, rate 0", "{\"kind\":\"throttle\",\"rate\":0}", NULL,
     "fault.rate must be greater than 0"},
    {"throttle, per", "{\"kind\":\"throttle\",\"rate\":1,\"per\":\"ip\"}", NULL,
     "fault.per must be one of the following values: inbox, domain, sender, "
     "client"},

    {"sequence",
     "{\"kind\":\"sequence\",\"steps\":[\"451\",\"421 4.7.0 bye\",\"ok\","
     "{\"kind\":\"latency\",\"ms\":5}]}",
     "rcpt",
     "sequence key 7 repeat 0 ttl 86400000: [error 451 4.3.0|Service "
     "unavailable] [error 421 4.7.0|bye] [ok] [latency 0 5..5 0 0]"},
    {"sequence, all",
     "{\"kind\":\"sequence\",\"steps\":[{\"kind\":\"blackhole\"}],"
     "\"key\":[\"recipient\"],\"after\":\"repeat\",\"ttlMs\":1000}",
     "message", "sequence key 4 repeat 1 ttl 1000: [blackhole 0]"},
    {"sequence, another key",
     "{\"kind\":\"sequence\",\"steps\":[\"ok\"],\"key\":[\"sender\"]}", "rcpt",
     "sequence key 2 repeat 0 ttl 86400000: [ok]"},
    {"sequence, a blackhole for whom",
     "{\"kind\":\"sequence\",\"steps\":[\"ok\",{\"kind\":\"blackhole\"}],"
     "\"key\":[\"sender\",\"client\"]}",
     NULL,
     "fault.key must hold recipient when a step is a blackhole, which takes "
     "out one recipient at a time"},
    {"sequence, no steps", "{\"kind\":\"sequence\"}", NULL,
     "fault.steps must be an array of 1 to 64 steps"},
    {"sequence, empty", "{\"kind\":\"sequence\",\"steps\":[]}", NULL,
     "fault.steps must be an array of 1 to 64 steps"},
    {"sequence, limit in a step",
     "{\"kind\":\"sequence\",\"steps\":[\"451\"," LIMIT("justOver",
                                                        "message") "]}",
     "message",
     "sequence key 7 repeat 0 ttl 86400000: [error 451 4.3.0|Service "
     "unavailable] [latency 0 601000..601000 0 0]"},
    {"sequence, steps of two stages",
     "{\"kind\":\"sequence\",\"steps\":[{\"kind\":\"blackhole\"}," LIMIT(
         "justOver", "rcpt") "]}",
     NULL, "fault.steps have no stage at which all of them can act"},
    {"sequence, bad steps",
     "{\"kind\":\"sequence\",\"steps\":[\"250 ok\",5,\"ok\","
     "{\"kind\":\"greylist\"},{\"kind\":\"drop\",\"how\":\"x\"},{},"
     "{\"kind\":\"sequence\",\"steps\":[\"ok\"]}],\"key\":[]}",
     NULL,
     "fault.steps[0] must be \"ok\", a reply or a fault: code must be between "
     "400 and 599; fault.steps[1] must be \"ok\", a reply or a fault; "
     "fault.steps[3] must be an error, a latency, a drop or a blackhole; "
     "fault.steps[4].how must be one of the following values: rst, fin; "
     "fault.steps[5].kind must be one of the following values: error, "
     "latency, drop, greylist, blackhole, throttle, sequence, quarantine, "
     "duplicate, misdeliver, mutate, hide; fault.steps[6] must be an error, a "
     "latency, a drop or a blackhole; fault.key must not be empty"},

    {"quarantine", "{\"kind\":\"quarantine\"}", "message",
     "quarantine Held by a chaos rule"},
    {"quarantine, reason", "{\"kind\":\"quarantine\",\"reason\":\"test 7\"}",
     "message", "quarantine test 7"},
    {"quarantine, line break", "{\"kind\":\"quarantine\",\"reason\":\"a\\nb\"}",
     NULL, "fault.reason must be printable ASCII without line breaks"},
    {"duplicate", "{\"kind\":\"duplicate\"}", "message", "duplicate"},
    {"duplicate, member", "{\"kind\":\"duplicate\",\"n\":2}", NULL,
     "fault.property n should not exist"},
    {"misdeliver", "{\"kind\":\"misdeliver\",\"to\":\"<Eve@X.example>\"}",
     "message", "misdeliver eve@x.example"},
    {"misdeliver, nowhere", "{\"kind\":\"misdeliver\"}", NULL,
     "fault.to must be a string"},
    {"misdeliver, no address", "{\"kind\":\"misdeliver\",\"to\":\"a@b..c\"}",
     NULL, "fault.to must be an address: domain has an empty label"},
    {"misdeliver, no domain", "{\"kind\":\"misdeliver\",\"to\":\"root\"}", NULL,
     "fault.to must be an address with a domain"},
    {"mutate, truncate", "{\"kind\":\"mutate\",\"truncateBody\":0}", "message",
     "mutate 0 0 - -"},
    {"mutate, drop a header", "{\"kind\":\"mutate\",\"dropHeader\":\"To\"}",
     "message", "mutate 1 0 To -"},
    {"mutate, add a header",
     "{\"kind\":\"mutate\",\"addHeader\":{\"X-A\":\"b c\"}}", "message",
     "mutate 2 0 X-A b c"},
    {"mutate, flip bits", "{\"kind\":\"mutate\",\"flipBits\":3}", "message",
     "mutate 3 3 - -"},
    {"mutate, nothing", "{\"kind\":\"mutate\"}", NULL,
     "fault.truncateBody must be given, or dropHeader, or addHeader, or "
     "flipBits, and only one of them"},
    {"mutate, two", "{\"kind\":\"mutate\",\"flipBits\":1,\"truncateBody\":1}",
     NULL,
     "fault.truncateBody must be given, or dropHeader, or addHeader, or "
     "flipBits, and only one of them"},
    {"mutate, no bits", "{\"kind\":\"mutate\",\"flipBits\":0}", NULL,
     "fault.flipBits must not be less than 1"},
    {"mutate, header name", "{\"kind\":\"mutate\",\"dropHeader\":\"To:\"}",
     NULL, "fault.dropHeader must name a header"},
    {"mutate, header injection",
     "{\"kind\":\"mutate\",\"addHeader\":{\"X-A\":\"b\\r\\nBcc: c\"}}", NULL,
     "fault.addHeader must have a value of at most 480 printable ASCII "
     "characters"},
    {"mutate, two headers",
     "{\"kind\":\"mutate\",\"addHeader\":{\"X-A\":\"b\",\"X-B\":\"c\"}}", NULL,
     "fault.addHeader must be an object with one member, a header's name and "
     "its value"},

    {"hide", "{\"kind\":\"hide\",\"keywords\":[\"STARTTLS\"]}", "helo",
     "hide STARTTLS"},
    {"hide, without case and doubles",
     "{\"kind\":\"hide\",\"keywords\":[\"size\",\"StartTLS\",\"SIZE\"]}",
     "helo", "hide STARTTLS,SIZE"},
    {"hide, all that can be",
     "{\"kind\":\"hide\",\"keywords\":[\"STARTTLS\",\"SIZE\",\"SMTPUTF8\","
     "\"PIPELINING\",\"AUTH\",\"8BITMIME\",\"DSN\",\"ENHANCEDSTATUSCODES\","
     "\"ETRN\",\"VRFY\",\"CHUNKING\"]}",
     "helo",
     "hide STARTTLS,SIZE,SMTPUTF8,PIPELINING,AUTH,8BITMIME,DSN,ETRN,"
     "ENHANCEDSTATUSCODES,VRFY,CHUNKING"},
    {"hide, nothing", "{\"kind\":\"hide\",\"keywords\":[]}", NULL,
     "fault.keywords must be an array of 1 to 16 EHLO keywords"},
    {"hide, no keywords", "{\"kind\":\"hide\"}", NULL,
     "fault.keywords must be an array of 1 to 16 EHLO keywords"},
    {"hide, a text", "{\"kind\":\"hide\",\"keywords\":\"SIZE\"}", NULL,
     "fault.keywords must be an array of 1 to 16 EHLO keywords"},
    {"hide, too many",
     "{\"kind\":\"hide\",\"keywords\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}",
     NULL, "fault.keywords must be an array of 1 to 16 EHLO keywords"},
    {"hide, what cannot be hidden",
     "{\"kind\":\"hide\",\"keywords\":[\"SIZE\",\"HELP\",5]}", NULL,
     "fault.keywords[1] must be one of the following values: " KEYWORDS
     "; fault.keywords[2] must be one of the following values: " KEYWORDS},

    {"no kind", "{}", NULL,
     "fault.kind must be one of the following values: error, latency, drop, "
     "greylist, blackhole, throttle, sequence, quarantine, duplicate, "
     "misdeliver, mutate, hide"},
    {"no object", "\"error\"", NULL, "fault must be an object"},
    {"null", "null", NULL, "fault must be an object"},
};

static json_t *
parse(const char *text)
{
    json_t *json = NULL;
    struct cm_err err;
    if (cm_json_parse(&json, text, strlen(text), &err) != CM_OK)
        fail_msg("%s: %s", text, err.msg);
    return json;
}

static void
join(const struct cm_problems *problems, char out[2048])
{
    out[0] = '\0';
    for (size_t i = 0; i < problems->n; i++)
        say(out, "%s%s", i > 0 ? "; " : "", problems->at[i].text);
}

static void
test_rule_compile_fault_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct cm_rule rule;
        struct cm_problems problems;
        char out[2048] = "";
        json_t *doc = json_pack("{s:o}", "fault", parse(faults[i].fault));
        cm_problems_init(&problems);
        enum cm_status status = cm_rule_compile(&rule, "r1", doc, 0, &problems);
        if (status == CM_OK) {
            say_fault(out, &rule.fault);
            if (faults[i].stage &&
                strcmp(cm_stage_name(rule.stage), faults[i].stage) != 0)
                fail_msg("%s: at %s", faults[i].name,
                         cm_stage_name(rule.stage));
            cm_rule_fini(&rule);
        } else {
            join(&problems, out);
        }
        if ((status == CM_OK) != (faults[i].stage != NULL) ||
            strcmp(out, faults[i].out) != 0)
            fail_msg("%s: %s", faults[i].name, out);
        json_decref(doc);
    }
}

#define ERROR ",\"fault\":{\"kind\":\"error\"}}"
#define HIDE  ",\"fault\":{\"kind\":\"hide\",\"keywords\":[\"SIZE\"]}}"
#define UNSEEN                                                                 \
    " is not known where keywords are hidden: Postfix asks by the client's "   \
    "address alone"

static const struct {
    const char *name, *doc;
    const char *sentences; /* NULL: taken */
} documents[] = {
    {"nothing but a fault", "{\"fault\":{\"kind\":\"error\"}}", NULL},
    {"own id", "{\"id\":\"r1\"" ERROR, NULL},
    {"other id", "{\"id\":\"r2\"" ERROR,
     "id must be r1, under which it is "
     "kept"},
    {"bad id", "{\"id\":\"a b\"" ERROR,
     "id must be 1 to 64 letters, digits, dots, hyphens and underscores"},
    {"empty id", "{\"id\":\"\"" ERROR,
     "id must be 1 to 64 letters, digits, dots, hyphens and underscores"},
    {"no fault", "{}", "fault must be an object"},
    {"unknown member", "{\"propability\":1" ERROR,
     "property propability should not exist"},
    {"an array", "[]", "rule must be a JSON object"},
    {"types",
     "{\"enabled\":1,\"mode\":\"dead\",\"probability\":\"1\",\"seed\":1.5,"
     "\"maxHits\":0,\"expiresAt\":\"never\"" ERROR,
     "enabled must be a boolean value; mode must be one of the following "
     "values: live, shadow; probability must be a number conforming to the "
     "specified constraints; seed must be an integer number; expiresAt must "
     "be a valid ISO 8601 date string; maxHits must not be less than 1"},
    {"H7 probability", "{\"probability\":1.0000001" ERROR,
     "probability must not be greater than 1"},
    {"stage in capitals", "{\"stage\":\"RCPT\"" ERROR, NULL},
    {"stage that is none", "{\"stage\":\"eom\"" ERROR,
     "stage must be one of the following values: connect, helo, starttls, "
     "auth, mail, rcpt, data, message, noop, rset, vrfy, quit (where this "
     "error can act)"},
    {"stage a number", "{\"stage\":5" ERROR, "stage must be a string"},
    {"stage where the fault cannot act",
     "{\"stage\":\"rcpt\",\"fault\":{\"kind\":\"blackhole\"}}",
     "stage must be one of the following values: message (where this "
     "blackhole can act)"},
    {"ackLost elsewhere",
     "{\"stage\":\"rcpt\",\"fault\":{\"kind\":\"drop\","
     "\"outcome\":\"ackLost\"}}",
     "stage must be one of the following values: message (where this drop can "
     "act)"},
    {"limit of one stage at another",
     "{\"stage\":\"rcpt\",\"fault\":" LIMIT("justOver", "data") "}",
     "stage must be one of the following values: data (where this latency can "
     "act)"},
    {"limit at its stage",
     "{\"stage\":\"data\",\"fault\":" LIMIT("justOver", "data") "}", NULL},
    {"limit's stage knows no recipient",
     "{\"inbox\":\"a@b\",\"fault\":" LIMIT("justOver", "connect") "}",
     "inbox is not known at stage connect, only at rcpt, data, message"},
    {"sequence with a blackhole at rcpt",
     "{\"stage\":\"rcpt\",\"fault\":{\"kind\":\"sequence\",\"steps\":["
     "{\"kind\":\"blackhole\"}]}}",
     "stage must be one of the following values: message (where this sequence "
     "can act)"},
    {"recipient too early",
     "{\"stage\":\"mail\",\"inbox\":\"a@b\","
     "\"domain\":\"b\",\"attempt\":{\"lte\":1}" ERROR,
     "inbox is not known at stage mail, only at rcpt, data, message; domain "
     "is not known at stage mail, only at rcpt, data, message; attempt is not "
     "known at stage mail, only at rcpt, data, message"},
    {"sender too early", "{\"stage\":\"helo\",\"sender\":\"a@b\"" ERROR,
     "sender is not known at stage helo, only at mail, rcpt, data, message"},
    {"user too early", "{\"stage\":\"helo\",\"user\":\"u\"" ERROR,
     "user is not known at stage helo, only at auth, mail, rcpt, data, "
     "message"},
    {"user at auth",
     "{\"stage\":\"auth\",\"user\":\"u\","
     "\"mechanism\":\"PLAIN\"" ERROR,
     NULL},
    {"mechanism elsewhere", "{\"mechanism\":\"PLAIN\"" ERROR,
     "mechanism is not known at stage rcpt, only at auth"},
    {"client behind the hook", "{\"stage\":\"auth\",\"client\":\"::1\"" ERROR,
     "client is not known at stage auth, only at connect, helo, mail, rcpt, "
     "data, message"},
    {"client at connect", "{\"stage\":\"connect\",\"client\":\"::1\"" ERROR,
     NULL},
    {"helo at connect", "{\"stage\":\"connect\",\"helo\":\"x\"" ERROR,
     "helo is not known at stage connect, only at helo, mail, rcpt, data, "
     "message"},
    {"header too early", "{\"header\":{\"A\":\"b\"}" ERROR,
     "header is not known at stage rcpt, only at message"},
    {"size too early", "{\"stage\":\"helo\",\"size\":{\"gte\":1}" ERROR,
     "size is not known at stage helo, only at mail, rcpt, data, message"},
    {"size as declared at mail",
     "{\"stage\":\"mail\",\"size\":{\"gte\":1}" ERROR, NULL},
    {"size as declared at rcpt", "{\"size\":{\"gte\":1}" ERROR, NULL},
    {"size as declared at data",
     "{\"stage\":\"data\",\"size\":{\"lte\":1}" ERROR, NULL},
    {"default stage counts",
     "{\"header\":{\"A\":\"b\"},\"fault\":{\"kind\":\"drop\"}}", NULL},
    {"throttle per inbox at mail",
     "{\"stage\":\"mail\",\"fault\":{\"kind\":\"throttle\",\"rate\":1}}",
     "fault.per must be sender or client at stage mail: the recipient is not "
     "known yet"},
    {"throttle per sender at mail",
     "{\"stage\":\"mail\",\"fault\":{\"kind\":\"throttle\",\"rate\":1,"
     "\"per\":\"sender\"}}",
     NULL},
    {"hide with the client",
     "{\"client\":\"192.0.2.0/24\",\"probability\":0.5,\"maxHits\":3,"
     "\"seed\":1,\"mode\":\"shadow\"" HIDE,
     NULL},
    {"hide at its stage", "{\"stage\":\"HELO\"" HIDE, NULL},
    {"hide elsewhere", "{\"stage\":\"rcpt\"" HIDE,
     "stage must be one of the following values: helo (where this hide can "
     "act)"},
    {"hide with the greeting", "{\"helo\":\"mx\"" HIDE, "helo" UNSEEN},
    {"hide with all the rest",
     "{\"inbox\":\"a@b\",\"domain\":\"b\",\"sender\":\"<>\",\"user\":\"u\","
     "\"mechanism\":\"x\",\"header\":{\"A\":\"b\"},\"size\":{\"gte\":1},"
     "\"attempt\":{\"gte\":1}" HIDE,
     "inbox" UNSEEN "; domain" UNSEEN "; sender" UNSEEN "; user" UNSEEN
     "; mechanism" UNSEEN "; header" UNSEEN "; size" UNSEEN "; attempt" UNSEEN},
    {"bad conditions",
     "{\"inbox\":\"a@@b\",\"domain\":\"*.b\",\"sender\":\"x y\","
     "\"client\":\"1.2.3.4/8\",\"helo\":\"\",\"user\":\"\"" ERROR,
     "inbox must be an address or a pattern such as *@example.com: domain "
     "holds a character that it must not; domain must be a domain: domain "
     "holds a character that it must not; sender must be an address or a "
     "pattern such as *@example.com: local part holds a character that it "
     "must not, or is not quoted; client must not set bits beyond its prefix "
     "length; helo must not be empty; user must not be empty"},
    {"nobody receives as <>", "{\"inbox\":\"<>\"" ERROR,
     "inbox must be an address or a pattern such as *@example.com: nobody "
     "receives as <>"},
    {"pattern's domain", "{\"inbox\":\"a@*.\xc3\xbc\"" ERROR,
     "inbox must be an address or a pattern such as *@example.com: a "
     "pattern's domain must be 1 to 255 letters, digits and wildcards of "
     "ASCII"},
    {"pattern without a domain after the at sign", "{\"inbox\":\"*@\"" ERROR,
     "inbox must be an address or a pattern such as *@example.com: domain is "
     "empty or has an empty label"},
    {"M5 NUL cannot even be written", "{\"inbox\":\"*\x7f@b\"" ERROR,
     "inbox must be an address or a pattern such as *@example.com: address "
     "holds a control character"},
    {"mechanism", "{\"stage\":\"auth\",\"mechanism\":\"PL AIN\"" ERROR,
     "mechanism must be the name of a SASL mechanism"},
    {"headers",
     "{\"stage\":\"message\",\"header\":{\"A B\":\"x\",\"C\":5}" ERROR,
     "header must be named by a header's name; header must have a pattern as "
     "its value"},
    {"no headers", "{\"stage\":\"message\",\"header\":{}" ERROR,
     "header must be an object of 1 to 8 headers"},
    {"headers an array", "{\"stage\":\"message\",\"header\":[]" ERROR,
     "header must be an object of 1 to 8 headers"},
    {"empty range", "{\"stage\":\"message\",\"size\":{}" ERROR,
     "size must have gte, lte or both"},
    {"range upside down", "{\"attempt\":{\"gte\":3,\"lte\":2}" ERROR,
     "attempt must not have gte greater than lte"},
    {"attempt 0", "{\"attempt\":{\"gte\":0}" ERROR,
     "attempt.gte must not be less than 1"},
    {"range with more", "{\"attempt\":{\"gt\":1,\"gte\":1}" ERROR,
     "attempt.property gt should not exist"},
    {"range as a number", "{\"attempt\":2" ERROR,
     "nested property attempt must be either object or array"},
};

static void
test_rule_compile_document_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        struct cm_rule rule;
        struct cm_problems problems;
        char out[2048] = "";
        json_t *doc = parse(documents[i].doc);
        cm_problems_init(&problems);
        enum cm_status status = cm_rule_compile(&rule, "r1", doc, 0, &problems);
        join(&problems, out);
        const char *want = documents[i].sentences ? documents[i].sentences : "";
        if (status != (*want ? CM_EINVAL : CM_OK) || strcmp(out, want) != 0)
            fail_msg("%s: %s", documents[i].name, out);
        if (status == CM_OK)
            cm_rule_fini(&rule);
        json_decref(doc);
    }
}

#define WHOLE                                                                  \
    "{\"id\":\"r7\",\"description\":\"d\",\"enabled\":false,"                  \
    "\"mode\":\"shadow\",\"stage\":\"message\","                               \
    "\"inbox\":\"*@\xc3\x9c.Example\",\"domain\":\"\xc3\xbc.example\","        \
    "\"sender\":\"M\xc3\x9cller*@X\",\"client\":\"2001:db8::/32\","            \
    "\"helo\":\"MX*\",\"user\":\"U\",\"header\":{\"X-A\":\"B*\",\"C\":\"d\"}," \
    "\"size\":{\"gte\":10},\"attempt\":{\"gte\":1,\"lte\":2},"                 \
    "\"probability\":0.3,\"seed\":42,"                                         \
    "\"expiresAt\":\"2026-01-31T12:00:00Z\",\"maxHits\":100,"                  \
    "\"fault\":{\"kind\":\"sequence\",\"steps\":[\"451 4.7.1 a\",\"ok\","      \
    "{\"kind\":\"error\",\"text\":[\"x\",\"y\"]}]}}"

static void
check_whole(const struct cm_rule *rule)
{
    assert_string_equal(rule->id, "r7");
    assert_false(rule->enabled);
    assert_int_equal(rule->mode, CM_RULE_SHADOW);
    assert_int_equal(rule->stage, CM_STAGE_MESSAGE);
    assert_int_equal(rule->match.inbox.kind, CM_PATTERN_GLOB);
    assert_string_equal(rule->match.inbox.text, "*@xn--tda.example");
    assert_string_equal(rule->match.domain, "xn--tda.example");
    assert_int_equal(rule->match.sender.kind, CM_PATTERN_GLOB);
    assert_string_equal(rule->match.sender.text, "m\xc3\xbcller*@x");
    assert_int_equal(rule->match.client.bits, 32);
    assert_string_equal(rule->match.helo.text, "mx*");
    assert_int_equal(rule->match.user.kind, CM_PATTERN_EXACT);
    assert_string_equal(rule->match.user.text, "U");
    assert_int_equal(rule->match.nheaders, 2);
    assert_string_equal(rule->match.headers[0].name, "x-a");
    assert_string_equal(rule->match.headers[0].pattern, "b*");
    assert_true(rule->match.size.given);
    assert_int_equal(rule->match.size.gte, 10);
    assert_true(rule->match.size.lte == INT64_MAX);
    assert_int_equal(rule->match.attempt.lte, 2);
    assert_int_equal(rule->probability_ppb, 300000000);
    assert_true(rule->seeded);
    assert_int_equal(rule->seed, 42);
    assert_true(rule->expires_at_ms == 1769860800000);
    assert_int_equal(rule->max_hits, 100);
    assert_int_equal(rule->fault.u.sequence.nsteps, 3);
}

static void
test_rule_compile_takes_every_member(void **state)
{
    struct cm_rule rule;
    struct cm_problems problems;
    json_t *doc = parse(WHOLE);
    (void)state;
    cm_problems_init(&problems);
    if (cm_rule_compile(&rule, NULL, doc, 0, &problems) != CM_OK)
        fail_msg("%s", cm_problems_first(&problems));
    check_whole(&rule);
    cm_rule_fini(&rule);
    json_decref(doc);
}

static void
test_rule_compile_defaults(void **state)
{
    struct cm_rule rule;
    struct cm_problems problems;
    json_t *doc = parse("{\"fault\":{\"kind\":\"error\"}}");
    (void)state;
    cm_problems_init(&problems);
    assert_int_equal(cm_rule_compile(&rule, "a.b-c_9", doc, 0, &problems),
                     CM_OK);
    assert_string_equal(rule.id, "a.b-c_9");
    assert_true(rule.enabled);
    assert_int_equal(rule.mode, CM_RULE_LIVE);
    assert_int_equal(rule.probability_ppb, CM_COIN_ALWAYS);
    assert_false(rule.seeded);
    assert_true(rule.expires_at_ms == CM_RULE_NEVER_EXPIRES);
    assert_int_equal(rule.max_hits, 0);
    assert_int_equal(rule.match.inbox.kind, CM_PATTERN_ANY);
    assert_int_equal(rule.match.client.family, 0);
    assert_false(rule.match.size.given);
    cm_rule_fini(&rule);
    assert_int_equal(cm_rule_compile(&rule, NULL, doc, 0, &problems),
                     CM_EINVAL);
    json_decref(doc);
}

static void
test_rule_compile_flags_keep_the_case_of_local_parts(void **state)
{
    struct cm_rule rule;
    struct cm_problems problems;
    json_t *doc = parse("{\"inbox\":\"User@X\",\"sender\":\"U*@X\"" ERROR);
    (void)state;
    cm_problems_init(&problems);
    assert_int_equal(
        cm_rule_compile(&rule, "r", doc, CM_ADDRESS_KEEP_CASE, &problems),
        CM_OK);
    assert_string_equal(rule.match.inbox.text, "User@x");
    assert_string_equal(rule.match.sender.text, "U*@x");
    cm_rule_fini(&rule);
    json_decref(doc);
}

static void
test_rule_compile_without_memory_is_never_half(void **state)
{
    static const char *const docs[] = {
        WHOLE,
        "{\"fault\":{\"kind\":\"throttle\",\"rate\":1}}",
        "{\"fault\":{\"kind\":\"quarantine\"}}",
        "{\"fault\":{\"kind\":\"misdeliver\",\"to\":\"a@b\"}}",
        "{\"fault\":{\"kind\":\"mutate\",\"addHeader\":{\"A\":\"b\"}}}",
        "{\"fault\":{\"kind\":\"hide\",\"keywords\":[\"size\",\"dsn\"]}}",
        ("{\"stage\":\"auth\",\"mechanism\":\"x\"" ERROR),
        "{\"fault\":{\"kind\":\"error\",\"types\":[\"permanent\","
        "\"permanent\",\"permanent\",\"permanent\",\"permanent\","
        "\"permanent\",\"permanent\",\"permanent\",\"permanent\"]}}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof docs / sizeof *docs; i++) {
        json_t *doc = parse(docs[i]);
        enum cm_status status = CM_ENOMEM;
        struct cm_rule rule;
        long n = 1;
        for (; status != CM_OK; n++) {
            struct cm_problems problems;
            cm_problems_init(&problems);
            failing_alloc_arm(n);
            status = cm_rule_compile(&rule, "r7", doc, 0, &problems);
            bool failed = failing_alloc_disarm();
            if (status != (failed ? CM_ENOMEM : CM_OK))
                fail_msg("%s, call %ld: %s %s", docs[i], n,
                         cm_status_name(status), cm_problems_first(&problems));
        }
        assert_true(n > 10);
        if (i == 0)
            check_whole(&rule);
        cm_rule_fini(&rule);
        json_decref(doc);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule_compile_fault_table),
        cmocka_unit_test(test_rule_compile_document_table),
        cmocka_unit_test(test_rule_compile_takes_every_member),
        cmocka_unit_test(test_rule_compile_defaults),
        cmocka_unit_test(test_rule_compile_flags_keep_the_case_of_local_parts),
        cmocka_unit_test(test_rule_compile_without_memory_is_never_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
