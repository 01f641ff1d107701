/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One loop: no link, then make one; not in step with Redis, then read
 * everything; a second gone, then compare and tell how we are; else wait in
 * XREAD, which Redis ends as soon as there is something. Every failure ends the
 * link and comes back by way of the back-off.
 *
 * After a reconnect to the same server (same replication id) the log is
 * followed from where we were; any other server is read anew, for after a
 * failover the same number may stand for another change.
 */
#include "milter/store/sync.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/store/alarms.h"
#include "milter/store/backoff.h"
#include "milter/store/quote.h"
#include "milter/store/redis.h"
#include "milter/store/replica.h"
#include "milter/store/resync.h"
#include "milter/store/saver.h"
#include "milter/store/snapshot.h"
#include "milter/store/thread.h"

#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CM_TICK_MS         1000
#define CM_POLICY_TICKS    60 /* maxmemory-policy is looked at that often */
#define CM_HEARTBEAT_BYTES ((size_t)256 * 1024)
#define CM_BROKEN_SHOWN    20 /* in the heartbeat */
#define CM_BROKEN_LOGGED   3

struct cm_sync {
    struct cm_sync_opts opts; /* texts owned */
    struct cm_keys keys;
    struct cm_replica *replica; /* borrowed */
    struct cm_saver *saver;     /* NULL: no snapshot */
    pthread_t thread;
    bool running; /* the thread is to be joined; the owner's */
    int wake_fd;  /* eventfd: stop now */
    int64_t started_ms;

    atomic_bool stopping, connected, synced;
    _Atomic int64_t fresh_ms; /* monotonic: equal to Redis at that time */
    _Atomic int64_t head_seq; /* the newest that Redis was seen to have */

    struct cm_alarms alarms;

    /* the thread's own */
    struct cm_link *link;
    struct cm_backoff link_backoff, resync_backoff;
    struct cm_position pos;
    char replid[48];
    bool need_resync;
    int64_t tick_at_ms;
    unsigned ticks;
    size_t broken_told; /* broken documents when they were last logged */
};

static struct cm_log_gate down_gate, up_gate, empty_gate;

/* --- alarms --- */

unsigned
cm_sync_alarms_json(struct cm_sync *sync, struct cm_buf *buf)
{
    struct cm_replica_state state;
    char text[256];
    unsigned n = 0;
    cm_replica_state(sync->replica, &state);
    cm_buf_puts(buf, "[");
    cm_alarms_print(&sync->alarms, buf, &n);
    if (state.broken > 0) {
        snprintf(text, sizeof text,
                 "broken documents: %zu; they cause no chaos, and "
                 "hosts[].broken tells why",
                 state.broken);
        cm_alarms_print_one(buf, &n, text);
    }
    if (cm_sync_stale(sync))
        cm_alarms_print_one(buf, &n, "the rules are stale and not applied");
    cm_saver_problem(sync->saver, text, sizeof text);
    cm_alarms_print_one(buf, &n, text);
    cm_buf_puts(buf, "]");
    return n;
}

/* --- the link --- */

static bool
wait_ms(struct cm_sync *sync, int ms)
{
    struct pollfd fd = {.fd = sync->wake_fd, .events = POLLIN};
    (void)poll(&fd, 1, ms);
    return !atomic_load(&sync->stopping);
}

static void
went_down(struct cm_sync *sync, const struct cm_err *err)
{
    unsigned long held_back = 0;
    cm_link_close(&sync->link);
    atomic_store(&sync->connected, false);
    if (atomic_load(&sync->stopping))
        return;
    cm_alarm_raise(&sync->alarms, CM_ALARM_AWAY, "Redis is away: %s", err->msg);
    if (cm_log_gate_open(&down_gate, &held_back))
        cm_log_warn("redis=down address=\"%s\" reason=\"%s\" held_back=%lu",
                    sync->opts.link.address, err->msg, held_back);
}

static void
came_up(struct cm_sync *sync)
{
    unsigned long held_back = 0;
    cm_backoff_reset(&sync->link_backoff);
    atomic_store(&sync->connected, true);
    cm_alarm_clear(&sync->alarms, CM_ALARM_AWAY);
    if (cm_log_gate_open(&up_gate, &held_back))
        cm_log_info("redis=up address=\"%s\" held_back=%lu",
                    sync->opts.link.address, held_back);
}

