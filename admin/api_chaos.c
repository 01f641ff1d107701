/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is answered to POST is, byte for byte, what is stored: a client sees the
 * defaults it will get, and the filter reads what the client saw. GET passes
 * the stored document through the validator once more, because redis-cli may
 * have written it.
 */
#include "admin/api_chaos.h"
#include "admin/api.h"
#include "admin/box.h"
#include "admin/etag.h"
#include "admin/response.h"
#include "milter/clock.h"
#include "milter/model/address.h"
#include "milter/model/json.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"
#include "milter/settings.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char content_type[] = "application/json; charset=utf-8";

/* With admin.inboxes "explicit", only what POST /api/inboxes made exists. */
static bool
check_inbox(struct cm_api *api, const struct cm_request *req,
            const char *address, struct cm_response *res)
{
    struct cm_box box;
    struct cm_err err;
    if (strcmp(api->settings->admin.inboxes, "explicit") != 0)
        return true;
    enum cm_status status =
        cm_box_get(api->commits, address, cm_clock_wall_ms(), &box, &err);
    if (status == CM_NOTFOUND)
        cm_response_fail(res, req, 404, "Inbox not found: %s", address);
    else if (status != CM_OK)
        cm_api_failed(api, req, res, status, &err, false);
    return status == CM_OK;
}

/* The domain is checked for implicit inboxes, too: there it is the only bound
 * on what can be hurt. */
static bool
check_domain(struct cm_api *api, const struct cm_request *req,
             const struct cm_address *addr, struct cm_response *res)
{
    if (cm_box_domain_allowed(api->settings, cm_address_domain(addr)))
        return true;
    cm_response_fail(res, req, 400, "Domain is not allowed");
    return false;
}

static void
answer_stored(const struct cm_request *req, const struct cm_doc *doc,
              struct cm_response *res)
{
    json_t *json = NULL, *config = NULL;
    struct cm_problems problems;
    struct cm_err err = {CM_OK, ""};
    cm_problems_init(&problems);
    enum cm_status status = cm_json_parse(&json, doc->text, doc->len, &err);
    if (status == CM_OK)
        status = cm_inbox_normalize(&config, json, "", &problems);
    json_decref(json);
    if (status == CM_OK) {
        cm_etag_set(res, doc->rev);
        cm_response_json(res, 200, config);
        return;
    }
    if (status == CM_ENOMEM) {
        cm_response_fail(res, req, 503, "The server ran out of memory");
        return;
    }
    const char *why = problems.n ? cm_problems_first(&problems) : err.msg;
    cm_response_fail(res, req, 500,
                     "The stored configuration is broken and has no effect "
                     "(replace it or delete it): %s",
                     why);
}

void
cm_api_chaos_get(struct cm_api *api, const struct cm_request *req,
                 struct cm_response *res)
{
    struct cm_address addr;
    struct cm_doc doc = {0};
    struct cm_err err;
    if (!cm_api_address(api, req, &addr, res) ||
        !check_inbox(api, req, addr.text, res))
        return;
    enum cm_status status =
        cm_commit_get(api->commits, CM_KIND_INBOX, addr.text, &doc, &err);
    if (status == CM_OK) {
        answer_stored(req, &doc, res);
    } else if (status == CM_NOTFOUND) {
        cm_etag_set(res, 0);
        cm_response_json(res, 200, json_pack("{s:b}", "enabled", 0));
    } else {
        cm_api_failed(api, req, res, status, &err, false);
    }
    cm_doc_fini(&doc);
}

/* The body in its normal form, printed; NULL: res is the answer. */
static char *
normal_body(const struct cm_request *req, size_t *len_r,
            struct cm_response *res)
{
    json_t *json = NULL, *config = NULL;
    struct cm_problems problems;
    char *text = NULL;
    cm_problems_init(&problems);
    if (!cm_api_body(req, false, &json, res))
        return NULL;
    enum cm_status status = cm_inbox_normalize(&config, json, "", &problems);
    json_decref(json);
    if (status == CM_OK) {
        text = cm_json_dump(config, len_r);
        json_decref(config);
    }
    if (status == CM_EINVAL)
        cm_response_fail_all(res, req, 400, &problems);
    else if (!text)
        cm_response_fail(res, req, 503, "The server ran out of memory");
    return text;
}

void
cm_api_chaos_set(struct cm_api *api, const struct cm_request *req,
                 struct cm_response *res)
{
    struct cm_address addr;
    struct cm_err err;
    size_t len = 0;
    int64_t rev;
    char *text = normal_body(req, &len, res);
    if (!text)
        return;
    if (!cm_api_address(api, req, &addr, res) ||
        !check_domain(api, req, &addr, res) ||
        !check_inbox(api, req, addr.text, res) ||
        !cm_api_wanted_rev(api, req, CM_KIND_INBOX, addr.text, &rev, res))
        goto out;
    enum cm_status status = cm_commit_set(
        api->commits, CM_KIND_INBOX, addr.text, text, len, rev, &rev, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, true);
        goto out;
    }
    cm_etag_set(res, rev);
    cm_response_text(res, 200, content_type, text, len);
    text = NULL;
out:
    free(text);
}

void
cm_api_chaos_delete(struct cm_api *api, const struct cm_request *req,
                    struct cm_response *res)
{
    struct cm_address addr;
    struct cm_err err;
    int64_t rev;
    if (!cm_api_address(api, req, &addr, res) ||
        !check_inbox(api, req, addr.text, res) ||
        !cm_api_wanted_rev(api, req, CM_KIND_INBOX, addr.text, &rev, res))
        return;
    enum cm_status status =
        cm_commit_del(api->commits, CM_KIND_INBOX, addr.text, rev, &err);
    if (status == CM_OK || status == CM_NOTFOUND)
        cm_response_empty(res, 204);
    else
        cm_api_failed(api, req, res, status, &err, true);
}
