/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The routes are one table, so that what is served, under which name and to
 * whom, can be read at a glance and compared with the documentation by a test.
 */
#include "admin/api.h"
#include "admin/api_audit.h"
#include "admin/api_chaos.h"
#include "admin/api_events.h"
#include "admin/api_halt.h"
#include "admin/api_inboxes.h"
#include "admin/api_keys.h"
#include "admin/api_localstack.h"
#include "admin/api_mailpit.h"
#include "admin/api_own_inboxes.h"
#include "admin/api_prometheus.h"
#include "admin/api_reset.h"
#include "admin/api_rules.h"
#include "admin/api_status.h"
#include "admin/api_stream.h"
#include "admin/api_vsb.h"
#include "admin/auth.h"
#include "admin/etag.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/router.h"
#include "admin/scope.h"
#include "admin/ticket.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/model/address.h"
#include "milter/model/json.h"
#include "milter/settings.h"
#include "milter/store/commit.h"
#include "milter/store/pool.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define KEY    CM_ROUTE_KEY
#define ARMED  (CM_ROUTE_KEY | CM_ROUTE_ARMED)
#define TICKET (CM_ROUTE_KEY | CM_ROUTE_TICKET)
#define READ   (CM_ROUTE_KEY | CM_ROUTE_READ)
#define ANY    (CM_ROUTE_KEY | CM_ROUTE_ANYBODY)
#define HALT   (CM_ROUTE_KEY | CM_ROUTE_HALT)
#define MASTER (CM_ROUTE_KEY | CM_ROUTE_MASTER)

/* LocalStack's, which has two homes. */
#define LOCALSTACK(at)                                                         \
    {CM_METHOD_GET, at "/faults", cm_api_faults_get, ARMED},                   \
        {CM_METHOD_POST, at "/faults", cm_api_faults_replace, ARMED},          \
        {CM_METHOD_PATCH, at "/faults", cm_api_faults_add, ARMED},             \
        {CM_METHOD_DELETE, at "/faults", cm_api_faults_remove, ARMED},         \
        {CM_METHOD_GET, at "/effects", cm_api_effects_get, ARMED},             \
    {                                                                          \
        CM_METHOD_POST, at "/effects", cm_api_effects_set, ARMED               \
    }