/* The value of "name:" in INFO's text, "" when it is not there. */
static void
info_value(const struct redisReply *reply, const char *name, char *out,
           size_t cap)
{
    out[0] = '\0';
    const char *at =
        reply->type == REDIS_REPLY_STRING ? strstr(reply->str, name) : NULL;
    if (!at)
        return;
    at += strlen(name);
    snprintf(out, cap, "%.*s", (int)strcspn(at, "\r\n"), at);
}

static enum cm_status
read_info(struct cm_sync *sync, const char *section, const char *name1,
          char *out1, size_t cap1, const char *name2, char *out2, size_t cap2,
          struct cm_err *err)
{
    const char *argv[] = {"INFO", section};
    struct redisReply *reply = NULL;
    out1[0] = out2[0] = '\0';
    enum cm_status st =
        cm_link_command(sync->link, &reply, 2, argv, NULL, 0, NULL, err);
    if (st == CM_EPROTO)
        return CM_OK; /* not allowed to: we know less, that is all */
    if (st != CM_OK)
        return st;
    info_value(reply, name1, out1, cap1);
    info_value(reply, name2, out2, cap2);
    cm_link_reply_free(&reply);
    return CM_OK;
}

/* CONFIG GET would need a dangerous right; INFO tells as much. */
static enum cm_status
check_policy(struct cm_sync *sync, struct cm_err *err)
{
    char policy[32], limit[24];
    enum cm_status st =
        read_info(sync, "memory", "\nmaxmemory_policy:", policy, sizeof policy,
                  "\nmaxmemory:", limit, sizeof limit, err);
    if (st != CM_OK)
        return st;
    if (*policy && strcmp(policy, "noeviction") != 0 && *limit &&
        strcmp(limit, "0") != 0)
        cm_alarm_raise(
            &sync->alarms, CM_ALARM_POLICY,
            "Redis evicts keys when memory is short (maxmemory-policy "
            "%s): rules or greylisting state may vanish; use noeviction",
            policy);
    else
        cm_alarm_clear(&sync->alarms, CM_ALARM_POLICY);
    return CM_OK;
}

static enum cm_status
connect_redis(struct cm_sync *sync, struct cm_err *err)
{
    char replid[sizeof sync->replid], unused[8];
    const struct cm_link_opts *opts = &sync->opts.link;
    enum cm_status st = cm_link_open_within(
        &sync->link, opts, opts->connect_timeout_ms + opts->command_timeout_ms,
        sync->wake_fd, err);
    if (st == CM_OK)
        st = read_info(sync, "replication", "\nmaster_replid:", replid,
                       sizeof replid, "\nrole:", unused, sizeof unused, err);
    if (st == CM_OK)
        st = check_policy(sync, err);
    if (st != CM_OK)
        return st;
    if (!*replid || strcmp(replid, sync->replid) != 0)
        sync->need_resync = true;
    snprintf(sync->replid, sizeof sync->replid, "%s", replid);
    sync->tick_at_ms = 0; /* compare at once */
    came_up(sync);
    return CM_OK;
}

/* --- keeping in step --- */

static void
is_fresh(struct cm_sync *sync)
{
    atomic_store(&sync->fresh_ms, cm_clock_mono_ms());
    atomic_store(&sync->synced, true);
    cm_alarm_clear(&sync->alarms, CM_ALARM_EMPTY);
    cm_alarm_clear(&sync->alarms, CM_ALARM_RESYNC);
}

/* Redis holds no data of ours. With nothing here either, that is a new fleet
 * and all is well; else somebody emptied it, and the rules stay. */
static void
is_empty(struct cm_sync *sync)
{
    struct cm_replica_state state;
    unsigned long held_back = 0;
    cm_replica_state(sync->replica, &state);
    sync->pos.epoch[0] = '\0';
    sync->pos.seq = 0;
    sync->pos.inside = false;
    if (state.inboxes + state.rules + state.broken == 0 &&
        state.epoch[0] == '\0') {
        is_fresh(sync);
        return;
    }
    cm_alarm_raise(
        &sync->alarms, CM_ALARM_EMPTY,
        "Redis is empty (no %s): the last known rules stay, %zu inboxes "
        "and %zu rules",
        sync->keys.epoch, state.inboxes, state.rules);
    if (cm_log_gate_open(&empty_gate, &held_back))
        cm_log_warn("redis=empty address=\"%s\" kept_inboxes=%zu "
                    "kept_rules=%zu held_back=%lu",
                    sync->opts.link.address, state.inboxes, state.rules,
                    held_back);
}

