/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/lab/commit_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>

struct commit_rig rig;

int
rig_start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&rig.server);
    struct cm_link_opts opts = redis_server_opts(&rig.server);
    assert_int_equal(cm_pool_new(&rig.pool, &opts, 16, NULL), CM_OK);
    assert_int_equal(
        cm_commits_new(&rig.commits, rig.pool, "{cm}", true, 1000, NULL),
        CM_OK);
    return 0;
}

int
rig_end_server(void **state)
{
    (void)state;
    cm_commits_free(&rig.commits);
    cm_pool_free(&rig.pool);
    redis_server_end(&rig.server);
    return 0;
}

int
rig_flush(void **state)
{
    (void)state;
    redis_say(&rig.server, "FLUSHALL", NULL);
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "0", NULL);
    return 0;
}

enum cm_status
rig_set(enum cm_kind kind, const char *name, const char *doc, int64_t rev,
        int64_t *rev_r)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status st = cm_commit_set(rig.commits, kind, name, doc, strlen(doc),
                                      rev, rev_r, &err);
    if (st != CM_OK)
        print_message("  %s: %s\n", name, err.msg);
    return st;
}
