/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_REPLICA_H
#define CM_REPLICA_H

#include "milter/err.h"
#include "milter/model/inbox.h"
#include "milter/model/ruleset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_buf;

/*
 * All rules in memory, so that the mail path never asks Redis. One writer (the
 * sync thread), any number of readers. A reader takes a view for the length of
 * a message; a resync swaps a new table in whole, and the old one goes with its
 * last view. A million inboxes: an entry costs its key and about 72 bytes,
 * equal documents share one compiled cm_inbox.
 */
struct cm_replica;
struct cm_view;

/* address_flags as in cm_address_parse: how a key must look to be canonical. */
enum cm_status cm_replica_new(struct cm_replica **replica_r,
                              unsigned address_flags) CM_MUST_CHECK;
void cm_replica_free(struct cm_replica **replica); /* no view may be left */

/* --- readers: thread-safe, never wait for a writer longer than a few pointer
 * operations --- */
struct cm_view *cm_replica_view(struct cm_replica *replica);
void cm_view_release(struct cm_view **view);
/* cm_view_inbox - the configuration under this canonical address with a
 * reference of the caller's (cm_inbox_release), or NULL: none, or broken. Sees
 * changes made since the view was taken. */
struct cm_inbox *cm_view_inbox(struct cm_view *view, const char *address,
                               size_t len);
/* cm_view_rules - the rules of all faces in the order of evaluation: our own
 * rules, fault rules, triggers, effects. With a reference of the caller's; may
 * be NULL. */
struct cm_ruleset *cm_view_rules(struct cm_view *view);
bool cm_view_has_inboxes(struct cm_view *view);

struct cm_replica_state {
    char epoch[64]; /* "" before the first sync */
    int64_t seq;
    uint64_t digest; /* order-free sum over (key, rev, seq) of all entries */
    size_t inboxes;
    size_t rules;  /* documents that become rules, of all kinds */
    size_t broken; /* documents that do not parse: no chaos for them */
};
void cm_replica_state(struct cm_replica *replica,
                      struct cm_replica_state *state_r);

/* cm_replica_broken_json - `[{"key":"inbox:a@b","why":"..."},...]`, at most max
 * entries, appended to buf. */
void cm_replica_broken_json(struct cm_replica *replica, struct cm_buf *buf,
                            size_t max);

/* --- the writer: one thread --- */

/*
 * cm_replica_apply - one change: text is the stored envelope, NULL for a
 * deletion. key is "inbox:a@example.com", "rule:r7", "trigger:sender"; kinds
 * unknown to us are ignored. A document that is broken is kept as broken: CM_OK
 * all the same. CM_ENOMEM leaves the replica as it was: resync. Inboxes are in
 * force at once, rules with the next cm_replica_advance, so that a batch of
 * changes compiles them once.
 */
enum cm_status cm_replica_apply(struct cm_replica *replica, const char *key,
                                const char *text, size_t len) CM_MUST_CHECK;
/* cm_replica_apply_broken - the same for a document that could not even be
 * fetched: too large, of the wrong type, gone. */
enum cm_status cm_replica_apply_broken(struct cm_replica *replica,
                                       const char *key,
                                       const char *why) CM_MUST_CHECK;
/* cm_replica_wipe - every document whose key begins so ("inbox:",
 * "inbox:load-") is gone. */
void cm_replica_wipe(struct cm_replica *replica, const char *begin);
/* cm_replica_advance - the sequence number up to which all is applied. When
 * memory is short the rules and the number stay as they were, and the caller's
 * next comparison with Redis shows it. */
void cm_replica_advance(struct cm_replica *replica, int64_t seq);

/* A resync fills a new table aside and swaps it in, or throws it away. */
enum cm_status cm_replica_begin(struct cm_replica *replica) CM_MUST_CHECK;
enum cm_status cm_replica_load(struct cm_replica *replica, const char *key,
                               const char *text, size_t len) CM_MUST_CHECK;
enum cm_status cm_replica_load_broken(struct cm_replica *replica,
                                      const char *key,
                                      const char *why) CM_MUST_CHECK;
void cm_replica_load_wipe(struct cm_replica *replica, const char *begin);
enum cm_status cm_replica_swap(struct cm_replica *replica, const char *epoch,
                               int64_t seq) CM_MUST_CHECK;
void cm_replica_abandon(struct cm_replica *replica);

/* cm_replica_tidy - free tables whose last view has gone; the functions above
 * do it by the way. */
void cm_replica_tidy(struct cm_replica *replica);

/* --- any thread --- */

/* cm_replica_each - every sound document of the table in force (key, envelope
 * text), in no order; stops when fn returns false. Broken ones are left out:
 * they cause no chaos. For the snapshot. CM_OK or CM_ENOMEM. */
typedef bool cm_replica_fn(void *arg, const char *key, const char *text,
                           size_t len);
enum cm_status cm_replica_each(struct cm_replica *replica, cm_replica_fn *fn,
                               void *arg) CM_MUST_CHECK;

#endif
