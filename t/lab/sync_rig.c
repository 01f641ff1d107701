/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/lab/sync_rig.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/store/commit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>

struct sync_rig rig;

int
rig_start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    cm_log_set_level(CM_LOG_ERR);
    redis_server_start(&rig.server);
    return 0;
}

int
rig_end_server(void **state)
{
    (void)state;
    redis_server_end(&rig.server);
    return 0;
}

static void
add_report(void *arg, struct cm_buf *json)
{
    cm_buf_puts(json, arg);
}

struct node
node_start_with(const char *host, int64_t stale_after_ms, int dir_fd)
{
    static char extra[] = ",\"extra\":42";
    struct node node = {NULL, NULL};
    struct cm_sync_opts opts = {.link = redis_server_opts(&rig.server),
                                .prefix = "{cm}",
                                .host_id = host,
                                .version = "1.2.3",
                                .stale_after_ms = stale_after_ms,
                                .snapshot_dir_fd = dir_fd,
                                .snapshot_name = "snapshot",
                                .report = add_report,
                                .report_arg = extra};
    struct cm_err err = {CM_OK, ""};
    assert_int_equal(cm_replica_new(&node.replica, 0), CM_OK);
    if (cm_sync_start(&node.sync, &opts, node.replica, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return node;
}

struct node
node_start(const char *host)
{
    return node_start_with(host, 0, -1);
}

void
node_stop(struct node *node)
{
    int64_t start = cm_clock_mono_ms();
    cm_sync_stop(node->sync);
    assert_true(cm_clock_mono_ms() - start < 250);
    cm_sync_free(&node->sync);
    cm_replica_free(&node->replica);
}

struct cm_replica_state
node_state(const struct node *node)
{
    struct cm_replica_state state;
    cm_replica_state(node->replica, &state);
    return state;
}

bool
node_has(const struct node *node, const char *address)
{
    struct cm_view *view = cm_replica_view(node->replica);
    struct cm_inbox *inbox = cm_view_inbox(view, address, strlen(address));
    bool found = inbox != NULL;
    cm_inbox_release(&inbox);
    cm_view_release(&view);
    return found;
}

size_t
node_rules(const struct node *node)
{
    struct cm_view *view = cm_replica_view(node->replica);
    struct cm_ruleset *set = cm_view_rules(view);
    size_t n = set ? cm_ruleset_count(set) : 0;
    cm_ruleset_release(&set);
    cm_view_release(&view);
    return n;
}

bool
node_alarm_has(const struct node *node, const char *text)
{
    struct cm_buf buf;
    cm_buf_init(&buf, 65536);
    cm_sync_alarms_json(node->sync, &buf);
    bool found = buf.data && strstr(buf.data, text) != NULL;
    cm_buf_fini(&buf);
    return found;
}

bool
node_no_alarm(const struct node *node)
{
    struct cm_buf buf;
    cm_buf_init(&buf, 65536);
    cm_sync_alarms_json(node->sync, &buf);
    bool none = strcmp(buf.data, "[]") == 0;
    cm_buf_fini(&buf);
    return none;
}

void
rig_set_doc(enum cm_kind kind, const char *name, const char *doc)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_set(rig.commits, kind, name, doc, strlen(doc), CM_REV_ANY,
                      NULL, &err) != CM_OK)
        fail_msg("%s: %s", name, err.msg);
}

void
rig_set_inbox(const char *name)
{
    rig_set_doc(CM_KIND_INBOX, name, RIG_INBOX);
}

int
rig_fresh(void **state)
{
    (void)state;
    redis_say(&rig.server, "FLUSHALL", NULL);
    redis_say(&rig.server, "CONFIG", "SET", "maxmemory", "0",
              "maxmemory-policy", "noeviction", NULL);
    struct cm_link_opts opts = redis_server_opts(&rig.server);
    assert_int_equal(cm_pool_new(&rig.pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(
        cm_commits_new(&rig.commits, rig.pool, "{cm}", true, 1000, NULL),
        CM_OK);
    return 0;
}

int
rig_finish(void **state)
{
    (void)state;
    cm_commits_free(&rig.commits);
    cm_pool_free(&rig.pool);
    if (rig.server.pid == 0)
        redis_server_again(&rig.server);
    return 0;
}
