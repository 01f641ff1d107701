/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MOCK_STORE_H
#define CM_MOCK_STORE_H

#include "milter/model/ruleset.h"
#include "milter/store/journal.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The store as the filter sees it, without Redis: a few inboxes, one rule set,
 * a journal that is an array, and state that answers as told. Link this instead
 * of libstore.a.
 */
#define MOCK_INCIDENTS_MAX 64

struct mock_store {
    bool stale;
    bool halted;
    bool halts_when_asked;    /* as soon as state is asked */
    struct cm_ruleset *rules; /* may be NULL; see mock_store_rules */
    /* state */
    bool state_fails;  /* every question ends in CM_ETIMEOUT */
    unsigned state_us; /* and takes so long */
    bool greylist_refuses;
    int64_t attempt;
    bool hit_allowed;
    int64_t occurrence;
    bool throttle_empty;
    int64_t sequence;      /* counts up from here, whatever the key */
    int64_t attempts;      /* likewise */
    int attempts_done;     /* how often a count was ended */
    char asked_rule[128];  /* by a throttle or a sequence */
    char asked_whose[400]; /* by a throttle */
    char asked_recipient[400];
    atomic_int asked; /* how often anything was asked */
    char asked_inbox[400], asked_sender[400], asked_client[64];
    /* journal */
    struct cm_incident incidents[MOCK_INCIDENTS_MAX];
    atomic_size_t nincidents; /* of a held reply they come from elsewhere */
    long long counts[CM_COUNT_MAX];
};
extern struct mock_store mock_store;

/* mock_store_reset - no inboxes, no incidents, state that lets everything pass.
 */
void mock_store_reset(void);

/* mock_store_rules - put a rule set in force, in place of another; taken over.
 * Also while other threads look for it. */
void mock_store_rules(struct cm_ruleset *rules);

/* mock_store_inbox - configure an inbox from a JSON document; the test fails
 * when it is not valid. */
void mock_store_inbox(const char *address, const char *doc);

#endif
