/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index has a shelf for each stage, and parts the rules of a shelf into
 * buckets, a rule into exactly one: by its exact recipient, else by the
 * recipient's domain, else by the client's block, else into the bucket of the
 * rest. A bucket is a run of ascending positions, all runs in one array. An
 * event reaches at most a handful of buckets: its recipient, that recipient
 * without its tag, its domain, the nested blocks around its client, the rest.
 * The next rule is the lowest position among them that matches, so order is
 * kept without sorting. One shelf more holds, once again, the rules of all
 * stages that ask for the number of the attempt.
 *
 * Disabled rules are not indexed. A table per condition, with the sets of
 * candidates intersected, was rejected: one selective condition is enough to
 * make the cost independent of the number of rules.
 */
#include "milter/model/ruleset.h"
#include "milter/model/address.h"
#include "milter/model/cidr_trie.h"
#include "milter/model/event.h"
#include "milter/model/watch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NONE SIZE_MAX

/* A shelf is a stage, or: */
#define SHELF_ATTEMPT CM_STAGE_COUNT
#define SHELVES       (CM_STAGE_COUNT + 1)

struct bucket {
    size_t first, n; /* a run in positions */
};

/* What a literal key is compared with. */
enum key_kind { KEY_INBOX, KEY_DOMAIN };

/* A slot of the hash table; open addressing, at most half full. */
struct slot {
    const char *key; /* borrowed from a rule; NULL: free */
    enum key_kind kind;
    unsigned shelf;
    size_t bucket;
};

/* While the index is built: a rule in a bucket. */
struct place {
    size_t rule, bucket;
};

struct cm_ruleset {
    _Atomic unsigned long refs;
    struct cm_rule *rules;
    size_t nrules;
    size_t first_effect;
    unsigned stages, effect_stages;
    bool asks_attempt; /* something is on that shelf */
    struct cm_watch watch;

    struct slot *slots;
    size_t mask; /* number of slots - 1, a power of two - 1 */
    struct cm_cidr_trie clients[SHELVES];
    size_t rest[SHELVES]; /* bucket, or NONE */
    struct bucket *buckets;
    size_t nbuckets;
    size_t *positions;
};

