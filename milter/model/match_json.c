/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The conditions of a rule document. Literals are put into the canonical form
 * in which events carry them, patterns as far as a pattern has one, so that
 * matching is a comparison of bytes. A table says at which stages each is
 * known; a condition that could never be told is refused when it is written,
 * for as a rule it would be silently dead.
 *
 * What is known where: the envelope from its commands on; the size as the
 * client declared it with MAIL (SIZE= of RFC 1870), and as it was received at
 * the end of the message; the client's address and greeting in the milter's own
 * events, but not in the hook that sees the commands of the other stages; login
 * and mechanism as the AUTH command or the MTA's macros tell.
 */
#include "milter/model/match_json.h"
#include "milter/model/address.h"
#include "milter/model/ascii.h"
#include "milter/model/glob.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIT(stage) CM_STAGE_BIT(CM_STAGE_##stage)
#define RECIPIENT  (BIT(RCPT) | BIT(DATA) | BIT(MESSAGE))
#define SENDER     (BIT(MAIL) | RECIPIENT)

static const struct {
    const char *name;
    unsigned stages;
} conditions[] = {
    {"inbox", RECIPIENT},
    {"domain", RECIPIENT},
    {"sender", SENDER},
    {"client", BIT(CONNECT) | BIT(HELO) | SENDER},
    {"helo", BIT(HELO) | SENDER},
    {"user", BIT(AUTH) | SENDER},
    {"mechanism", BIT(AUTH)},
    {"header", BIT(MESSAGE)},
    {"size", SENDER},
    {"attempt", RECIPIENT},
};

#define BOUND(n, lo)                                                           \
    {                                                                          \
        .name = n, .type = CM_MEMBER_INTEGER, .min = lo,                       \
        .max = CM_MEMBER_UNBOUNDED                                             \
    }
const struct cm_member cm_match_size_members[] = {
    BOUND("gte", 0), BOUND("lte", 0), CM_MEMBER_ROW_END};
const struct cm_member cm_match_attempt_members[] = {
    BOUND("gte", 1), BOUND("lte", 1), CM_MEMBER_ROW_END};

void
cm_match_check_stage(struct cm_draft *draft, enum cm_stage stage)
{
    for (size_t i = 0; i < sizeof conditions / sizeof conditions[0]; i++) {
        char list[128];
        const char *name = conditions[i].name;
        if (!cm_draft_is_given(draft, name) ||
            conditions[i].stages & CM_STAGE_BIT(stage))
            continue;
        cm_stage_list(conditions[i].stages, list, sizeof list);
        cm_draft_complain(draft, name, "is not known at stage %s, only at %s",
                          cm_stage_name(stage), list);
    }
}

void
cm_match_check_hide(struct cm_draft *draft)
{
    for (size_t i = 0; i < sizeof conditions / sizeof conditions[0]; i++) {
        const char *name = conditions[i].name;
        if (cm_draft_is_given(draft, name) && strcmp(name, "client") != 0)
            cm_draft_complain(draft, name,
                              "is not known where keywords are hidden: Postfix "
                              "asks by the client's address alone");
    }
}

static void
lower(char *s)
{
    for (; *s; s++)
        *s = cm_ascii_lower(*s);
}

/* A pattern's domain: letters, digits, dots, hyphens, underscores and the two
 * wildcards. Beyond ASCII there is no telling which A-labels were meant. */
static bool
is_domain_pattern(const char *s)
{
    size_t len = strlen(s);
    for (const char *c = s; *c; c++) {
        if (!cm_ascii_is_letter(*c) && !cm_ascii_is_digit(*c) &&
            !strchr("-_.*?[]:", *c))
            return false;
    }
    return len > 0 && len <= CM_ADDRESS_DOMAIN_MAX;
}

/* "*@example.com" to its canonical form. */
static enum cm_status
fold_pattern(const char *pattern, unsigned flags,
             char out[CM_ADDRESS_MAX_BYTES + 1], struct cm_err *err)
{
    char local[CM_ADDRESS_LOCAL_MAX + 1], domain[CM_ADDRESS_DOMAIN_MAX + 1];
    const char *at = strrchr(pattern, '@');
    size_t local_len = at ? (size_t)(at - pattern) : strlen(pattern);
    enum cm_status status =
        cm_address_fold_local(local, pattern, local_len, flags, err);
    if (status != CM_OK)
        return status;
    if (!at) {
        snprintf(out, CM_ADDRESS_MAX_BYTES + 1, "%s", local);
        return CM_OK;
    }
    if (!cm_glob_is_pattern(at + 1)) {
        status = cm_address_parse_domain(domain, at + 1, strlen(at + 1), err);
    } else if (is_domain_pattern(at + 1)) {
        snprintf(domain, sizeof domain, "%s", at + 1);
        lower(domain);
    } else {
        status = cm_err_set(err, CM_EINVAL,
                            "a pattern's domain must be 1 to %d letters, "
                            "digits and wildcards of ASCII",
                            CM_ADDRESS_DOMAIN_MAX);
    }
    if (status == CM_OK)
        snprintf(out, CM_ADDRESS_MAX_BYTES + 1, "%s@%s", local, domain);
    return status;
}

static void
build_address(struct cm_draft *draft, const char *name, bool may_be_null,
              struct cm_pattern *pattern)
{
    struct cm_address addr;
    struct cm_err err;
    enum cm_status status;
    const char *s = cm_draft_text(draft, name);
    if (!s)
        return;
    bool glob = cm_glob_is_pattern(s);
    if (glob)
        status = fold_pattern(s, draft->flags, addr.text, &err);
    else
        status = cm_address_parse(&addr, s, strlen(s), draft->flags, &err);
    if (status == CM_OK && !glob && addr.len == 0 && !may_be_null)
        status = cm_err_set(&err, CM_EINVAL, "nobody receives as <>");

