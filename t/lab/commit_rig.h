/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef COMMIT_RIG_H
#define COMMIT_RIG_H

#include "milter/store/commit.h"
#include "t/lab/redis_server.h"

#include <stdint.h>

/*
 * What the tests of commits share: one real Redis for a program, empty at each
 * test, and links to it.
 */
#define RIG_ON  "{\"enabled\":true}"
#define RIG_OFF "{\"enabled\":false}"

#define RIG_TEST(name) cmocka_unit_test_setup(name, rig_flush)

struct commit_rig {
    struct redis_server server;
    struct cm_pool *pool;
    struct cm_commits *commits;
};
extern struct commit_rig rig;

/* For the group of tests, and before each. */
int rig_start_server(void **state);
int rig_end_server(void **state);
int rig_flush(void **state);

/* rig_set - cm_commit_set; prints why it was refused. */
enum cm_status rig_set(enum cm_kind kind, const char *name, const char *doc,
                       int64_t rev, int64_t *rev_r);

#endif
