/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One filter in Prometheus's format. No label tells an inbox, a rule or an
 * address: there may be a million of them. Faults have samples once they have
 * happened; most of five hundred kinds, stages and outcomes never do.
 */
#include "milter/buf.h"
#include "milter/filter/dropper.h"
#include "milter/filter/filter.h"
#include "milter/filter/hold.h"
#include "milter/filter/metrics.h"
#include "milter/prom.h"
#include "milter/store/journal.h"
#include "milter/store/replica.h"
#include "milter/store/sync.h"
#include "milter/store/tally.h"

#include <stdatomic.h>

#define CM_PAGE_ALARMS ((size_t)16 * 1024)

static void
put_one(struct cm_buf *buf, const char *name, const char *type,
        const char *help, int64_t value)
{
    cm_prom_family(buf, name, type, help);
    cm_prom_sample(buf, name, NULL, value);
}

static void
put_gauge(struct cm_buf *buf, const char *name, const char *help, int64_t value)
{
    put_one(buf, name, "gauge", help, value);
}

static void
put_process(const struct cm_filter *filter, const char *version,
            struct cm_buf *buf)
{
    static const char info[] = "chaosmilter_info";
    static const char started[] = "chaosmilter_start_time_seconds";
    cm_prom_family(buf, info, "gauge", "This filter; always 1.");
    cm_prom_sample(buf, info, CM_PROM_LABELS({"version", version}), 1);
    cm_prom_family(buf, started, "gauge", "When the filter was started.");
    cm_prom_seconds(buf, started, NULL, filter->metrics.started_ms, 1000);
    put_gauge(buf, "chaosmilter_armed", "Whether any mail can be hurt.",
              filter->armed);
}

