/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/api_own_inboxes.h"
#include "admin/api.h"
#include "admin/etag.h"
#include "admin/inbox_gate.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "milter/model/address.h"
#include "milter/model/inbox.h"
#include "milter/model/inbox_json.h"
#include "milter/model/json.h"
#include "milter/model/problem.h"
#include "milter/model/rule_print.h"
#include "milter/store/commit.h"
#include "milter/store/listing.h"
#include "milter/store/wipe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_INBOX_LIMIT     100
#define CM_INBOX_LIMIT_MAX 1000

/* --- one --- */

/* The stored configuration in its normal form; NULL: it is none, and why (256
 * bytes) says so. */
static json_t *
stored_json(const struct cm_doc *doc, char *why)
{
    json_t *json = NULL, *config = NULL;
    struct cm_problems problems;
    struct cm_err err = {CM_OK, "the value in Redis is no document"};
    cm_problems_init(&problems);
    enum cm_status status =
        doc->text ? cm_json_parse(&json, doc->text, doc->len, &err) : CM_EINVAL;
    if (status == CM_OK)
        status = cm_inbox_normalize(&config, json, "", &problems);
    json_decref(json);
    why[0] = '\0';
    if (status != CM_OK)
        snprintf(why, 256, "%s",
                 problems.n > 0 ? cm_problems_first(&problems) : err.msg);
    return config;
}

/* What the configuration compiled to; NULL after an answer. */
static json_t *
compiled_json(const struct cm_request *req, const struct cm_doc *doc,
              struct cm_response *res)
{
    struct cm_inbox *inbox = NULL;
    json_t *rules = json_array();
    enum cm_status status = cm_inbox_compile(&inbox, doc->text, doc->len, NULL);
    for (size_t i = 0; status == CM_OK && i < inbox->nrules; i++)
        if (json_array_append_new(rules, cm_rule_json(&inbox->rules[i])) != 0)
            status = CM_ENOMEM;
    if (status != CM_OK) {
        cm_own_no_memory(res, req);
        json_decref(rules);
        rules = NULL;
    }
    json_t *json = rules ? json_pack("{s:b, s:o}", "enabled",
                                     (int)inbox->enabled, "rules", rules)
                         : NULL;
    cm_inbox_release(&inbox);
    return json;
}

static void
answer_one(const struct cm_request *req, const struct cm_doc *doc,
           json_t *config, struct cm_response *res)
{
    const char *compiled = cm_target_param(&req->target, "compiled");
    if (compiled && strcmp(compiled, "true") == 0) {
        json_decref(config);
        config = compiled_json(req, doc, res);
        if (!config)
            return;
    }
    cm_etag_set(res, doc->rev);
    cm_response_json(res, 200, config);
}

void
cm_api_own_inbox_get(struct cm_api *api, const struct cm_request *req,
                     struct cm_response *res)
{
    static const char *const known[] = {"compiled", NULL};
    struct cm_address addr;
    struct cm_doc doc = {0};
    struct cm_err err;
    char why[256];
    if (!cm_own_query(req, known, res) || !cm_api_address(api, req, &addr, res))
        return;
    enum cm_status status =
        cm_commit_get(api->commits, CM_KIND_INBOX, addr.text, &doc, &err);
    json_t *config = status == CM_OK ? stored_json(&doc, why) : NULL;
    if (config) {
        answer_one(req, &doc, config, res);
    } else if (status == CM_OK) {
        cm_response_fail(res, req, 500,
                         "The stored configuration is broken and has no effect "
                         "(replace it or delete it): %s",
                         why);
    } else if (status == CM_NOTFOUND) {
        cm_response_fail(res, req, 404, "%s has no chaos", addr.text);
    } else {
        cm_api_failed(api, req, res, status, &err, false);
    }
    cm_doc_fini(&doc);
}

/* The body in its normal form, printed; NULL: res is the answer. */
static char *
read_config(const struct cm_request *req, size_t *len_r,
            struct cm_response *res)
{
    json_t *body = NULL, *config = NULL;
    struct cm_problems problems;
    char *text = NULL;
    cm_problems_init(&problems);
    if (!cm_api_body(req, false, &body, res))
        return NULL;
    enum cm_status status = cm_inbox_normalize(&config, body, "", &problems);
    json_decref(body);
    if (status == CM_OK)
        text = cm_json_dump(config, len_r);
    json_decref(config);
    if (status == CM_EINVAL)
        cm_own_invalid(res, req, &problems);
    else if (!text)
        cm_own_no_memory(res, req);
    return text;
}

static bool
gate(struct cm_api *api, const struct cm_request *req,
     struct cm_address *addr_r, struct cm_response *res)
{
    struct cm_err err;
    enum cm_status status = cm_gate_inbox(api, req->capture[0], addr_r, &err);
    if (status == CM_NOTFOUND)
        cm_response_fail(res, req, 404, "%s", err.msg);
    else if (status != CM_OK)
        cm_api_failed(api, req, res, status, &err, false);
    return status == CM_OK;
}