/* clang-format off */
static const struct cm_route routes[] = {
    {CM_METHOD_GET,    "/livez",                   cm_api_livez,        0},
    {CM_METHOD_GET,    "/readyz",                  cm_api_readyz,       0},
    {CM_METHOD_GET,    "/metrics",                 cm_api_prometheus,   KEY},
    {CM_METHOD_GET,    "/api/v1/status",           cm_api_status,       KEY},
    {CM_METHOD_GET,    "/api/v1/events",           cm_api_events,       TICKET},
    {CM_METHOD_POST,   "/api/v1/events/ticket",    cm_api_ticket,       READ},
    {CM_METHOD_GET,    "/api/sse-console/stream",  cm_api_console,      TICKET},
    {CM_METHOD_GET,    "/api/v1/halt",             cm_api_halt_get,     HALT},
    {CM_METHOD_POST,   "/api/v1/halt",             cm_api_halt,         HALT},
    {CM_METHOD_POST,   "/api/v1/resume",           cm_api_resume,       HALT},
    {CM_METHOD_GET,    "/api/v1/keys",             cm_api_key_list,     MASTER},
    {CM_METHOD_POST,   "/api/v1/keys",             cm_api_key_create,   MASTER},
    {CM_METHOD_DELETE, "/api/v1/keys/:id",         cm_api_key_revoke,   MASTER},
    {CM_METHOD_GET,    "/api/v1/audit",            cm_api_audit,        KEY},
    {CM_METHOD_POST,   "/api/v1/reset",            cm_api_reset,        KEY},
    {CM_METHOD_GET,    "/api/v1/rules",            cm_api_rule_list,    KEY},
    {CM_METHOD_POST,   "/api/v1/rules",            cm_api_rule_create,  KEY},
    {CM_METHOD_DELETE, "/api/v1/rules",            cm_api_rule_delete_all, KEY},
    {CM_METHOD_GET,    "/api/v1/rules/:id",        cm_api_rule_get,     KEY},
    {CM_METHOD_PUT,    "/api/v1/rules/:id",        cm_api_rule_put,     KEY},
    {CM_METHOD_DELETE, "/api/v1/rules/:id",        cm_api_rule_delete,  KEY},
    {CM_METHOD_POST,   "/api/v1/rules/:id/move",   cm_api_rule_move,    KEY},
    {CM_METHOD_POST,   "/api/v1/rules/:id/enable", cm_api_rule_enable,  KEY},
    {CM_METHOD_POST,   "/api/v1/rules/:id/disable", cm_api_rule_disable, KEY},
    {CM_METHOD_GET,    "/api/v1/inboxes",          cm_api_own_inbox_list, KEY},
    {CM_METHOD_DELETE, "/api/v1/inboxes",          cm_api_own_inbox_delete_many, KEY},
    {CM_METHOD_POST,   "/api/v1/inboxes/set",      cm_api_bulk_set,     KEY},
    {CM_METHOD_POST,   "/api/v1/inboxes/clear",    cm_api_bulk_clear,   KEY},
    {CM_METHOD_POST,   "/api/v1/inboxes/populate", cm_api_populate,     KEY},
    {CM_METHOD_GET,    "/api/v1/inboxes/:addr",    cm_api_own_inbox_get, KEY},
    {CM_METHOD_PUT,    "/api/v1/inboxes/:addr",    cm_api_own_inbox_put, KEY},
    {CM_METHOD_DELETE, "/api/v1/inboxes/:addr",    cm_api_own_inbox_delete, KEY},
    {CM_METHOD_GET,    "/api/check-key",           cm_api_check_key,    ANY},
    {CM_METHOD_GET,    "/api/server-info",         cm_api_server_info,  KEY},
    {CM_METHOD_GET,    "/api/metrics",             cm_api_metrics,      KEY},
    {CM_METHOD_GET,    "/api/inboxes",             cm_api_inbox_list,   KEY},
    {CM_METHOD_POST,   "/api/inboxes",             cm_api_inbox_create, KEY},
    {CM_METHOD_DELETE, "/api/inboxes/:addr",       cm_api_inbox_delete, KEY},
    {CM_METHOD_GET,    "/api/inboxes/:addr/chaos", cm_api_chaos_get,    ARMED},
    {CM_METHOD_POST,   "/api/inboxes/:addr/chaos", cm_api_chaos_set,    ARMED},
    {CM_METHOD_DELETE, "/api/inboxes/:addr/chaos", cm_api_chaos_delete, ARMED},
    {CM_METHOD_GET,    "/api/v1/chaos",            cm_api_mailpit_get,  KEY},
    {CM_METHOD_PUT,    "/api/v1/chaos",            cm_api_mailpit_set,  KEY},
    LOCALSTACK("/chaos"),
    LOCALSTACK("/_localstack/chaos"),
};
/* clang-format on */

static bool
check_key(struct cm_api *api, struct cm_request *req, struct cm_response *res)
{
    int retry_s = 0;
    switch (cm_auth_check(api->auth, req, cm_clock_mono_ms(), &retry_s)) {
    case CM_AUTH_RIGHT:
        return true;
    case CM_AUTH_MISSING:
        cm_response_fail(res, req, 401, "Missing X-API-Key header");
        break;
    case CM_AUTH_WRONG:
        cm_response_fail(res, req, 401, "Invalid API key");
        break;
    case CM_AUTH_TOO_OFTEN:
        cm_response_header(res, "Retry-After", "%d", retry_s);
        cm_response_fail(res, req, 429, "Too many invalid API keys");
        break;
    case CM_AUTH_UNSURE:
        cm_response_header(res, "Retry-After", "1");
        cm_response_fail(res, req, 503,
                         "Redis is not available, so this key cannot be "
                         "checked");
        break;
    }
    if (res->status == 401)
        cm_response_header(res, "WWW-Authenticate", "Bearer");
    return false;
}