static enum cm_status
resync(struct cm_sync *sync, struct cm_err *err)
{
    /* The first time at once; again and again without a quiet second between
     * them means trouble, and costs Redis a whole reading each. */
    if (sync->resync_backoff.tries > 0 &&
        !wait_ms(sync, cm_backoff_next_ms(&sync->resync_backoff)))
        return CM_OK;
    if (sync->resync_backoff.tries == 0)
        (void)cm_backoff_next_ms(&sync->resync_backoff);
    enum cm_status st =
        cm_resync(sync->link, &sync->keys, sync->replica,
                  sync->opts.link.command_timeout_ms, &sync->pos, err);
    switch (st) {
    case CM_OK:
        sync->need_resync = false;
        is_fresh(sync);
        cm_saver_poke(sync->saver);
        return CM_OK;
    case CM_NOTFOUND:
        sync->need_resync = false;
        is_empty(sync);
        return CM_OK;
    case CM_ECONFLICT:
        return CM_OK; /* need_resync stays */
    case CM_EINVAL:
    case CM_ENOMEM:
    case CM_EIO:
    case CM_ETIMEOUT:
    case CM_EPROTO:
        break;
    }
    if (!atomic_load(&sync->stopping))
        cm_alarm_raise(&sync->alarms, CM_ALARM_RESYNC,
                       "reading the rules failed: %s", err->msg);
    return st;
}

static enum cm_status
follow(struct cm_sync *sync, int block_ms, enum cm_tail *what_r,
       struct cm_err *err)
{
    enum cm_status st =
        cm_tail_read(sync->link, &sync->keys, sync->replica, &sync->pos, false,
                     block_ms, sync->opts.link.command_timeout_ms, what_r, err);
    if (st == CM_ENOMEM || *what_r == CM_TAIL_LOST)
        sync->need_resync = true;
    if (st == CM_OK && *what_r == CM_TAIL_APPLIED)
        cm_saver_poke(sync->saver);
    return st;
}

/* The safety net: are we where Redis is? */
static enum cm_status
compare(struct cm_sync *sync, struct cm_err *err)
{
    struct cm_replica_state state;
    char epoch[sizeof sync->pos.epoch] = "";
    int64_t seq = 0;
    bool has_data = false;
    enum cm_tail what = CM_TAIL_APPLIED;
    enum cm_status st = cm_tail_head(sync->link, &sync->keys, epoch,
                                     sizeof epoch, &seq, &has_data, err);
    if (st != CM_OK)
        return st;
    if (!has_data) {
        is_empty(sync);
        cm_backoff_reset(&sync->resync_backoff);
        return CM_OK;
    }
    bool went_back = seq < sync->pos.seq;
    atomic_store(&sync->head_seq, seq);
    /* What was committed before we asked is in the log now. */
    while (st == CM_OK && what == CM_TAIL_APPLIED &&
           strcmp(epoch, sync->pos.epoch) == 0 &&
           (seq > sync->pos.seq || sync->pos.inside))
        st = follow(sync, 0, &what, err);
    if (st != CM_OK)
        return st;
    cm_replica_state(sync->replica, &state);
    if (went_back || strcmp(epoch, sync->pos.epoch) != 0 ||
        sync->pos.seq < seq || state.seq != sync->pos.seq ||
        strcmp(epoch, state.epoch) != 0)
        sync->need_resync = true;
    if (!sync->need_resync) {
        is_fresh(sync);
        cm_backoff_reset(&sync->resync_backoff);
    }
    return CM_OK;
}

/* --- the heartbeat --- */