void
cm_api_own_inbox_put(struct cm_api *api, const struct cm_request *req,
                     struct cm_response *res)
{
    struct cm_address addr;
    struct cm_err err;
    size_t len = 0;
    int64_t rev;
    char *text = read_config(req, &len, res);
    if (!text)
        return;
    if (gate(api, req, &addr, res) &&
        cm_api_wanted_rev(api, req, CM_KIND_INBOX, addr.text, &rev, res)) {
        enum cm_status status = cm_commit_set(
            api->commits, CM_KIND_INBOX, addr.text, text, len, rev, &rev, &err);
        if (status == CM_OK) {
            cm_etag_set(res, rev);
            cm_response_text(res, 200, "application/json; charset=utf-8", text,
                             len);
            text = NULL;
        } else {
            cm_api_failed(api, req, res, status, &err, true);
        }
    }
    free(text);
}

void
cm_api_own_inbox_delete(struct cm_api *api, const struct cm_request *req,
                        struct cm_response *res)
{
    struct cm_address addr;
    struct cm_err err;
    int64_t rev;
    if (!cm_api_address(api, req, &addr, res) ||
        !cm_api_wanted_rev(api, req, CM_KIND_INBOX, addr.text, &rev, res))
        return;
    enum cm_status status =
        cm_commit_del(api->commits, CM_KIND_INBOX, addr.text, rev, &err);
    if (status == CM_OK)
        cm_response_empty(res, 204);
    else if (status == CM_NOTFOUND)
        cm_response_fail(res, req, 404, "%s has no chaos", addr.text);
    else
        cm_api_failed(api, req, res, status, &err, true);
}

/* --- many --- */

static json_t *
listed_json(const struct cm_listed *inbox)
{
    char why[256];
    json_t *config = stored_json(&inbox->doc, why);
    json_t *json =
        json_pack("{s:s, s:I, s:o?}", "address", inbox->name, "revision",
                  (json_int_t)inbox->doc.rev, "chaos", config);
    if (json && *why)
        json_object_set_new(json, "error", json_string(why));
    return json;
}

static void
answer_list(struct cm_response *res, const struct cm_listing *page, bool more,
            int64_t total)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < page->n; i++)
        json_array_append_new(list, listed_json(&page->docs[i]));
    cm_response_json(
        res, 200,
        json_pack("{s:o, s:I, s:s?}", "inboxes", list, "total",
                  (json_int_t)total, "next",
                  more && page->n > 0 ? page->docs[page->n - 1].name : NULL));
}

void
cm_api_own_inbox_list(struct cm_api *api, const struct cm_request *req,
                      struct cm_response *res)
{
    static const char *const known[] = {"prefix", "after", "limit", NULL};
    const char *prefix = cm_target_param(&req->target, "prefix");
    const char *after = cm_target_param(&req->target, "after");
    struct cm_listing page;
    struct cm_err err;
    bool more = false;
    int64_t total = 0;
    int limit;
    if (!cm_own_query(req, known, res) ||
        !cm_own_number(req, "limit", 1, CM_INBOX_LIMIT_MAX, CM_INBOX_LIMIT,
                       &limit, res))
        return;
    enum cm_status status =
        cm_commit_page(api->commits, CM_KIND_INBOX, prefix ? prefix : "",
                       after ? after : "", limit, &page, &more, &err);
    if (status == CM_OK) {
        status = cm_commit_count(api->commits, CM_KIND_INBOX,
                                 prefix ? prefix : "", &total, &err);
        if (status == CM_OK)
            answer_list(res, &page, more, total);
        cm_listing_fini(&page);
    }
    if (status != CM_OK)
        cm_api_failed(api, req, res, status, &err, false);
}

void
cm_api_own_inbox_delete_many(struct cm_api *api, const struct cm_request *req,
                             struct cm_response *res)
{
    static const char *const known[] = {"prefix", "confirm", NULL};
    const char *prefix = cm_target_param(&req->target, "prefix");
    bool all = !prefix || !*prefix;
    struct cm_wipe wipe = {.kind = CM_KIND_INBOX, .begin = all ? "" : prefix};
    struct cm_err err;
    if (!cm_own_query(req, known, res) ||
        !cm_own_confirmed(req, all ? "all" : prefix, res))
        return;
    enum cm_status status = cm_commit_wipe(api->commits, &wipe, 1, &err);
    if (status == CM_OK)
        cm_response_json(res, 200,
                         json_pack("{s:I}", "removed", (json_int_t)wipe.count));
    else
        cm_api_failed(api, req, res, status, &err, true);
}