/* FNV-1a, begun with what else the key is made of. */
static uint64_t
hash(enum key_kind kind, unsigned shelf, const char *key)
{
    uint64_t h = 0xcbf29ce484222325u ^ ((uint64_t)kind << 8 | shelf);
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot of a key, or the free one where it would go. */
static struct slot *
find_slot(const struct cm_ruleset *set, enum key_kind kind, unsigned shelf,
          const char *key)
{
    size_t i = (size_t)hash(kind, shelf, key) & set->mask;
    for (;; i = (i + 1) & set->mask) {
        struct slot *slot = &set->slots[i];
        if (!slot->key || (slot->kind == kind && slot->shelf == shelf &&
                           strcmp(slot->key, key) == 0))
            return slot;
    }
}

/* Where the number of the rule's bucket on this shelf is kept; NONE there when
 * it is new. */
static size_t *
bucket_of(struct cm_ruleset *set, unsigned shelf, const struct cm_rule *rule)
{
    const struct cm_match *match = &rule->match;
    bool by_inbox = match->inbox.kind == CM_PATTERN_EXACT;
    if (by_inbox || match->domain) {
        enum key_kind kind = by_inbox ? KEY_INBOX : KEY_DOMAIN;
        const char *key = by_inbox ? match->inbox.text : match->domain;
        struct slot *slot = find_slot(set, kind, shelf, key);
        if (!slot->key)
            *slot = (struct slot){key, kind, shelf, NONE};
        return &slot->bucket;
    }
    if (match->client.family != 0)
        return cm_cidr_trie_insert(&set->clients[shelf], &match->client);
    return &set->rest[shelf];
}

/* Counts rule i into its bucket on the shelf. */
static struct place
place_rule(struct cm_ruleset *set, unsigned shelf, size_t i)
{
    size_t *bucket = bucket_of(set, shelf, &set->rules[i]);
    if (*bucket == NONE)
        *bucket = set->nbuckets++;
    set->buckets[*bucket].n++;
    return (struct place){i, *bucket};
}

/* Gives every enabled rule its places, in the order of the rules; returns their
 * number. */
static size_t
place_rules(struct cm_ruleset *set, struct place *places)
{
    size_t n = 0;
    for (size_t i = 0; i < set->nrules; i++) {
        const struct cm_rule *rule = &set->rules[i];
        if (!rule->enabled)
            continue;
        places[n++] = place_rule(set, rule->stage, i);
        if (i < set->first_effect)
            set->stages |= CM_STAGE_BIT(rule->stage);
        else
            set->effect_stages |= CM_STAGE_BIT(rule->stage);
        if (rule->match.attempt.given) {
            places[n++] = place_rule(set, SHELF_ATTEMPT, i);
            set->asks_attempt = true;
        }
    }
    return n;
}

/* Lays the runs one after the other and writes the positions into them. */
static void
fill_buckets(struct cm_ruleset *set, const struct place *places, size_t nplaces)
{
    size_t first = 0;
    for (size_t i = 0; i < set->nbuckets; i++) {
        set->buckets[i].first = first;
        first += set->buckets[i].n;
        set->buckets[i].n = 0;
    }
    for (size_t i = 0; i < nplaces; i++) {
        struct bucket *bucket = &set->buckets[places[i].bucket];
        set->positions[bucket->first + bucket->n++] = places[i].rule;
    }
}

static enum cm_status
init_tries(struct cm_ruleset *set)
{
    size_t blocks[SHELVES] = {0};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < set->nrules; i++) {
        const struct cm_match *match = &set->rules[i].match;
        size_t block = match->client.family != 0;
        blocks[set->rules[i].stage] += block;
        blocks[SHELF_ATTEMPT] += match->attempt.given ? block : 0;
    }
    for (int i = 0; i < SHELVES && status == CM_OK; i++)
        status = cm_cidr_trie_init(&set->clients[i], blocks[i]);
    return status;
}

static size_t
count_places(const struct cm_ruleset *set)
{
    size_t n = set->nrules;
    for (size_t i = 0; i < set->nrules; i++)
        n += set->rules[i].match.attempt.given;
    return n;
}

static enum cm_status
build_index(struct cm_ruleset *set)
{
    size_t most = count_places(set), nslots = 2;
    while (nslots < 2 * most)
        nslots *= 2;
    set->mask = nslots - 1;
    set->slots = calloc(nslots, sizeof *set->slots);
    set->buckets = calloc(most + 1, sizeof *set->buckets);
    set->positions = calloc(most + 1, sizeof *set->positions);
    struct place *places = calloc(most + 1, sizeof *places);

    enum cm_status status = CM_ENOMEM;
    if (set->slots && set->buckets && set->positions && places)
        status = init_tries(set);
    if (status == CM_OK) {
        for (int i = 0; i < SHELVES; i++)
            set->rest[i] = NONE;
        fill_buckets(set, places, place_rules(set, places));
    }
    free(places);
    return status;
}

static void
free_rules(struct cm_rule *rules, size_t nrules)
{
    for (size_t i = 0; i < nrules; i++)
        cm_rule_fini(&rules[i]);
    free(rules);
}