static void
print_heartbeat(struct cm_sync *sync, struct cm_buf *buf)
{
    struct cm_replica_state state;
    cm_replica_state(sync->replica, &state);
    cm_buf_puts(buf, "{\"host\":");
    cm_quote_json(buf, sync->opts.host_id, strlen(sync->opts.host_id));
    cm_buf_printf(buf, ",\"pid\":%ld,\"version\":", (long)getpid());
    cm_quote_json(buf, sync->opts.version, strlen(sync->opts.version));
    cm_buf_printf(
        buf, ",\"started_ms\":%" PRId64 ",\"time_ms\":%" PRId64 ",\"epoch\":",
        sync->started_ms, cm_clock_wall_ms());
    cm_quote_json(buf, state.epoch, strlen(state.epoch));
    cm_buf_printf(buf,
                  ",\"seq\":%" PRId64 ",\"digest\":\"%016" PRIx64
                  "\",\"inboxes\":%zu,\"rules\":%zu,\"broken_total\":%zu",
                  state.seq, state.digest, state.inboxes, state.rules,
                  state.broken);
    cm_buf_puts(buf, ",\"broken\":");
    cm_replica_broken_json(sync->replica, buf, CM_BROKEN_SHOWN);
    cm_buf_puts(buf, ",\"alarms\":");
    cm_sync_alarms_json(sync, buf);
    if (sync->opts.report)
        sync->opts.report(sync->opts.report_arg, buf);
    cm_buf_puts(buf, "}");
}

static enum cm_status
beat(struct cm_sync *sync, struct cm_err *err)
{
    struct cm_buf buf;
    struct redisReply *reply = NULL;
    cm_buf_init(&buf, CM_HEARTBEAT_BYTES);
    print_heartbeat(sync, &buf);
    enum cm_status st = cm_buf_status(&buf);
    if (st != CM_OK) {
        cm_alarm_raise(&sync->alarms, CM_ALARM_HEARTBEAT, "no heartbeat: %s",
                       cm_status_name(st));
        cm_buf_fini(&buf);
        return CM_OK;
    }
    const char *argv[] = {"HSET", sync->keys.hosts, sync->opts.host_id,
                          buf.data};
    st = cm_link_command(sync->link, &reply, 4, argv, NULL, 0, NULL, err);
    cm_link_reply_free(&reply);
    cm_buf_fini(&buf);
    if (st == CM_EPROTO) { /* read-only, out of memory, not allowed */
        cm_alarm_raise(&sync->alarms, CM_ALARM_HEARTBEAT, "no heartbeat: %s",
                       err->msg);
        return CM_OK;
    }
    if (st == CM_OK)
        cm_alarm_clear(&sync->alarms, CM_ALARM_HEARTBEAT);
    return st;
}

/* A document that is broken is logged when it comes, not at every beat. */
static void
tell_broken(struct cm_sync *sync)
{
    struct cm_replica_state state;
    struct cm_buf names;
    cm_replica_state(sync->replica, &state);
    if (state.broken > sync->broken_told) {
        cm_buf_init(&names, CM_HEARTBEAT_BYTES);
        cm_replica_broken_json(sync->replica, &names, CM_BROKEN_LOGGED);
        cm_log_warn("broken documents, which cause no chaos: n=%zu first=%s",
                    state.broken, names.data ? names.data : "");
        cm_buf_fini(&names);
    }
    sync->broken_told = state.broken;
}

static enum cm_status
tick(struct cm_sync *sync, struct cm_err *err)
{
    sync->tick_at_ms = cm_clock_mono_ms() + CM_TICK_MS;
    cm_replica_tidy(sync->replica);
    enum cm_status st = compare(sync, err);
    tell_broken(sync);
    if (st == CM_OK && ++sync->ticks % CM_POLICY_TICKS == 0)
        st = check_policy(sync, err);
    if (st == CM_OK && !sync->need_resync)
        st = beat(sync, err);
    return st;
}

/* --- the thread --- */

static enum cm_status
step(struct cm_sync *sync, struct cm_err *err)
{
    enum cm_tail what = CM_TAIL_IDLE;
    if (!sync->link)
        return connect_redis(sync, err);
    if (sync->need_resync)
        return resync(sync, err);
    int64_t left = sync->tick_at_ms - cm_clock_mono_ms();
    if (left <= 0)
        return tick(sync, err);
    return follow(sync, left > CM_TICK_MS ? CM_TICK_MS : (int)left, &what, err);
}

static void *
sync_main(void *arg)
{
    struct cm_sync *sync = arg;
    while (!atomic_load(&sync->stopping)) {
        struct cm_err err = {CM_OK, ""};
        if (step(sync, &err) == CM_OK)
            continue;
        went_down(sync, &err);
        (void)wait_ms(sync, cm_backoff_next_ms(&sync->link_backoff));
    }
    cm_link_close(&sync->link);
    return NULL;
}