/* What filter.h counts. */
static void
put_counts(const struct cm_filter *filter, struct cm_buf *buf)
{
    static const struct {
        enum cm_filter_count what;
        const char *name, *type, *help;
    } rows[] = {
        {CM_FILTER_SESSIONS, "chaosmilter_sessions_total", "counter",
         "SMTP sessions since the start."},
        {CM_FILTER_SESSIONS_OPEN, "chaosmilter_sessions_open", "gauge",
         "SMTP sessions now."},
        {CM_FILTER_MESSAGES, "chaosmilter_messages_total", "counter",
         "Messages that reached their end."},
        {CM_FILTER_INVALID_ADDRESS, "chaosmilter_invalid_addresses_total",
         "counter", "Addresses that are not valid, and met no chaos."},
        {CM_FILTER_PROTECTED, "chaosmilter_protected_recipients_total",
         "counter", "Protected recipients, which met no chaos."},
        {CM_FILTER_LOCAL, "chaosmilter_local_submissions_total", "counter",
         "Mails handed in on the host itself, which met no chaos."},
        {CM_FILTER_STATE_FAILED, "chaosmilter_state_failures_total", "counter",
         "Faults not done because Redis had no answer in time."},
        {CM_FILTER_NO_MEMORY, "chaosmilter_memory_failures_total", "counter",
         "Faults not done for lack of memory."},
        {CM_FILTER_REPLY_REFUSED, "chaosmilter_replies_refused_total",
         "counter", "Replies that libmilter would not take."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        put_one(buf, rows[i].name, rows[i].type, rows[i].help,
                atomic_load(&filter->counts[rows[i].what]));
}

static void
put_faults(const struct cm_filter *filter, struct cm_buf *buf)
{
    static const char name[] = "chaosmilter_faults_total";
    const struct cm_tally *tally = cm_journal_tally(filter->journal);
    cm_prom_family(buf, name, "counter",
                   "Faults that mails met, and what became of each.");
    for (size_t i = CM_TALLY_TOTALS; i < CM_TALLY_CELLS; i++) {
        char cell[CM_TALLY_NAME_BYTES];
        enum cm_fault_kind kind;
        enum cm_stage stage;
        enum cm_incident_outcome outcome;
        int64_t n = cm_tally_get(tally, i);
        cm_tally_name(i, cell, sizeof cell);
        if (n == 0 || !cm_tally_parse_fault(cell, &kind, &stage, &outcome))
            continue;
        cm_prom_sample(
            buf, name,
            CM_PROM_LABELS({"kind", cm_fault_name(kind)},
                           {"stage", cm_stage_name(stage)},
                           {"outcome", cm_incident_outcome_name(outcome)}),
            n);
    }
}

static void
put_times(const struct cm_filter *filter, struct cm_buf *buf)
{
    static const char decision[] = "chaosmilter_decision_seconds";
    static const char error[] = "chaosmilter_delay_error_seconds";
    struct cm_histogram_view view;
    cm_prom_family(buf, decision, "histogram",
                   "How long a verdict on a recipient or a message took.");
    cm_histogram_look(&filter->metrics.decision, &view);
    cm_prom_histogram(buf, decision, NULL, &view);
    cm_prom_family(buf, error, "histogram",
                   "How much longer than asked a reply was held.");
    cm_histogram_look(&filter->metrics.delay_error, &view);
    cm_prom_histogram(buf, error, NULL, &view);
    put_gauge(buf, "chaosmilter_held_replies", "Replies held now.",
              (int64_t)cm_hold_count());
}

static void
put_can(struct cm_buf *buf, const struct cm_filter *filter,
        enum cm_drop_how how, const char *what)
{
    bool can = filter->dropper && !cm_dropper_why_not(filter->dropper, how);
    cm_prom_sample(buf, "chaosmilter_drop_available",
                   CM_PROM_LABELS({"how", what}), can);
}

static void
put_store(struct cm_filter *filter, struct cm_buf *buf)
{
    struct cm_replica_state state;
    struct cm_buf alarms;
    cm_replica_state(filter->replica, &state);
    int64_t lag = cm_sync_head(filter->sync) - state.seq;
    cm_buf_init(&alarms, CM_PAGE_ALARMS);
    unsigned nalarms = cm_sync_alarms_json(filter->sync, &alarms);
    cm_buf_fini(&alarms);
    put_gauge(buf, "chaosmilter_redis_up", "Whether Redis answers.",
              cm_sync_connected(filter->sync));
    put_gauge(buf, "chaosmilter_rules_stale",
              "Whether the rules are too old to be applied.",
              cm_sync_stale(filter->sync));
    put_gauge(buf, "chaosmilter_sequence",
              "Number of the last change that was applied.", state.seq);
    put_gauge(buf, "chaosmilter_sequence_lag",
              "Changes in Redis that are not applied yet.", lag > 0 ? lag : 0);
    put_gauge(buf, "chaosmilter_inboxes", "Inboxes with a configuration.",
              (int64_t)state.inboxes);
    put_gauge(buf, "chaosmilter_rules", "Rules in the list.",
              (int64_t)state.rules);
    put_gauge(buf, "chaosmilter_broken_documents",
              "Documents in Redis that are not valid, and cause no chaos.",
              (int64_t)state.broken);
    put_gauge(buf, "chaosmilter_alarms", "What is wrong now; status says what.",
              nalarms);
    put_one(buf, "chaosmilter_events_dropped_total", "counter",
            "Events lost because Redis was away for too long.",
            (int64_t)cm_journal_dropped(filter->journal));
}

void
cm_metrics_page(struct cm_filter *filter, const char *version,
                struct cm_buf *buf)
{
    put_process(filter, version, buf);
    put_counts(filter, buf);
    put_faults(filter, buf);
    put_times(filter, buf);
    cm_prom_family(buf, "chaosmilter_drop_available", "gauge",
                   "Whether connections can be cut this way.");
    put_can(buf, filter, CM_DROP_RST, "rst");
    put_can(buf, filter, CM_DROP_FIN, "fin");
    put_store(filter, buf);
}