    if (status == CM_ENOMEM) {
        draft->status = status;
    } else if (status != CM_OK) {
        cm_draft_complain(draft, name,
                          "must be an address or a pattern such as "
                          "*@example.com: %s",
                          err.msg);
    } else {
        pattern->kind = glob ? CM_PATTERN_GLOB : CM_PATTERN_EXACT;
        pattern->text = cm_draft_dup(draft, addr.text);
    }
}

static void
build_domain(struct cm_draft *draft, struct cm_match *match)
{
    char domain[CM_ADDRESS_DOMAIN_MAX + 1];
    struct cm_err err;
    const char *s = cm_draft_text(draft, "domain");
    if (!s)
        return;
    enum cm_status status = cm_address_parse_domain(domain, s, strlen(s), &err);
    if (status == CM_OK)
        match->domain = cm_draft_dup(draft, domain);
    else if (status == CM_ENOMEM)
        draft->status = status;
    else
        cm_draft_complain(draft, "domain", "must be a domain: %s", err.msg);
}

static void
build_client(struct cm_draft *draft, struct cm_match *match)
{
    struct cm_err err;
    const char *s = cm_draft_text(draft, "client");
    if (s && cm_cidr_parse(&match->client, s, &err) != CM_OK)
        cm_draft_complain(draft, "client", "%s", err.msg);
}

/* Patterns of plain text: the name after HELO, a login. */
static void
build_text(struct cm_draft *draft, const char *name, bool fold,
           struct cm_pattern *pattern)
{
    const char *s = cm_draft_text(draft, name);
    if (!s)
        return;
    if (*s == '\0') {
        cm_draft_complain(draft, name, "must not be empty");
        return;
    }
    pattern->kind = cm_glob_is_pattern(s) ? CM_PATTERN_GLOB : CM_PATTERN_EXACT;
    pattern->text = cm_draft_dup(draft, s);
    if (pattern->text && fold)
        lower(pattern->text);
}

/* RFC 4422 3.1: 1 to 20 upper-case letters, digits, hyphens, underscores. */
static void
build_mechanism(struct cm_draft *draft, struct cm_match *match)
{
    const char *s = cm_draft_text(draft, "mechanism");
    if (!s)
        return;
    size_t len = strlen(s);
    bool good = len >= 1 && len <= 20;
    for (const char *c = s; *c; c++)
        good = good && (cm_ascii_is_letter(*c) || cm_ascii_is_digit(*c) ||
                        *c == '-' || *c == '_');
    if (!good) {
        cm_draft_complain(draft, "mechanism",
                          "must be the name of a SASL mechanism");
        return;
    }
    match->mechanism = cm_draft_dup(draft, s);
    for (char *c = match->mechanism; c && *c; c++)
        *c = cm_ascii_upper(*c);
}

static void
build_header(struct cm_draft *draft, struct cm_header_match *header,
             const char *name, const char *pattern)
{
    if (!cm_ascii_is_header_name(name))
        cm_draft_complain(draft, "header", "must be named by a header's name");
    if (!pattern) {
        cm_draft_complain(draft, "header", "must have a pattern as its value");
        return;
    }
    header->name = cm_draft_dup(draft, name);
    header->pattern = cm_draft_dup(draft, pattern);
    if (header->name && header->pattern) {
        lower(header->name);
        lower(header->pattern);
    }
}

static void
build_headers(struct cm_draft *draft, struct cm_match *match)
{
    json_t *given = json_object_get(draft->doc, "header");
    size_t n = json_object_size(given);
    if (!given)
        return;
    if (!json_is_object(given) || n < 1 || n > CM_RULE_HEADERS_MAX) {
        cm_draft_complain(draft, "header",
                          "must be an object of 1 to %d headers",
                          CM_RULE_HEADERS_MAX);
        return;
    }
    match->headers = calloc(n, sizeof *match->headers);
    if (!match->headers) {
        draft->status = CM_ENOMEM;
        return;
    }
    const char *name;
    json_t *pattern;
    json_object_foreach(given, name, pattern)
    {
        build_header(draft, &match->headers[match->nheaders++], name,
                     json_string_value(pattern));
    }
}

static void
build_range(struct cm_draft *draft, const char *name, struct cm_range *range)
{
    const json_t *given = cm_draft_member(draft, name);
    const json_t *gte = json_object_get(given, "gte");
    const json_t *lte = json_object_get(given, "lte");
    if (!given)
        return;
    range->given = true;
    range->gte = gte ? json_integer_value(gte) : INT64_MIN;
    range->lte = lte ? json_integer_value(lte) : INT64_MAX;
    if (json_object_size(json_object_get(draft->given, name)) == 0)
        cm_draft_complain(draft, name, "must have gte, lte or both");
    else if (range->gte > range->lte)
        cm_draft_complain(draft, name, "must not have gte greater than lte");
}

void
cm_match_build(struct cm_draft *draft, struct cm_match *match)
{
    build_address(draft, "inbox", false, &match->inbox);
    build_domain(draft, match);
    build_address(draft, "sender", true, &match->sender);
    build_client(draft, match);
    build_text(draft, "helo", true, &match->helo);
    build_text(draft, "user", false, &match->user);
    build_mechanism(draft, match);
    build_headers(draft, match);
    build_range(draft, "size", &match->size);
    build_range(draft, "attempt", &match->attempt);
}
