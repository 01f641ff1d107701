/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text format wants the samples of a family together, so the heartbeats are
 * read once and walked for each row of a table. They are JSON that others
 * wrote: what is missing or of another type has no sample. A host is named by
 * its heartbeat; of two with one name the first counts, for a page with two
 * equal samples is refused whole.
 */
#include "admin/api_prometheus.h"
#include "admin/api.h"
#include "admin/keeper.h"
#include "admin/response.h"
#include "admin/streams.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/histogram.h"
#include "milter/model/json.h"
#include "milter/prom.h"
#include "milter/settings.h"
#include "milter/store/commit.h"
#include "milter/store/tally.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_PROMETHEUS_BYTES    ((size_t)8 * 1024 * 1024)
#define CM_PROMETHEUS_HOSTS    500
#define CM_PROMETHEUS_ALIVE_MS 5000

struct host {
    json_t *beat; /* owned */
    const char *name;
    bool alive;
};

struct page {
    struct cm_buf buf;
    int64_t now_ms, seq;
    struct host hosts[CM_PROMETHEUS_HOSTS];
    size_t nhosts;
};

static void
put_one(struct page *page, const char *name, const char *type, const char *help,
        int64_t value)
{
    cm_prom_family(&page->buf, name, type, help);
    cm_prom_sample(&page->buf, name, NULL, value);
}

/* --- this daemon --- */

static void
put_admin(struct cm_api *api, struct page *page, bool up)
{
    static const char info[] = "chaosmilter_admin_info";
    static const char started[] = "chaosmilter_admin_start_time_seconds";
    uint64_t missed;
    size_t streams = cm_streams_count(api->streams, &missed);
    int64_t age_ms = cm_clock_mono_ms() - api->started_ms;
    cm_prom_family(&page->buf, info, "gauge", "This daemon; always 1.");
    cm_prom_sample(&page->buf, info, CM_PROM_LABELS({"version", api->version}),
                   1);
    cm_prom_family(&page->buf, started, "gauge",
                   "When this daemon was started.");
    cm_prom_seconds(&page->buf, started, NULL, page->now_ms - age_ms, 1000);
    put_one(page, "chaosmilter_admin_armed", "gauge",
            "Whether its settings allow chaos.", api->settings->armed);
    put_one(page, "chaosmilter_admin_redis_up", "gauge",
            "Whether Redis answered for this page.", up);
    put_one(page, "chaosmilter_admin_streams_open", "gauge",
            "Event streams open now.", (int64_t)streams);
    put_one(page, "chaosmilter_admin_stream_events_dropped_total", "counter",
            "Events that slow readers of streams missed.", (int64_t)missed);
}

/* --- totals --- */

static int64_t
total_of(char **totals, const char *name)
{
    for (; totals[0] && totals[1]; totals += 2)
        if (strcmp(totals[0], name) == 0)
            return strtoll(totals[1], NULL, 10);
    return 0;
}

static void
put_faults(struct page *page, char **totals)
{
    static const char name[] = "chaosmilter_fleet_faults_total";
    enum cm_fault_kind kind;
    enum cm_stage stage;
    enum cm_incident_outcome outcome;
    cm_prom_family(&page->buf, name, "counter",
                   "Faults that mails met, and what became of each.");
    for (; totals[0] && totals[1]; totals += 2)
        if (cm_tally_parse_fault(totals[0], &kind, &stage, &outcome))
            cm_prom_sample(
                &page->buf, name,
                CM_PROM_LABELS({"kind", cm_fault_name(kind)},
                               {"stage", cm_stage_name(stage)},
                               {"outcome", cm_incident_outcome_name(outcome)}),
                strtoll(totals[1], NULL, 10));
}

static void
put_totals(struct page *page, char **totals)
{
    static const struct {
        const char *total, *name, *help;
    } rows[] = {
        {"connections.total", "chaosmilter_fleet_sessions_total",
         "SMTP sessions."},
        {"email.received_total", "chaosmilter_fleet_messages_total",
         "Messages that reached their end."},
        {"email.recipients_total", "chaosmilter_fleet_recipients_total",
         "Recipients that were named."},
        {"inbox.created_total", "chaosmilter_fleet_inboxes_created_total",
         "Inboxes made."},
        {"inbox.deleted_total", "chaosmilter_fleet_inboxes_deleted_total",
         "Inboxes removed, or expired."},
    };
    static const char delay[] = "chaosmilter_fleet_delay_seconds_total";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        put_one(page, rows[i].name, "counter", rows[i].help,
                total_of(totals, rows[i].total));
    cm_prom_family(&page->buf, delay, "counter",
                   "Time that replies were held.");
    cm_prom_seconds(&page->buf, delay, NULL,
                    total_of(totals, "chaos.latency_injected_ms"), 1000);
    put_one(page, "chaosmilter_fleet_sequence", "gauge",
            "Number of the last change made.", page->seq);
}

