/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULE_H
#define CM_RULE_H

#include "milter/model/cidr.h"
#include "milter/model/coin.h"
#include "milter/model/fault.h"
#include "milter/model/stage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_event;

/*
 * One rule = match + coin + fault + bounds. Every face of the API compiles into
 * rules, and the filter knows only rules. Built by rule_json (documents) and
 * inbox (VaultSandbox configurations); immutable afterwards.
 */
#define CM_RULE_NEVER_EXPIRES INT64_MAX

enum cm_rule_mode {
    CM_RULE_LIVE,
    CM_RULE_SHADOW /* match, toss and record, but do not hurt */
};

enum cm_pattern_kind {
    CM_PATTERN_ANY, /* the condition is not given */
    CM_PATTERN_EXACT,
    CM_PATTERN_GLOB
};
struct cm_pattern {
    enum cm_pattern_kind kind;
    char *text; /* owned; canonical address or lower-case glob; "" is <> */
};

struct cm_range {
    bool given;
    int64_t gte, lte; /* inclusive; INT64_MIN / INT64_MAX when open */
};

struct cm_header_match {
    char *name;    /* owned, lower case */
    char *pattern; /* owned glob, matched against the value without case */
};
#define CM_RULE_HEADERS_MAX 8

struct cm_match {
    struct cm_pattern inbox; /* recipient */
    char *domain;            /* owned A-label of the recipient, NULL: any */
    struct cm_pattern sender;
    struct cm_cidr client;
    struct cm_pattern helo; /* without case */
    struct cm_pattern user;
    char *mechanism;                 /* owned, upper case, NULL: any */
    struct cm_header_match *headers; /* owned */
    size_t nheaders;
    struct cm_range size;    /* bytes, declared or received: see cm_event */
    struct cm_range attempt; /* 1 is the first */
};

/* Which API a rule was made by. All but the first are in the order in which
 * they have a say; an inbox's configuration has it before them. */
enum cm_face {
    CM_FACE_RULE,    /* our own rules */
    CM_FACE_FAULT,   /* LocalStack's fault rules */
    CM_FACE_TRIGGER, /* Mailpit's triggers */
    CM_FACE_EFFECT,  /* LocalStack's effects: add to what the others let pass */
    CM_FACE_INBOX    /* VaultSandbox's configuration of one inbox */
};

/* cm_face_name - "rule", "fault", "trigger", "effect", "inbox"; static. */
const char *cm_face_name(enum cm_face face);

struct cm_rule {
    char *id; /* owned; unique among the rules of one face, e.g. "r7" */
    enum cm_face face;
    bool enabled;
    enum cm_rule_mode mode;
    enum cm_stage stage; /* where the fault acts */
    struct cm_match match;
    uint32_t probability_ppb;
    bool seeded;
    uint64_t seed;
    int64_t expires_at_ms; /* wall clock; CM_RULE_NEVER_EXPIRES */
    uint64_t max_hits;     /* 0: no bound */
    struct cm_fault fault;
};

/* cm_rule_fini - free what the rule owns; a zeroed rule may be passed. */
void cm_rule_fini(struct cm_rule *rule);

/*
 * cm_rule_matches - do all given conditions hold for the event? A condition
 * whose fact the event does not know (no such macro, an address that is not
 * valid) is UNKNOWN, and an UNKNOWN never injects a fault. The stage, the coin,
 * enabled and expiry are not looked at here.
 */
enum cm_verity { CM_NO, CM_YES, CM_UNKNOWN };
enum cm_verity cm_rule_matches(const struct cm_rule *rule,
                               const struct cm_event *event);

/* cm_rule_failing - the same, for who explains it: *condition_r names the
 * condition that is the reason, as a document does: the first that is NO, or
 * else the first that is UNKNOWN; NULL when there is none. */
enum cm_verity cm_rule_failing(const struct cm_rule *rule,
                               const struct cm_event *event,
                               const char **condition_r);

/*
 * cm_rule_is_for_message - does it name no recipient, and touch a message
 * whole? At DATA and at the end of a message such a rule has one turn for the
 * message, not one for each recipient. What takes one recipient at a time
 * (blackhole, duplicate, misdeliver) or counts by recipients (an attempt,
 * greylisting, a throttle per inbox or domain, a sequence with the recipient in
 * its key) has a
 * turn for each.
 */
bool cm_rule_is_for_message(const struct cm_rule *rule);

/*
 * cm_rule_print_name - the rule's name wherever it is told from others: its id,
 * with the name of its face and a colon before it unless it is a rule of our
 * own ("r7", "inbox:greylist", "fault:12.1"). Into out, cut to cap with its
 * NUL; CM_RULE_NAME_BYTES always suffice.
 */
#define CM_RULE_NAME_BYTES 80
void cm_rule_print_name(const struct cm_rule *rule, char *out, size_t cap);

/* cm_rule_in_force - enabled and not expired at now_ms (wall clock). */
bool cm_rule_in_force(const struct cm_rule *rule, int64_t now_ms);

#endif
