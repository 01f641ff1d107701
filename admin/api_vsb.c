/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VaultSandbox's clients refuse to work with a server that lacks certain
 * members; those of features that are not here say so by their value (no
 * encryption, no web hooks).
 *
 * Metrics are totals over all filters, kept in Redis. Members that nobody
 * counts (connections.active and .rejected, email.processing_time_ms) are left
 * out rather than shown as 0.
 */
#include "admin/api_vsb.h"
#include "admin/api.h"
#include "admin/response.h"
#include "milter/clock.h"
#include "milter/settings.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <string.h>

#define CM_METRICS_LIST_LIMIT 1000
#define CM_METRICS_LIST_PAGES 10

void
cm_api_check_key(struct cm_api *api, const struct cm_request *req,
                 struct cm_response *res)
{
    (void)api;
    (void)req;
    cm_response_json(res, 200, json_pack("{s:b}", "ok", 1));
}

void
cm_api_server_info(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    (void)req;
    const struct cm_settings *s = api->settings;
    json_t *domains = json_array();
    for (size_t i = 0; i < s->admin.domains.n; i++)
        json_array_append_new(domains, json_string(s->admin.domains.at[i]));
    json_t *info = json_pack(
        "{s:s, s:{s:s, s:s, s:s, s:s}, s:s, s:I, s:I, s:b, s:b, s:o, s:s, s:b, "
        "s:b, s:b, s:b}",
        "serverSigPk", "", "algs", "kem", "", "sig", "", "aead", "", "kdf", "",
        "context", "vaultsandbox:email:v1", "maxTtl",
        (json_int_t)s->admin.max_ttl_s, "defaultTtl",
        (json_int_t)s->admin.default_ttl_s, "sseConsole", 1,
        "allowClearAllInboxes", 0, "allowedDomains", domains,
        "encryptionPolicy", "never", "webhookEnabled", 0,
        "webhookRequireAuthDefault", 0, "spamAnalysisEnabled", 0,
        "chaosEnabled", (int)s->armed);
    cm_response_json(res, 200, info);
}

/* "chaos.events_total" becomes member events_total of object chaos. */
static int
put_total(json_t *metrics, const struct cm_total *total)
{
    char group[32];
    const char *dot = strchr(total->name, '.');
    size_t len = (size_t)(dot - total->name);
    memcpy(group, total->name, len);
    group[len] = '\0';
    json_t *object = json_object_get(metrics, group);
    if (!object) {
        object = json_object();
        if (json_object_set_new(metrics, group, object) < 0)
            return -1;
    }
    return json_object_set_new(object, dot + 1, json_integer(total->value));
}

/* How many inboxes are there that POST /api/inboxes made? Counted by paging
 * through the index; beyond ten thousand it would cost too much: -1. */
static enum cm_status
count_boxes(struct cm_api *api, int64_t *n_r, struct cm_err *err)
{
    char after[321] = "";
    *n_r = 0;
    for (int page = 0; page < CM_METRICS_LIST_PAGES; page++) {
        char **names = NULL;
        size_t n = 0;
        enum cm_status status =
            cm_commit_list(api->commits, CM_KIND_BOX, "", after,
                           CM_METRICS_LIST_LIMIT, &names, &n, err);
        if (status != CM_OK)
            return status;
        *n_r += (int64_t)n;
        if (n == CM_METRICS_LIST_LIMIT)
            strncpy(after, names[n - 1], sizeof after - 1);
        cm_names_free(&names);
        if (n < CM_METRICS_LIST_LIMIT)
            return CM_OK;
    }
    *n_r = -1;
    return CM_OK;
}

static json_t *
build(struct cm_api *api, const struct cm_total *totals, size_t n,
      int64_t boxes)
{
    json_t *metrics = json_object();
    bool ok = metrics != NULL;
    for (size_t i = 0; i < n && ok; i++)
        ok = put_total(metrics, &totals[i]) == 0;
    if (ok && boxes >= 0)
        ok = json_object_set_new(json_object_get(metrics, "inbox"),
                                 "active_total", json_integer(boxes)) == 0;
    int64_t up_ms = cm_clock_mono_ms() - api->started_ms;
    if (ok)
        ok = json_object_set_new(metrics, "server",
                                 json_pack("{s:I}", "uptime_seconds",
                                           (json_int_t)(up_ms / 1000))) == 0;
    if (!ok) {
        json_decref(metrics);
        return NULL;
    }
    return metrics;
}

void
cm_api_metrics(struct cm_api *api, const struct cm_request *req,
               struct cm_response *res)
{
    struct cm_total totals[] = {
        {"connections.total", 0},
        {"inbox.created_total", 0},
        {"inbox.deleted_total", 0},
        {"email.received_total", 0},
        {"email.recipients_total", 0},
        {"chaos.events_total", 0},
        {"chaos.latency_injected_ms", 0},
        {"chaos.errors_returned_total", 0},
        {"chaos.connections_dropped_total", 0},
        {"chaos.greylist_rejections_total", 0},
        {"chaos.blackhole_total", 0},
    };
    size_t n = sizeof totals / sizeof totals[0];
    struct cm_err err;
    int64_t boxes = -1;
    enum cm_status status = cm_commit_totals(api->commits, totals, n, &err);
    if (status == CM_OK)
        status = count_boxes(api, &boxes, &err);
    if (status == CM_OK)
        cm_response_json(res, 200, build(api, totals, n, boxes));
    else
        cm_api_failed(api, req, res, status, &err, false);
}