/* --- hosts --- */

static bool
is_known(const struct page *page, const char *name)
{
    for (size_t i = 0; i < page->nhosts; i++)
        if (strcmp(page->hosts[i].name, name) == 0)
            return true;
    return false;
}

static void
add_host(struct page *page, const char *text)
{
    json_t *beat = NULL;
    if (page->nhosts == CM_PROMETHEUS_HOSTS ||
        cm_json_parse(&beat, text, strlen(text), NULL) != CM_OK)
        return;
    const char *name = json_string_value(json_object_get(beat, "host"));
    int64_t time_ms = json_integer_value(json_object_get(beat, "time_ms"));
    if (!name || is_known(page, name)) {
        json_decref(beat);
        return;
    }
    page->hosts[page->nhosts++] = (struct host){
        beat, name, page->now_ms - time_ms < CM_PROMETHEUS_ALIVE_MS};
}

/* "counters.sessions" of a heartbeat. */
static const json_t *
member(const json_t *beat, const char *path)
{
    const char *dot = strchr(path, '.');
    char group[32];
    if (!dot)
        return json_object_get(beat, path);
    snprintf(group, sizeof group, "%.*s", (int)(dot - path), path);
    return json_object_get(json_object_get(beat, group), dot + 1);
}

/* A number, a truth, or how many there are of something. */
static bool
value_of(const json_t *json, int64_t *value_r)
{
    if (json_is_integer(json))
        *value_r = json_integer_value(json);
    else if (json_is_boolean(json))
        *value_r = json_is_true(json);
    else if (json_is_array(json))
        *value_r = (int64_t)json_array_size(json);
    else
        return false;
    return true;
}

static void
put_up(struct page *page)
{
    static const char up[] = "chaosmilter_fleet_host_up";
    static const char info[] = "chaosmilter_fleet_host_info";
    static const char lag[] = "chaosmilter_fleet_host_sequence_lag";
    cm_prom_family(&page->buf, up, "gauge",
                   "Whether the filter's heartbeat is fresh.");
    for (size_t i = 0; i < page->nhosts; i++)
        cm_prom_sample(&page->buf, up,
                       CM_PROM_LABELS({"host", page->hosts[i].name}),
                       page->hosts[i].alive);
    cm_prom_family(&page->buf, info, "gauge", "The filter; always 1.");
    for (size_t i = 0; i < page->nhosts; i++) {
        const struct host *host = &page->hosts[i];
        const char *version =
            json_string_value(json_object_get(host->beat, "version"));
        if (host->alive && version)
            cm_prom_sample(
                &page->buf, info,
                CM_PROM_LABELS({"host", host->name}, {"version", version}), 1);
    }
    cm_prom_family(&page->buf, lag, "gauge",
                   "Changes that the filter has not applied yet.");
    for (size_t i = 0; i < page->nhosts; i++) {
        int64_t seq, behind;
        if (!page->hosts[i].alive ||
            !value_of(member(page->hosts[i].beat, "seq"), &seq))
            continue;
        behind = page->seq > seq ? page->seq - seq : 0;
        cm_prom_sample(&page->buf, lag,
                       CM_PROM_LABELS({"host", page->hosts[i].name}), behind);
    }
}