static bool
check_scope(const struct cm_request *req, struct cm_response *res)
{
    char list[32];
    bool all;
    unsigned wanted = cm_route_scopes(req->route, &all);
    unsigned has = req->scopes & wanted;
    if (has == wanted || (has != 0 && !all))
        return true;
    cm_scopes_print(wanted, all ? " and " : " or ", list, sizeof list);
    cm_response_fail(res, req, 403, "This key lacks the scope %s", list);
    return false;
}

/* A ticket in the URL instead of a key, where the route takes one. */
static bool
check_ticket(struct cm_api *api, const struct cm_request *req,
             struct cm_response *res)
{
    const char *ticket = cm_target_param(&req->target, "ticket");
    struct cm_err err;
    bool good = false;
    enum cm_status status = cm_ticket_use(api->commits, ticket, &good, &err);
    if (status != CM_OK)
        cm_api_failed(api, req, res, status, &err, false);
    else if (!good)
        cm_response_fail(res, req, 401,
                         "The ticket is wrong, used or too old: get another");
    return good;
}

/* Is it a request that may do without a key, because it has a ticket? */
static bool
has_ticket(const struct cm_request *req)
{
    return (req->route->flags & CM_ROUTE_TICKET) &&
           cm_target_param(&req->target, "ticket") && cm_api_stream_wanted(req);
}

static bool
may_enter(struct cm_api *api, struct cm_request *req, struct cm_response *res)
{
    if (!(req->route->flags & CM_ROUTE_KEY))
        return true;
    if (has_ticket(req))
        return check_ticket(api, req, res);
    return check_key(api, req, res) && check_scope(req, res);
}

bool
cm_api_admit(void *arg, struct cm_request *req, struct cm_response *res)
{
    struct cm_api *api = arg;
    unsigned allow;
    req->route =
        cm_router_find(routes, sizeof routes / sizeof routes[0], req, &allow);
    if (!req->route && allow != 0) {
        char list[64];
        cm_router_print_allow(allow, list, sizeof list);
        cm_response_header(res, "Allow", "%s", list);
        cm_response_fail(res, req, 405, "This path takes %s", list);
        return false;
    }
    if (!req->route) {
        cm_response_fail(res, req, 404, "There is nothing at this path");
        return false;
    }
    if (!may_enter(api, req, res))
        return false;
    if ((req->route->flags & CM_ROUTE_ARMED) && !api->settings->armed) {
        cm_response_fail(res, req, 403,
                         "Chaos engineering features are disabled. Set "
                         "VSB_CHAOS_ENABLED=true to enable.");
        return false;
    }
    return true;
}

/* What is written is written in the name of the key. */
void
cm_api_handle(void *arg, struct cm_request *req, struct cm_response *res)
{
    struct cm_api *api = arg;
    if (cm_method_is_safe(req->method)) {
        req->route->fn(api, req, res);
        return;
    }
    struct cm_api mine = *api;
    char actor[CM_ACTOR_MAX + 1];
    snprintf(actor, sizeof actor, "key:%s%s%s", req->key_id,
             *req->key_name ? " " : "", req->key_name);
    mine.commits = cm_commits_as(api->commits, actor);
    if (mine.commits)
        req->route->fn(&mine, req, res);
    else
        cm_response_fail(res, req, 503, "The server ran out of memory");
    cm_commits_free(&mine.commits);
}

/* The query is left out: somebody may have put a key there. */
void
cm_api_done(void *arg, const struct cm_request *req,
            const struct cm_response *res)
{
    (void)arg;
    if (cm_method_is_safe(req->method))
        return;
    cm_log_info("what=request method=%s path=%s status=%d key=%s remote=%s "
                "ms=%.1f",
                cm_method_name(req->method), req->target.raw, res->status,
                req->key_id[0] ? req->key_id : "-", req->peer.text,
                (double)(cm_clock_mono_us() - req->started_us) / 1000.0);
}

