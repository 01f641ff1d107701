/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the whole filter knows about itself: counters, what it cannot do, and
 * the heartbeat's account of both.
 */
#include "milter/filter/filter.h"
#include "milter/buf.h"
#include "milter/filter/dropper.h"
#include "milter/filter/hold.h"
#include "milter/filter/hook.h"
#include "milter/filter/relay.h"
#include "milter/model/address.h"
#include "milter/model/protect.h"
#include "milter/model/stage.h"
#include "milter/store/halt_watch.h"
#include "milter/store/journal.h"
#include "milter/store/quote.h"
#include "milter/store/sync.h"

#include <string.h>

static const char *const count_names[CM_FILTER_COUNT_MAX] = {
    [CM_FILTER_SESSIONS] = "sessions",
    [CM_FILTER_SESSIONS_OPEN] = "sessions_open",
    [CM_FILTER_MESSAGES] = "messages",
    [CM_FILTER_FAULTS] = "faults",
    [CM_FILTER_UNAVAILABLE] = "faults_unavailable",
    [CM_FILTER_SHED] = "delays_shed",
    [CM_FILTER_INVALID_ADDRESS] = "invalid_addresses",
    [CM_FILTER_PROTECTED] = "protected_recipients",
    [CM_FILTER_LOCAL] = "local_submissions",
    [CM_FILTER_STATE_FAILED] = "state_failures",
    [CM_FILTER_NO_MEMORY] = "memory_failures",
    [CM_FILTER_HEADERS_LOST] = "headers_not_kept",
    [CM_FILTER_REPLY_REFUSED] = "replies_refused",
    [CM_FILTER_HOOK_LOOKUPS] = "hook_lookups",
    [CM_FILTER_HOOK_LATE] = "hook_late",
    [CM_FILTER_HOOK_MALFORMED] = "hook_malformed",
    [CM_FILTER_RELAY_QUESTIONS] = "relay_questions",
    [CM_FILTER_RELAY_LATE] = "relay_late",
    [CM_FILTER_RELAY_UNREACHED] = "relay_unreached",
};

void
cm_filter_count(struct cm_filter *filter, enum cm_filter_count what)
{
    atomic_fetch_add_explicit(&filter->counts[what], 1, memory_order_relaxed);
}

bool
cm_filter_is_live(const struct cm_filter *filter)
{
    return filter->armed && !cm_filter_halted(filter) &&
           !cm_sync_stale(filter->sync);
}

void
cm_filter_protect(struct cm_filter *filter, struct cm_protect *protect)
{
    pthread_rwlock_wrlock(&filter->protect_lock);
    struct cm_protect *old = filter->protect;
    filter->protect = protect;
    pthread_rwlock_unlock(&filter->protect_lock);
    if (old)
        cm_protect_free(&old);
}

bool
cm_filter_protects(struct cm_filter *filter, const struct cm_address *recipient)
{
    struct cm_address base;
    bool has_base =
        cm_address_strip_tag(recipient, filter->recipient_delimiter, &base);
    pthread_rwlock_rdlock(&filter->protect_lock);
    bool covers = cm_protect_covers(filter->protect, recipient) ||
                  (has_base && cm_protect_covers(filter->protect, &base));
    pthread_rwlock_unlock(&filter->protect_lock);
    return covers;
}

bool
cm_filter_halted(const struct cm_filter *filter)
{
    return cm_halt_watch_on(filter->halt);
}

static const char *
drop_unavailable(const struct cm_filter *filter, enum cm_drop_how how)
{
    return filter->dropper ? cm_dropper_why_not(filter->dropper, how)
                           : "this filter cannot cut connections";
}

const char *
cm_filter_unavailable(const struct cm_filter *filter,
                      const struct cm_fault *fault)
{
    switch (fault->kind) {
    case CM_FAULT_ERROR:
    case CM_FAULT_LATENCY:
    case CM_FAULT_GREYLIST:
    case CM_FAULT_BLACKHOLE:
    case CM_FAULT_THROTTLE:
    case CM_FAULT_SEQUENCE:
    case CM_FAULT_QUARANTINE:
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_MISDELIVER:
    case CM_FAULT_MUTATE:
        return NULL;
    case CM_FAULT_DROP:
        return drop_unavailable(filter, fault->u.drop.how);
    case CM_FAULT_HIDE:
        return cm_hook_why_not_hide(filter->hook);
    case CM_FAULT_COUNT:
        break;
    }
    return "unknown fault";
}

static void
report_unavailable(struct cm_buf *json, const char *name, const char *why,
                   const char **comma)
{
    if (!why)
        return;
    cm_buf_printf(json, "%s\"%s\":", *comma, name);
    cm_quote_json(json, why, strlen(why));
    *comma = ",";
}

/* Postfix has the hook, Sendmail the relay: either will do. */
static const char *
why_no_auth(const struct cm_filter *filter)
{
    const char *hook = cm_hook_why_not(filter->hook);
    const char *relay = cm_relay_why_not(filter->relay);
    if (!hook || !relay)
        return NULL;
    if (!filter->hook && !filter->relay)
        return "no command hook (hook.socket) and no saslauthd relay "
               "(relay.socket) is set up";
    return filter->hook ? hook : relay;
}

/* The stages that no event of the milter protocol belongs to. */
static void
report_hook(struct cm_buf *json, const struct cm_filter *filter,
            const char **comma)
{
    static const enum cm_stage stages[] = {CM_STAGE_STARTTLS, CM_STAGE_AUTH,
                                           CM_STAGE_NOOP,     CM_STAGE_RSET,
                                           CM_STAGE_VRFY,     CM_STAGE_QUIT};
    const char *why = cm_hook_why_not(filter->hook);
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++)
        report_unavailable(
            json, cm_stage_name(stages[i]),
            stages[i] == CM_STAGE_AUTH ? why_no_auth(filter) : why, comma);
    report_unavailable(json, cm_fault_name(CM_FAULT_HIDE),
                       cm_hook_why_not_hide(filter->hook), comma);
}

void
cm_filter_report(void *arg, struct cm_buf *json)
{
    struct cm_filter *filter = arg;
    const char *comma = "";
    cm_buf_printf(json,
                  ",\"armed\":%s,\"hold\":\"%s\",\"held\":%zu,"
                  "\"events_dropped\":%llu,\"unavailable\":{",
                  filter->armed ? "true" : "false",
                  cm_hold_has_slept() ? "sleeping" : "ok",
                  cm_hold_count() + cm_hook_held(filter->hook) +
                      cm_relay_held(filter->relay),
                  (unsigned long long)cm_journal_dropped(filter->journal));
    report_unavailable(json, "drop.rst", drop_unavailable(filter, CM_DROP_RST),
                       &comma);
    report_unavailable(json, "drop.fin", drop_unavailable(filter, CM_DROP_FIN),
                       &comma);
    report_hook(json, filter, &comma);
    cm_buf_puts(json, "},\"mtas\":");
    cm_seen_report(&filter->seen, json);
    cm_halt_watch_report(filter->halt, json);
    cm_buf_puts(json, ",\"counters\":{");
    for (int i = 0; i < CM_FILTER_COUNT_MAX; i++)
        cm_buf_printf(json, "%s\"%s\":%lld", i ? "," : "", count_names[i],
                      (long long)atomic_load(&filter->counts[i]));
    cm_buf_puts(json, "}");
    cm_metrics_report(&filter->metrics, json);
}