void
cm_sync_free(struct cm_sync **sync_p)
{
    struct cm_sync *sync = *sync_p;
    if (!sync)
        return;
    cm_saver_free(&sync->saver);
    cm_link_opts_fini(&sync->opts.link);
    free((char *)sync->opts.host_id);
    free((char *)sync->opts.version);
    if (sync->wake_fd >= 0)
        close(sync->wake_fd);
    cm_alarms_fini(&sync->alarms);
    free(sync);
    *sync_p = NULL;
}

static enum cm_status
copy_opts(struct cm_sync *sync, const struct cm_sync_opts *opts)
{
    sync->opts = *opts;
    sync->opts.prefix = sync->opts.snapshot_name = NULL; /* not needed again */
    sync->opts.host_id = strdup(opts->host_id);
    sync->opts.version = strdup(opts->version);
    enum cm_status st = cm_link_opts_dup(&sync->opts.link, &opts->link);
    if (!sync->opts.host_id || !sync->opts.version)
        st = CM_ENOMEM;
    return st;
}

/* A snapshot that cannot be used is no reason not to start. */
static enum cm_status
start_snapshots(struct cm_sync *sync, const struct cm_sync_opts *opts,
                struct cm_err *err)
{
    struct cm_err why = {CM_OK, ""};
    if (opts->snapshot_dir_fd < 0)
        return CM_OK;
    enum cm_status st = cm_snapshot_read(
        opts->snapshot_dir_fd, opts->snapshot_name, sync->replica, &why);
    if (st == CM_ENOMEM)
        return cm_err_set(err, st, "%s", why.msg);
    if (st != CM_OK && st != CM_NOTFOUND)
        cm_alarm_raise(&sync->alarms, CM_ALARM_SNAPSHOT, "%s", why.msg);
    return cm_saver_start(&sync->saver, opts->snapshot_dir_fd,
                          opts->snapshot_name, sync->replica, err);
}

enum cm_status
cm_sync_start(struct cm_sync **sync_r, const struct cm_sync_opts *opts,
              struct cm_replica *replica, struct cm_err *err)
{
    struct cm_sync *sync = calloc(1, sizeof *sync);
    if (!sync)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    sync->replica = replica;
    sync->need_resync = true;
    sync->started_ms = cm_clock_wall_ms();
    atomic_init(&sync->fresh_ms, cm_clock_mono_ms());
    cm_alarms_init(&sync->alarms);
    sync->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum cm_status st = copy_opts(sync, opts);
    if (st != CM_OK)
        cm_err_set(err, st, "out of memory");
    else if (sync->wake_fd < 0)
        st = cm_err_set(err, CM_EIO, "no descriptor left");
    if (st == CM_OK)
        st = cm_link_check_address(opts->link.address, err);
    if (st == CM_OK)
        st = cm_keys_init(&sync->keys, opts->prefix, err);
    if (st == CM_OK)
        st = start_snapshots(sync, opts, err);
    if (st == CM_OK)
        st = cm_thread_start(&sync->thread, sync_main, sync, err);
    sync->running = st == CM_OK;
    if (st != CM_OK)
        cm_sync_free(&sync);
    *sync_r = sync;
    return st;
}

void
cm_sync_stop(struct cm_sync *sync)
{
    if (!sync->running)
        return;
    uint64_t one = 1;
    atomic_store(&sync->stopping, true);
    if (write(sync->wake_fd, &one, sizeof one) < 0) {
        /* Full already, which wakes as well. */
    }
    pthread_join(sync->thread, NULL);
    cm_saver_stop(sync->saver);
    sync->running = false;
}

bool
cm_sync_stale(const struct cm_sync *sync)
{
    return sync->opts.stale_after_ms > 0 &&
           cm_clock_mono_ms() - atomic_load(&sync->fresh_ms) >
               sync->opts.stale_after_ms;
}

int64_t
cm_sync_head(const struct cm_sync *sync)
{
    return atomic_load(&sync->head_seq);
}

bool
cm_sync_connected(const struct cm_sync *sync)
{
    return atomic_load(&sync->connected);
}

bool
cm_sync_synced(const struct cm_sync *sync)
{
    return atomic_load(&sync->synced);
}