static void
put_members(struct page *page)
{
    static const struct {
        const char *path, *name, *type, *help;
    } rows[] = {
        {"armed", "chaosmilter_fleet_host_armed", "gauge",
         "Whether it can hurt any mail."},
        {"alarms", "chaosmilter_fleet_host_alarms", "gauge",
         "What is wrong with it now; status says what."},
        {"held", "chaosmilter_fleet_host_held_replies", "gauge",
         "Replies held now."},
        {"inboxes", "chaosmilter_fleet_host_inboxes", "gauge",
         "Inboxes with a configuration."},
        {"rules", "chaosmilter_fleet_host_rules", "gauge",
         "Rules in the list."},
        {"broken_total", "chaosmilter_fleet_host_broken_documents", "gauge",
         "Documents that are not valid, and cause no chaos."},
        {"counters.sessions_open", "chaosmilter_fleet_host_sessions_open",
         "gauge", "SMTP sessions now."},
        {"counters.sessions", "chaosmilter_fleet_host_sessions_total",
         "counter", "SMTP sessions since its start."},
        {"counters.messages", "chaosmilter_fleet_host_messages_total",
         "counter", "Messages since its start."},
        {"counters.state_failures",
         "chaosmilter_fleet_host_state_failures_total", "counter",
         "Faults not done because Redis had no answer in time."},
        {"events_dropped", "chaosmilter_fleet_host_events_dropped_total",
         "counter", "Events lost because Redis was away for too long."},
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        cm_prom_family(&page->buf, rows[r].name, rows[r].type, rows[r].help);
        for (size_t i = 0; i < page->nhosts; i++) {
            int64_t value;
            if (page->hosts[i].alive &&
                value_of(member(page->hosts[i].beat, rows[r].path), &value))
                cm_prom_sample(&page->buf, rows[r].name,
                               CM_PROM_LABELS({"host", page->hosts[i].name}),
                               value);
        }
    }
}

/* false: it is not all there. */
static bool
read_histogram(const json_t *json, struct cm_histogram_view *view_r)
{
    const json_t *bounds = json_object_get(json, "bounds_ns");
    const json_t *counts = json_object_get(json, "counts");
    int64_t count;
    view_r->nbounds = json_array_size(bounds);
    if (view_r->nbounds == 0 || view_r->nbounds > CM_HISTOGRAM_BOUNDS_MAX ||
        json_array_size(counts) != view_r->nbounds + 1 ||
        !value_of(json_object_get(json, "sum_ns"), &view_r->sum_ns))
        return false;
    for (size_t i = 0; i <= view_r->nbounds; i++) {
        if (i < view_r->nbounds &&
            (!value_of(json_array_get(bounds, i), &view_r->bounds_ns[i]) ||
             (i > 0 && view_r->bounds_ns[i] <= view_r->bounds_ns[i - 1])))
            return false;
        if (!value_of(json_array_get(counts, i), &count) || count < 0)
            return false;
        view_r->counts[i] = (uint64_t)count;
    }
    return true;
}

static void
put_histograms(struct page *page)
{
    static const struct {
        const char *path, *name, *help;
    } rows[] = {
        {"histograms.decision_seconds",
         "chaosmilter_fleet_host_decision_seconds",
         "How long a verdict on a recipient or a message took."},
        {"histograms.delay_error_seconds",
         "chaosmilter_fleet_host_delay_error_seconds",
         "How much longer than asked a reply was held."},
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        cm_prom_family(&page->buf, rows[r].name, "histogram", rows[r].help);
        for (size_t i = 0; i < page->nhosts; i++) {
            const struct host *host = &page->hosts[i];
            struct cm_histogram_view view;
            if (host->alive &&
                read_histogram(member(host->beat, rows[r].path), &view))
                cm_prom_histogram(&page->buf, rows[r].name,
                                  CM_PROM_LABELS({"host", host->name}), &view);
        }
    }
}

static void
put_fleet(struct page *page, char **totals, char **beats)
{
    put_faults(page, totals);
    put_totals(page, totals);
    for (; *beats; beats++)
        add_host(page, *beats);
    put_up(page);
    put_members(page);
    put_histograms(page);
}

void
cm_api_prometheus(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    char *epoch = NULL, **totals = NULL, **beats = NULL;
    struct cm_err err;
    size_t len;
    (void)req;
    struct page *page = calloc(1, sizeof *page);
    if (!page) {
        cm_response_text(res, 200, CM_PROM_TYPE, NULL, 0);
        return;
    }
    page->now_ms = cm_clock_wall_ms();
    cm_buf_init(&page->buf, CM_PROMETHEUS_BYTES);
    enum cm_status status =
        cm_commit_seq(api->commits, &epoch, &page->seq, &err);
    if (status == CM_OK || status == CM_NOTFOUND)
        status = cm_commit_all_totals(api->commits, &totals, &err);
    if (status == CM_OK)
        status = cm_commit_hosts(api->commits, &beats, &err);
    put_admin(api, page, status == CM_OK);
    if (status == CM_OK)
        put_fleet(page, totals, beats);
    char *text = cm_buf_take(&page->buf, &len);
    cm_response_text(res, 200, CM_PROM_TYPE, text, len);
    for (size_t i = 0; i < page->nhosts; i++)
        json_decref(page->hosts[i].beat);
    free(page);
    free(epoch);
    cm_names_free(&totals);
    cm_names_free(&beats);
}
