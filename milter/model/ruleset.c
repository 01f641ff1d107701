/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index parts the rules of each stage into buckets, a rule into exactly
 * one: by its exact recipient, else by the recipient's domain, else by the
 * client's block, else into the bucket of the rest. A bucket is a run of
 * ascending positions, all runs in one array. An event reaches at most a
 * handful of buckets: its recipient, that recipient without its tag, its
 * domain, the nested blocks around its client, the rest. The next rule is the
 * lowest position among them that matches, so order is kept without sorting.
 *
 * Disabled rules are not indexed. A table per condition, with the sets of
 * candidates intersected, was rejected: one selective condition is enough to
 * make the cost independent of the number of rules.
 */
#include "milter/model/ruleset.h"
#include "milter/model/address.h"
#include "milter/model/cidr_trie.h"
#include "milter/model/event.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NONE SIZE_MAX

struct bucket {
    size_t first, n; /* a run in positions */
};

/* What a literal key is compared with. */
enum key_kind { KEY_INBOX, KEY_DOMAIN };

/* A slot of the hash table; open addressing, at most half full. */
struct slot {
    const char *key; /* borrowed from a rule; NULL: free */
    enum key_kind kind;
    enum cm_stage stage;
    size_t bucket;
};

struct cm_ruleset {
    _Atomic unsigned long refs;
    struct cm_rule *rules;
    size_t nrules;
    unsigned stages;
    bool wants_headers;

    struct slot *slots;
    size_t mask; /* number of slots - 1, a power of two - 1 */
    struct cm_cidr_trie clients[CM_STAGE_COUNT];
    size_t rest[CM_STAGE_COUNT]; /* bucket, or NONE */
    struct bucket *buckets;
    size_t nbuckets;
    size_t *positions;
};

/* FNV-1a, begun with what else the key is made of. */
static uint64_t
hash(enum key_kind kind, enum cm_stage stage, const char *key)
{
    uint64_t h = 0xcbf29ce484222325u ^ ((uint64_t)kind << 8 | stage);
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot of a key, or the free one where it would go. */
static struct slot *
find_slot(const struct cm_ruleset *set, enum key_kind kind, enum cm_stage stage,
          const char *key)
{
    size_t i = (size_t)hash(kind, stage, key) & set->mask;
    for (;; i = (i + 1) & set->mask) {
        struct slot *slot = &set->slots[i];
        if (!slot->key || (slot->kind == kind && slot->stage == stage &&
                           strcmp(slot->key, key) == 0))
            return slot;
    }
}

/* Where the number of the rule's bucket is kept; NONE there when it is new. */
static size_t *
bucket_of(struct cm_ruleset *set, const struct cm_rule *rule)
{
    const struct cm_match *match = &rule->match;
    bool by_inbox = match->inbox.kind == CM_PATTERN_EXACT;
    if (by_inbox || match->domain) {
        enum key_kind kind = by_inbox ? KEY_INBOX : KEY_DOMAIN;
        const char *key = by_inbox ? match->inbox.text : match->domain;
        struct slot *slot = find_slot(set, kind, rule->stage, key);
        if (!slot->key)
            *slot = (struct slot){key, kind, rule->stage, NONE};
        return &slot->bucket;
    }
    if (match->client.family != 0)
        return cm_cidr_trie_insert(&set->clients[rule->stage], &match->client);
    return &set->rest[rule->stage];
}

/* Gives every enabled rule its bucket (bucket_by_rule, NONE for the others) and
 * counts what is in each. */
static void
assign_buckets(struct cm_ruleset *set, size_t *bucket_by_rule)
{
    for (size_t i = 0; i < set->nrules; i++) {
        const struct cm_rule *rule = &set->rules[i];
        bucket_by_rule[i] = NONE;
        if (!rule->enabled)
            continue;
        size_t *bucket = bucket_of(set, rule);
        if (*bucket == NONE)
            *bucket = set->nbuckets++;
        bucket_by_rule[i] = *bucket;
        set->buckets[*bucket].n++;
        set->stages |= CM_STAGE_BIT(rule->stage);
        set->wants_headers |= rule->match.nheaders > 0;
    }
}

/* Lays the runs one after the other and writes the positions into them. */
static void
fill_buckets(struct cm_ruleset *set, const size_t *bucket_by_rule)
{
    size_t first = 0;
    for (size_t i = 0; i < set->nbuckets; i++) {
        set->buckets[i].first = first;
        first += set->buckets[i].n;
        set->buckets[i].n = 0;
    }
    for (size_t i = 0; i < set->nrules; i++) {
        if (bucket_by_rule[i] == NONE)
            continue;
        struct bucket *bucket = &set->buckets[bucket_by_rule[i]];
        set->positions[bucket->first + bucket->n++] = i;
    }
}

static enum cm_status
init_tries(struct cm_ruleset *set)
{
    size_t blocks[CM_STAGE_COUNT] = {0};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < set->nrules; i++)
        blocks[set->rules[i].stage] += set->rules[i].match.client.family != 0;
    for (int i = 0; i < CM_STAGE_COUNT && status == CM_OK; i++)
        status = cm_cidr_trie_init(&set->clients[i], blocks[i]);
    return status;
}