static size_t
count_before_effects(const struct cm_rule *rules, size_t nrules)
{
    size_t n = nrules;
    while (n > 0 && rules[n - 1].face == CM_FACE_EFFECT)
        n--;
    return n;
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
    set->first_effect = count_before_effects(rules, nrules);
    enum cm_status status = build_index(set);
    if (status == CM_OK)
        status = cm_watch_init(&set->watch, rules, nrules);
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
    for (int i = 0; i < SHELVES; i++)
        cm_cidr_trie_fini(&old->clients[i]);
    cm_watch_fini(&old->watch);
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

unsigned
cm_ruleset_effect_stages(const struct cm_ruleset *set)
{
    return set ? set->effect_stages : 0;
}

size_t
cm_ruleset_effects(const struct cm_ruleset *set)
{
    return set ? set->first_effect : 0;
}

bool
cm_ruleset_wants_header(const struct cm_ruleset *set, const char *name)
{
    return set && cm_watch_header(&set->watch, name);
}

bool
cm_ruleset_wants_headers(const struct cm_ruleset *set)
{
    return set && set->watch.nnames > 0;
}

bool
cm_ruleset_wants_size(const struct cm_ruleset *set)
{
    return set && set->watch.size;
}

int64_t
cm_ruleset_body_bytes(const struct cm_ruleset *set)
{
    return set ? set->watch.body_bytes : 0;
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

/* What one event reaches on one shelf; the buckets are those that its recipient
 * leads to. */
struct reach {
    unsigned shelf;
    size_t literal[3];
};

static size_t
literal_bucket(const struct cm_ruleset *set, enum key_kind kind, unsigned shelf,
               const char *key)
{
    const struct slot *slot = find_slot(set, kind, shelf, key);
    return slot->key ? slot->bucket : NONE;
}

static struct reach
reach_of(const struct cm_ruleset *set, unsigned shelf,
         const struct cm_event *event)
{
    struct reach reach = {shelf, {NONE, NONE, NONE}};
    if (event->recipient) {
        reach.literal[0] =
            literal_bucket(set, KEY_INBOX, shelf, event->recipient->text);
        reach.literal[1] = literal_bucket(set, KEY_DOMAIN, shelf,
                                          cm_address_domain(event->recipient));
    }
    if (event->recipient_base)
        reach.literal[2] =
            literal_bucket(set, KEY_INBOX, shelf, event->recipient_base->text);
    return reach;
}

/* The lowest position from `from` on in any bucket that the event reaches. */
static size_t
next_candidate(const struct cm_ruleset *set, const struct cm_event *event,
               const struct reach *reach, size_t from)
{
    size_t best = first_from(set, set->rest[reach->shelf], from);
    for (int i = 0; i < 3; i++)
        best = lower(best, first_from(set, reach->literal[i], from));
    if (!event->client)
        return best;

    const struct cm_cidr_trie *trie = &set->clients[reach->shelf];
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
    if (end == 0 ||
        !((set->stages | set->effect_stages) & CM_STAGE_BIT(event->stage)))
        return end;
    const struct reach reach = reach_of(set, event->stage, event);
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

bool
cm_ruleset_asks_attempt(const struct cm_ruleset *set,
                        const struct cm_event *event)
{
    if (!set || !set->asks_attempt)
        return false;
    struct cm_event told = *event; /* what will be the same at every stage */
    told.headers_known = false;
    told.size_bytes = -1;
    told.attempt = 0;
    const struct reach reach = reach_of(set, SHELF_ATTEMPT, &told);
    size_t i = next_candidate(set, &told, &reach, 0);
    for (; i != NONE; i = next_candidate(set, &told, &reach, i + 1)) {
        const struct cm_rule *rule = &set->rules[i];
        if (cm_rule_in_force(rule, told.now_ms) &&
            cm_rule_matches(rule, &told) != CM_NO)
            return true;
    }
    return false;
}

int64_t
cm_ruleset_body_needed(const struct cm_ruleset *set,
                       const struct cm_event *event)
{
    int64_t most = cm_ruleset_body_bytes(set), needed = 0;
    if (most == 0)
        return 0;
    const struct reach reach = reach_of(set, CM_STAGE_MESSAGE, event);
    size_t i = next_candidate(set, event, &reach, 0);
    for (; i != NONE && needed < most;
         i = next_candidate(set, event, &reach, i + 1)) {
        const struct cm_rule *rule = &set->rules[i];
        int64_t bytes = cm_watch_body(rule);
        if (bytes > needed && cm_rule_in_force(rule, event->now_ms) &&
            cm_rule_matches(rule, event) != CM_NO)
            needed = bytes;
    }
    return needed;
}