bool
cm_api_address(const struct cm_api *api, const struct cm_request *req,
               struct cm_address *addr_r, struct cm_response *res)
{
    const char *text = req->capture[0];
    struct cm_err err;
    enum cm_status status =
        cm_address_parse(addr_r, text, strlen(text), api->address_flags, &err);
    if (status == CM_ENOMEM) {
        cm_response_fail(res, req, 503, "The server ran out of memory");
        return false;
    }
    if (status != CM_OK) {
        cm_response_fail(res, req, 400, "The inbox address is invalid: %s",
                         err.msg);
        return false;
    }
    if (!cm_address_domain(addr_r)[0] || addr_r->text[0] == '@') {
        cm_response_fail(res, req, 400,
                         "The inbox address must have a local part and a "
                         "domain");
        return false;
    }
    return true;
}

bool
cm_api_body(const struct cm_request *req, bool may_be_empty,
            struct json_t **json_r, struct cm_response *res)
{
    struct cm_err err;
    const char *text = req->body.data ? req->body.data : "";
    size_t len = req->body.len;
    if (len == 0 && may_be_empty) {
        text = "{}";
        len = 2;
    }
    enum cm_status status = cm_json_parse(json_r, text, len, &err);
    if (status == CM_OK)
        return true;
    if (status == CM_ENOMEM)
        cm_response_fail(res, req, 503, "The server ran out of memory");
    else
        cm_response_fail(res, req, 400, "Malformed JSON: %s", err.msg);
    return false;
}

bool
cm_api_wanted_rev(struct cm_api *api, const struct cm_request *req,
                  enum cm_kind kind, const char *name, int64_t *rev_r,
                  struct cm_response *res)
{
    struct cm_doc doc = {0};
    struct cm_err err;
    *rev_r = CM_REV_ANY;
    if (!cm_etag_asked(req))
        return true;
    enum cm_status status = cm_commit_get(api->commits, kind, name, &doc, &err);
    if (status != CM_OK && status != CM_NOTFOUND) {
        cm_api_failed(api, req, res, status, &err, false);
        return false;
    }
    *rev_r = status == CM_OK ? doc.rev : CM_REV_NONE;
    cm_doc_fini(&doc);
    if (cm_etag_holds(req, *rev_r))
        return true;
    cm_etag_set(res, *rev_r);
    cm_response_fail(res, req, 412, "The configuration is another one");
    return false;
}

static void
unavailable(struct cm_api *api, const struct cm_request *req,
            struct cm_response *res, const struct cm_err *err, bool uncertain)
{
    int retry_ms = cm_pool_retry_ms(api->pool);
    cm_response_header(res, "Retry-After", "%d",
                       retry_ms > 1000 ? (retry_ms + 999) / 1000 : 1);
    cm_response_fail(res, req, 503, "Redis is not available: %s%s", err->msg,
                     uncertain ? ". The change may or may not have been made: "
                                 "read it back"
                               : "");
}

void
cm_api_failed(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res, enum cm_status status,
              const struct cm_err *err, bool is_write)
{
    switch (status) {
    case CM_EIO:
    case CM_ETIMEOUT:
        unavailable(api, req, res, err, is_write);
        return;
    case CM_EPROTO:
        unavailable(api, req, res, err, false);
        return;
    case CM_ENOMEM:
        cm_response_header(res, "Retry-After", "1");
        cm_response_fail(res, req, 503, "The server ran out of memory");
        return;
    case CM_ECONFLICT:
        cm_response_fail(res, req, 412, "It was changed meanwhile: %s",
                         err->msg);
        return;
    case CM_EINVAL:
        cm_response_fail(res, req, 400, "%s", err->msg);
        return;
    case CM_NOTFOUND:
        cm_response_fail(res, req, 404, "Not found");
        return;
    case CM_OK:
        break;
    }
    cm_response_fail(res, req, 500, "The server contradicts itself");
}
