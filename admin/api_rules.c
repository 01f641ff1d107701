/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One rule: read, replaced, removed, switched on and off. Where it stands among
 * the others is api_rule_order.c's business, and a list of them
 * api_rule_list.c's.
 */
#include "admin/api_rules.h"
#include "admin/api.h"
#include "admin/etag.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/rule_doc.h"
#include "milter/model/json.h"
#include "milter/model/members.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char content_type[] = "application/json; charset=utf-8";

#define CM_SWITCH_TRIES 5

/* The rule of the path. One that cannot be read as a document is there, with
 * its text NULL, so that it can be replaced and removed. */
static bool
find(struct cm_api *api, const struct cm_request *req, struct cm_doc *doc_r,
     bool *there_r, struct cm_response *res)
{
    struct cm_err err;
    memset(doc_r, 0, sizeof *doc_r);
    enum cm_status status =
        cm_commit_get(api->commits, CM_KIND_RULE, req->capture[0], doc_r, &err);
    *there_r = status != CM_NOTFOUND;
    if (status == CM_OK || status == CM_NOTFOUND)
        return true;
    cm_api_failed(api, req, res, status, &err, false);
    return false;
}

static bool
find_there(struct cm_api *api, const struct cm_request *req,
           struct cm_doc *doc_r, struct cm_response *res)
{
    bool there;
    if (!find(api, req, doc_r, &there, res))
        return false;
    if (!there)
        cm_response_fail(res, req, 404, "There is no rule %s", req->capture[0]);
    return there;
}

/* The revision that a change must find, after If-Match and If-None-Match. */
static bool
check_tags(const struct cm_request *req, const struct cm_doc *doc,
           int64_t *rev_r, struct cm_response *res)
{
    *rev_r = cm_etag_asked(req) ? doc->rev : CM_REV_ANY;
    if (cm_etag_holds(req, doc->rev))
        return true;
    cm_etag_set(res, doc->rev);
    cm_response_fail(res, req, 412,
                     doc->rev > 0 ? "The rule is another one"
                                  : "There is no such rule");
    return false;
}

void
cm_api_rule_get(struct cm_api *api, const struct cm_request *req,
                struct cm_response *res)
{
    struct cm_doc doc;
    char why[256];
    if (!find_there(api, req, &doc, res))
        return;
    json_t *json = cm_rule_doc_json(api, req->capture[0], &doc, why);
    if (json && !*why) {
        cm_etag_set(res, doc.rev);
        cm_response_json(res, 200, json);
    } else {
        json_decref(json);
        cm_response_fail(res, req, 500,
                         "The stored rule is broken and has no effect "
                         "(replace it or delete it): %s",
                         why);
    }
    cm_doc_fini(&doc);
}

void
cm_api_rule_put(struct cm_api *api, const struct cm_request *req,
                struct cm_response *res)
{
    struct cm_rule_text text;
    struct cm_doc old = {0};
    struct cm_err err;
    bool there;
    int64_t rev;
    if (!cm_rule_doc_read(api, req, req->capture[0], &text, res))
        return;
    if (!find(api, req, &old, &there, res) || !check_tags(req, &old, &rev, res))
        goto out;
    enum cm_status status = cm_commit_set(api->commits, CM_KIND_RULE, text.id,
                                          text.text, text.len, rev, &rev, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, true);
        goto out;
    }
    cm_etag_set(res, rev);
    cm_response_text(res, there ? 200 : 201, content_type, text.text, text.len);
    text.text = NULL;
out:
    cm_doc_fini(&old);
    cm_rule_text_fini(&text);
}

void
cm_api_rule_delete(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    struct cm_doc doc;
    struct cm_err err;
    int64_t rev;
    if (!find_there(api, req, &doc, res))
        return;
    if (check_tags(req, &doc, &rev, res)) {
        enum cm_status status = cm_commit_del(api->commits, CM_KIND_RULE,
                                              req->capture[0], rev, &err);
        if (status == CM_OK || status == CM_NOTFOUND)
            cm_response_empty(res, 204);
        else
            cm_api_failed(api, req, res, status, &err, true);
    }
    cm_doc_fini(&doc);
}

/* --- on and off --- */

/* Takes what is stored and writes it with `enabled`. CM_ECONFLICT: it changed
 * meanwhile, and nobody asked for a certain revision. */
static enum cm_status
switch_once(struct cm_api *api, const struct cm_request *req, json_t *json,
            int64_t rev, bool enabled, struct cm_response *res,
            struct cm_err *err)
{
    size_t len = 0;
    char *text = NULL;
    if (json_object_set_new(json, "enabled", json_boolean(enabled)) == 0)
        text = cm_json_dump(json, &len);
    if (!text)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status = cm_commit_set(
        api->commits, CM_KIND_RULE, req->capture[0], text, len, rev, &rev, err);
    if (status == CM_OK) {
        cm_etag_set(res, rev);
        cm_response_text(res, 200, content_type, text, len);
        text = NULL;
    }
    free(text);
    return status;
}

static void
switch_rule(struct cm_api *api, const struct cm_request *req, bool enabled,
            struct cm_response *res)
{
    static const struct cm_member none[] = {CM_MEMBER_ROW_END};
    enum cm_status status = CM_ECONFLICT;
    struct cm_err err;
    json_t *body = NULL;
    if (!cm_own_body(req, none, true, &body, res))
        return;
    json_decref(body);
    for (int i = 0; i < CM_SWITCH_TRIES && status == CM_ECONFLICT; i++) {
        struct cm_doc doc;
        int64_t rev;
        if (!find_there(api, req, &doc, res))
            return;
        json_t *json = cm_rule_doc_json(api, req->capture[0], &doc, NULL);
        bool holds = json && check_tags(req, &doc, &rev, res);
        if (!json)
            cm_response_fail(res, req, 409,
                             "The stored rule is broken: replace it");
        else if (holds)
            status = switch_once(api, req, json, doc.rev, enabled, res, &err);
        json_decref(json);
        cm_doc_fini(&doc);
        if (!holds)
            return;
    }
    if (status != CM_OK)
        cm_api_failed(api, req, res, status, &err, true);
}

void
cm_api_rule_enable(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    switch_rule(api, req, true, res);
}

void
cm_api_rule_disable(struct cm_api *api, const struct cm_request *req,
                    struct cm_response *res)
{
    switch_rule(api, req, false, res);
}
