/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SYNC_RIG_H
#define SYNC_RIG_H

#include "milter/store/commit.h"
#include "milter/store/replica.h"
#include "milter/store/sync.h"
#include "t/lab/redis_server.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the tests of the replica share: one real Redis for a program, empty at
 * each test, a way to commit, and nodes, each one filter as far as the store
 * goes. Every function fails the test when it cannot do its work.
 */
#define RIG_INBOX "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define RIG_RULE  "{\"fault\":{\"kind\":\"error\",\"code\":451}}"

#define RIG_TEST(name)                                                         \
    cmocka_unit_test_setup_teardown(name, rig_fresh, rig_finish)

struct sync_rig {
    struct redis_server server;
    struct cm_pool *pool;
    struct cm_commits *commits;
};
extern struct sync_rig rig;

/* For the group of tests, and for each. */
int rig_start_server(void **state);
int rig_end_server(void **state);
int rig_fresh(void **state);
int rig_finish(void **state);

void rig_set_doc(enum cm_kind kind, const char *name, const char *doc);
void rig_set_inbox(const char *name); /* RIG_INBOX */

struct node {
    struct cm_replica *replica;
    struct cm_sync *sync;
};

/* node_start_with - as in struct cm_sync_opts; the snapshot is called
 * "snapshot". node_start - never stale, no snapshot. */
struct node node_start_with(const char *host, int64_t stale_after_ms,
                            int dir_fd);
struct node node_start(const char *host);
void node_stop(struct node *node); /* within 250 ms */

struct cm_replica_state node_state(const struct node *node);
bool node_has(const struct node *node, const char *address);
size_t node_rules(const struct node *node);
bool node_alarm_has(const struct node *node, const char *text);
bool node_no_alarm(const struct node *node);

#endif
