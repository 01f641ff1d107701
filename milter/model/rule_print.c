/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One small function per kind of fault, each the mirror of the one that builds
 * it. jansson's setters forget what they cannot allocate, so every one goes
 * through put(), which latches.
 */
#include "milter/model/rule_print.h"
#include "milter/model/fault.h"
#include "milter/model/reply.h"
#include "milter/model/rfc3339.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* An object on its way; NULL once memory ran out. */
struct print {
    json_t *json;
};

/* Takes value. */
static void
put(struct print *p, const char *name, json_t *value)
{
    if (p->json && value && json_object_set_new(p->json, name, value) == 0)
        return;
    if (!p->json)
        json_decref(value);
    json_decref(p->json);
    p->json = NULL;
}

static void
put_text(struct print *p, const char *name, const char *text)
{
    put(p, name, json_string(text));
}

static void
put_number(struct print *p, const char *name, int64_t number)
{
    put(p, name, json_integer(number));
}

static void
put_real(struct print *p, const char *name, double number)
{
    bool whole =
        number >= -9e15 && number <= 9e15 && number == (double)(int64_t)number;
    put(p, name, whole ? json_integer((int64_t)number) : json_real(number));
}

/* --- faults --- */

static void
put_reply(struct print *p, const struct cm_reply *reply)
{
    json_t *lines = json_array();
    for (size_t i = 0; lines && i < reply->nlines; i++) {
        if (json_array_append_new(lines, json_string(reply->lines[i])) != 0) {
            json_decref(lines);
            lines = NULL;
        }
    }
    put_number(p, "code", reply->code);
    put_text(p, "enhanced", reply->enhanced);
    put(p, "text", lines);
}

