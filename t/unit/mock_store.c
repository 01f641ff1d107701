/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/unit/mock_store.h"
#include "milter/model/inbox.h"
#include "milter/model/rule_json.h"
#include "milter/store/halt_watch.h"
#include "milter/store/replica.h"
#include "milter/store/stateful.h"
#include "milter/store/sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOCK_INBOXES_MAX 16

struct mock_store mock_store;

static struct {
    char address[400];
    struct cm_inbox *inbox;
} inboxes[MOCK_INBOXES_MAX];
static size_t ninboxes;

void
mock_store_reset(void)
{
    while (ninboxes > 0)
        cm_inbox_release(&inboxes[--ninboxes].inbox);
    cm_ruleset_release(&mock_store.rules);
    memset(&mock_store, 0, sizeof mock_store);
    mock_store.hit_allowed = true;
}

static pthread_mutex_t rules_lock = PTHREAD_MUTEX_INITIALIZER;

void
mock_store_rules(struct cm_ruleset *rules)
{
    pthread_mutex_lock(&rules_lock);
    cm_ruleset_release(&mock_store.rules);
    mock_store.rules = rules;
    pthread_mutex_unlock(&rules_lock);
}

void
mock_store_inbox(const char *address, const char *doc)
{
    struct cm_err err;
    assert_true(ninboxes < MOCK_INBOXES_MAX);
    if (cm_inbox_compile(&inboxes[ninboxes].inbox, doc, strlen(doc), &err) !=
        CM_OK)
        fail_msg("%s: %s", doc, err.msg);
    snprintf(inboxes[ninboxes++].address, sizeof inboxes->address, "%s",
             address);
}

/* A view is only passed around: its address will do. */
static char the_view;

struct cm_view *
cm_replica_view(struct cm_replica *replica)
{
    (void)replica;
    return (struct cm_view *)&the_view;
}

void
cm_view_release(struct cm_view **view)
{
    *view = NULL;
}

struct cm_inbox *
cm_view_inbox(struct cm_view *view, const char *address, size_t len)
{
    assert_ptr_equal(view, &the_view);
    for (size_t i = 0; i < ninboxes; i++)
        if (strlen(inboxes[i].address) == len &&
            memcmp(inboxes[i].address, address, len) == 0)
            return cm_inbox_ref(inboxes[i].inbox);
    return NULL;
}

struct cm_ruleset *
cm_view_rules(struct cm_view *view)
{
    assert_ptr_equal(view, &the_view);
    pthread_mutex_lock(&rules_lock);
    struct cm_ruleset *rules =
        mock_store.rules ? cm_ruleset_ref(mock_store.rules) : NULL;
    pthread_mutex_unlock(&rules_lock);
    return rules;
}

bool
cm_view_has_inboxes(struct cm_view *view)
{
    (void)view;
    return ninboxes > 0;
}

bool
cm_sync_stale(const struct cm_sync *sync)
{
    (void)sync;
    return mock_store.stale;
}

bool
cm_halt_watch_on(const struct cm_halt_watch *watch)
{
    (void)watch;
    return mock_store.halted;
}

void
cm_halt_watch_report(struct cm_halt_watch *watch, struct cm_buf *json)
{
    (void)watch;
    (void)json;
}

static enum cm_status
answer(struct cm_err *err)
{
    mock_store.asked++;
    usleep(mock_store.state_us);
    mock_store.halted = mock_store.halted || mock_store.halts_when_asked;
    return mock_store.state_fails
               ? cm_err_set(err, CM_ETIMEOUT, "no answer within 250 ms")
               : CM_OK;
}

enum cm_status
cm_stateful_greylist(struct cm_stateful *stateful,
                     const struct cm_fault_greylist *config, const char *inbox,
                     const char *sender, const char *client, bool *refused_r,
                     int64_t *attempt_r, struct cm_err *err)
{
    (void)stateful;
    (void)config;
    snprintf(mock_store.asked_inbox, sizeof mock_store.asked_inbox, "%s",
             inbox);
    snprintf(mock_store.asked_sender, sizeof mock_store.asked_sender, "%s",
             sender);
    snprintf(mock_store.asked_client, sizeof mock_store.asked_client, "%s",
             client);
    *refused_r = mock_store.greylist_refuses;
    *attempt_r = mock_store.attempt;
    return answer(err);
}

enum cm_status
cm_stateful_occurrence(struct cm_stateful *stateful, const char *rule,
                       const char *sender, const char *recipient, int64_t *n_r,
                       struct cm_err *err)
{
    (void)stateful;
    (void)rule;
    (void)sender;
    (void)recipient;
    *n_r = ++mock_store.occurrence;
    return answer(err);
}

enum cm_status
cm_stateful_hit(struct cm_stateful *stateful, const char *rule,
                uint64_t max_hits, bool *allowed_r, struct cm_err *err)
{
    (void)stateful;
    (void)rule;
    (void)max_hits;
    *allowed_r = mock_store.hit_allowed;
    return answer(err);
}

enum cm_status
cm_stateful_throttle(struct cm_stateful *stateful, const char *rule,
                     const struct cm_fault_throttle *config, const char *whose,
                     bool *empty_r, struct cm_err *err)
{
    (void)stateful;
    (void)config;
    snprintf(mock_store.asked_rule, sizeof mock_store.asked_rule, "%s", rule);
    snprintf(mock_store.asked_whose, sizeof mock_store.asked_whose, "%s",
             whose);
    *empty_r = mock_store.throttle_empty;
    return answer(err);
}

static void
note_triplet(const char *client, const char *sender, const char *recipient)
{
    snprintf(mock_store.asked_client, sizeof mock_store.asked_client, "%s",
             client);
    snprintf(mock_store.asked_sender, sizeof mock_store.asked_sender, "%s",
             sender);
    snprintf(mock_store.asked_recipient, sizeof mock_store.asked_recipient,
             "%s", recipient);
}

enum cm_status
cm_stateful_sequence(struct cm_stateful *stateful, const char *rule,
                     const struct cm_fault_sequence *config, const char *client,
                     const char *sender, const char *recipient,
                     int64_t *attempt_r, struct cm_err *err)
{
    (void)stateful;
    (void)config;
    snprintf(mock_store.asked_rule, sizeof mock_store.asked_rule, "%s", rule);
    note_triplet(client, sender, recipient);
    *attempt_r = ++mock_store.sequence;
    return answer(err);
}

enum cm_status
cm_stateful_attempt(struct cm_stateful *stateful, const char *client,
                    const char *sender, const char *recipient, int64_t *n_r,
                    struct cm_err *err)
{
    (void)stateful;
    note_triplet(client, sender, recipient);
    *n_r = ++mock_store.attempts;
    return answer(err);
}

enum cm_status
cm_stateful_attempt_done(struct cm_stateful *stateful, const char *client,
                         const char *sender, const char *recipient,
                         struct cm_err *err)
{
    (void)stateful;
    note_triplet(client, sender, recipient);
    mock_store.attempts_done++;
    return answer(err);
}

void
cm_journal_record(struct cm_journal *journal,
                  const struct cm_incident *incident)
{
    (void)journal;
    size_t n = atomic_load(&mock_store.nincidents);
    assert_true(n < MOCK_INCIDENTS_MAX);
    mock_store.incidents[n] = *incident;
    atomic_store(&mock_store.nincidents, n + 1);
}

void
cm_journal_count(struct cm_journal *journal, enum cm_count what, int64_t n)
{
    (void)journal;
    mock_store.counts[what] += n;
}

uint64_t
cm_journal_dropped(const struct cm_journal *journal)
{
    (void)journal;
    return 0;
}