static enum cm_status
build_index(struct cm_ruleset *set)
{
    size_t nslots = 2;
    while (nslots < 2 * set->nrules)
        nslots *= 2;
    set->mask = nslots - 1;
    set->slots = calloc(nslots, sizeof *set->slots);
    set->buckets = calloc(set->nrules + 1, sizeof *set->buckets);
    set->positions = calloc(set->nrules + 1, sizeof *set->positions);
    size_t *bucket_by_rule = calloc(set->nrules + 1, sizeof *bucket_by_rule);

    enum cm_status status = CM_ENOMEM;
    if (set->slots && set->buckets && set->positions && bucket_by_rule)
        status = init_tries(set);
    if (status == CM_OK) {
        for (int i = 0; i < CM_STAGE_COUNT; i++)
            set->rest[i] = NONE;
        assign_buckets(set, bucket_by_rule);
        fill_buckets(set, bucket_by_rule);
    }
    free(bucket_by_rule);
    return status;
}

static void
free_rules(struct cm_rule *rules, size_t nrules)
{
    for (size_t i = 0; i < nrules; i++)
        cm_rule_fini(&rules[i]);
    free(rules);
}

enum cm_status
cm_ruleset_new(struct cm_ruleset **set_r, struct cm_rule *rules, size_t nrules)
{
    struct cm_ruleset *set = calloc(1, sizeof *set);
    if (!set) {
        free_rules(rules, nrules);
        return CM_ENOMEM;
    }
    set->refs = 1;
    set->rules = rules;
    set->nrules = nrules;
    enum cm_status status = build_index(set);
    if (status == CM_OK)
        *set_r = set;
    else
        cm_ruleset_release(&set);
    return status;
}

struct cm_ruleset *
cm_ruleset_ref(struct cm_ruleset *set)
{
    if (set)
        atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void
cm_ruleset_release(struct cm_ruleset **set)
{
    struct cm_ruleset *old = *set;
    *set = NULL;
    if (!old ||
        atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < CM_STAGE_COUNT; i++)
        cm_cidr_trie_fini(&old->clients[i]);
    free(old->slots);
    free(old->buckets);
    free(old->positions);
    free_rules(old->rules, old->nrules);
    free(old);
}

size_t
cm_ruleset_count(const struct cm_ruleset *set)
{
    return set ? set->nrules : 0;
}

const struct cm_rule *
cm_ruleset_at(const struct cm_ruleset *set, size_t i)
{
    return &set->rules[i];
}

unsigned
cm_ruleset_stages(const struct cm_ruleset *set)
{
    return set ? set->stages : 0;
}

bool
cm_ruleset_wants_headers(const struct cm_ruleset *set)
{
    return set && set->wants_headers;
}

/* The lowest position in the bucket that is at least from, or NONE. */
static size_t
first_from(const struct cm_ruleset *set, size_t bucket, size_t from)
{
    if (bucket == NONE)
        return NONE;
    size_t low = set->buckets[bucket].first;
    const size_t end = low + set->buckets[bucket].n;
    for (size_t high = end; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (set->positions[middle] < from)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end ? set->positions[low] : NONE;
}

static size_t
lower(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The buckets that one event reaches through its recipient. */
struct reach {
    size_t literal[3];
};

static size_t
literal_bucket(const struct cm_ruleset *set, enum key_kind kind,
               enum cm_stage stage, const char *key)
{
    const struct slot *slot = find_slot(set, kind, stage, key);
    return slot->key ? slot->bucket : NONE;
}

static struct reach
reach_of(const struct cm_ruleset *set, const struct cm_event *event)
{
    struct reach reach = {{NONE, NONE, NONE}};
    if (event->recipient) {
        reach.literal[0] = literal_bucket(set, KEY_INBOX, event->stage,
                                          event->recipient->text);
        reach.literal[1] = literal_bucket(set, KEY_DOMAIN, event->stage,
                                          cm_address_domain(event->recipient));
    }
    if (event->recipient_base)
        reach.literal[2] = literal_bucket(set, KEY_INBOX, event->stage,
                                          event->recipient_base->text);
    return reach;
}

/* The lowest position from `from` on in any bucket that the event reaches. */
static size_t
next_candidate(const struct cm_ruleset *set, const struct cm_event *event,
               const struct reach *reach, size_t from)
{
    size_t best = first_from(set, set->rest[event->stage], from);
    for (int i = 0; i < 3; i++)
        best = lower(best, first_from(set, reach->literal[i], from));
    if (!event->client)
        return best;

    const struct cm_cidr_trie *trie = &set->clients[event->stage];
    const uint8_t *addr = event->client->addr;
    size_t at = cm_cidr_trie_first(trie, event->client->family, addr);
    for (; at != NONE; at = cm_cidr_trie_next(trie, at, addr))
        best = lower(best, first_from(set, cm_cidr_trie_value(trie, at), from));
    return best;
}

size_t
cm_ruleset_next(const struct cm_ruleset *set, const struct cm_event *event,
                size_t from)
{
    size_t end = cm_ruleset_count(set);
    if (end == 0 || !(set->stages & CM_STAGE_BIT(event->stage)))
        return end;
    const struct reach reach = reach_of(set, event);
    for (size_t i = from; i < end; i++) {
        i = next_candidate(set, event, &reach, i);
        if (i == NONE)
            break;
        const struct cm_rule *rule = &set->rules[i];
        if (cm_rule_in_force(rule, event->now_ms) &&
            cm_rule_matches(rule, event) == CM_YES)
            return i;
    }
    return end;
}