/* The names of the bits that are set, in their order. */
static void
put_names(struct print *p, const char *name, unsigned bits,
          const char *const *names)
{
    json_t *list = json_array();
    for (unsigned i = 0; list && names[i]; i++) {
        if ((bits & (1u << i)) &&
            json_array_append_new(list, json_string(names[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    put(p, name, list);
}

static void
print_error(struct print *p, const struct cm_fault *fault)
{
    static const char *const types[] = {"temporary", "permanent", NULL};
    if (fault->u.error.reply)
        put_reply(p, fault->u.error.reply);
    else
        put_names(p, "types", fault->u.error.types, types);
}

static void
print_latency(struct print *p, const struct cm_fault *fault)
{
    const struct cm_fault_latency *latency = &fault->u.latency;
    switch (latency->kind) {
    case CM_DELAY_FIXED:
        put_number(p, "ms", latency->max_ms);
        break;
    case CM_DELAY_UNIFORM:
        put_number(p, "min", latency->min_ms);
        put_number(p, "max", latency->max_ms);
        break;
    case CM_DELAY_LOGNORMAL:
        put_real(p, "median", latency->median_ms);
        put_real(p, "sigma", latency->sigma);
        break;
    }
}

static void
print_drop(struct print *p, const struct cm_fault *fault)
{
    put_text(p, "how", fault->u.drop.how == CM_DROP_RST ? "rst" : "fin");
    put_text(p, "outcome",
             fault->u.drop.outcome == CM_DROP_LOST ? "lost" : "ackLost");
}

static void
print_greylist(struct print *p, const struct cm_fault *fault)
{
    static const char *const tracks[] = {[CM_TRACK_IP] = "ip",
                                         [CM_TRACK_SENDER] = "sender",
                                         [CM_TRACK_IP_SENDER] = "ip_sender"};
    const struct cm_fault_greylist *grey = &fault->u.greylist;
    put_number(p, "retryWindowMs", grey->window_ms);
    put_number(p, "maxAttempts", grey->max_attempts);
    put_text(p, "trackBy", tracks[grey->track]);
    put_number(p, "minDelayMs", grey->min_delay_ms);
}

static void
print_throttle(struct print *p, const struct cm_fault *fault)
{
    static const char *const per[] = {[CM_THROTTLE_INBOX] = "inbox",
                                      [CM_THROTTLE_DOMAIN] = "domain",
                                      [CM_THROTTLE_SENDER] = "sender",
                                      [CM_THROTTLE_CLIENT] = "client"};
    const struct cm_fault_throttle *throttle = &fault->u.throttle;
    put_real(p, "rate", throttle->rate);
    put_number(p, "burst", throttle->burst);
    put_text(p, "per", per[throttle->per]);
    put_reply(p, throttle->reply);
}

static void
print_sequence(struct print *p, const struct cm_fault *fault)
{
    static const char *const parts[] = {"client", "sender", "recipient", NULL};
    const struct cm_fault_sequence *sequence = &fault->u.sequence;
    json_t *steps = json_array();
    for (size_t i = 0; steps && i < sequence->nsteps; i++) {
        const struct cm_fault *step = &sequence->steps[i];
        json_t *json = step->kind == CM_FAULT_COUNT ? json_string("ok")
                                                    : cm_fault_json(step);
        if (json_array_append_new(steps, json) != 0) {
            json_decref(steps);
            steps = NULL;
        }
    }
    put(p, "steps", steps);
    put_names(p, "key", sequence->key, parts);
    put_text(p, "after", sequence->repeat ? "repeat" : "ok");
    put_number(p, "ttlMs", sequence->ttl_ms);
}

static void
print_mutate(struct print *p, const struct cm_fault *fault)
{
    const struct cm_fault_mutate *mutate = &fault->u.mutate;
    switch (mutate->how) {
    case CM_MUTATE_TRUNCATE_BODY:
        put_number(p, "truncateBody", mutate->n);
        break;
    case CM_MUTATE_DROP_HEADER:
        put_text(p, "dropHeader", mutate->name);
        break;
    case CM_MUTATE_ADD_HEADER:
        put(p, "addHeader", json_pack("{s:s}", mutate->name, mutate->value));
        break;
    case CM_MUTATE_FLIP_BITS:
        put_number(p, "flipBits", mutate->n);
        break;
    }
}

/* "STARTTLS,SIZE" as an array. */
static void
print_hide(struct print *p, const struct cm_fault *fault)
{
    json_t *list = json_array();
    for (const char *at = fault->u.hide; list && *at;) {
        size_t len = strcspn(at, ",");
        if (json_array_append_new(list, json_stringn(at, len)) != 0) {
            json_decref(list);
            list = NULL;
        }
        at += len + (at[len] == ',');
    }
    put(p, "keywords", list);
}

json_t *
cm_fault_json(const struct cm_fault *fault)
{
    struct print p = {json_pack("{s:s}", "kind", cm_fault_name(fault->kind))};
    switch (fault->kind) {
    case CM_FAULT_ERROR:
        print_error(&p, fault);
        break;
    case CM_FAULT_LATENCY:
        print_latency(&p, fault);
        break;
    case CM_FAULT_DROP:
        print_drop(&p, fault);
        break;
    case CM_FAULT_GREYLIST:
        print_greylist(&p, fault);
        break;
    case CM_FAULT_BLACKHOLE:
        put(&p, "triggerWebhooks", json_boolean(fault->u.blackhole.webhooks));
        break;
    case CM_FAULT_THROTTLE:
        print_throttle(&p, fault);
        break;
    case CM_FAULT_SEQUENCE:
        print_sequence(&p, fault);
        break;
    case CM_FAULT_QUARANTINE:
        put_text(&p, "reason", fault->u.quarantine_reason);
        break;
    case CM_FAULT_MISDELIVER:
        put_text(&p, "to", fault->u.misdeliver_to);
        break;
    case CM_FAULT_MUTATE:
        print_mutate(&p, fault);
        break;
    case CM_FAULT_HIDE:
        print_hide(&p, fault);
        break;
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_COUNT:
        break;
    }
    return p.json;
}

/* --- conditions --- */

static void
put_pattern(struct print *p, const char *name, const struct cm_pattern *pattern)
{
    if (pattern->kind != CM_PATTERN_ANY)
        put_text(p, name, *pattern->text ? pattern->text : "<>");
}

static void
put_range(struct print *p, const char *name, const struct cm_range *range)
{
    struct print bounds = {json_object()};
    if (!range->given) {
        json_decref(bounds.json);
        return;
    }
    if (range->gte != INT64_MIN)
        put_number(&bounds, "gte", range->gte);
    if (range->lte != INT64_MAX)
        put_number(&bounds, "lte", range->lte);
    put(p, name, bounds.json);
}

static void
put_client(struct print *p, const struct cm_cidr *client)
{
    char addr[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 5];
    if (client->family == 0 ||
        !inet_ntop(client->family, client->addr, addr, sizeof addr))
        return;
    snprintf(text, sizeof text, "%s/%u", addr, client->bits);
    put_text(p, "client", text);
}

static void
print_match(struct print *p, const struct cm_match *match)
{
    put_pattern(p, "inbox", &match->inbox);
    if (match->domain)
        put_text(p, "domain", match->domain);
    put_pattern(p, "sender", &match->sender);
    put_client(p, &match->client);
    put_pattern(p, "helo", &match->helo);
    put_pattern(p, "user", &match->user);
    if (match->mechanism)
        put_text(p, "mechanism", match->mechanism);
    if (match->nheaders > 0) {
        struct print headers = {json_object()};
        for (size_t i = 0; i < match->nheaders; i++)
            put_text(&headers, match->headers[i].name,
                     match->headers[i].pattern);
        put(p, "header", headers.json);
    }
    put_range(p, "size", &match->size);
    put_range(p, "attempt", &match->attempt);
}

json_t *
cm_rule_json(const struct cm_rule *rule)
{
    struct print p = {json_pack("{s:s}", "id", rule->id)};
    char expiry[32];
    put(&p, "enabled", json_boolean(rule->enabled));
    put_text(&p, "mode", rule->mode == CM_RULE_SHADOW ? "shadow" : "live");
    put_text(&p, "stage", cm_stage_name(rule->stage));
    print_match(&p, &rule->match);
    put_real(&p, "probability",
             (double)rule->probability_ppb / (double)CM_COIN_ALWAYS);
    if (rule->seeded)
        put_number(&p, "seed", (int64_t)rule->seed);
    if (rule->expires_at_ms != CM_RULE_NEVER_EXPIRES) {
        cm_time_print(rule->expires_at_ms, expiry, sizeof expiry);
        put_text(&p, "expiresAt", expiry);
    }
    if (rule->max_hits > 0)
        put_number(&p, "maxHits", (int64_t)rule->max_hits);
    put(&p, "fault", cm_fault_json(&rule->fault));
    return p.json;
}
