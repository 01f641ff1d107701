/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A change reads the list, edits it here and writes it back in one batch that
 * demands that the list is still the same. Where it is not, and the client has
 * not said which list it means (If-Match), the edit is made anew with the new
 * list: that is what it would have been a moment later.
 */
#include "admin/api_localstack.h"
#include "admin/api.h"
#include "admin/etag.h"
#include "admin/fault_list.h"
#include "admin/request.h"
#include "admin/response.h"
#include "milter/buf.h"
#include "milter/model/json.h"
#include "milter/model/localstack_json.h"
#include "milter/model/problem.h"
#include "milter/model/rule.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_FAULTS_TRIES        5
#define CM_FAULTS_ANSWER_BYTES ((size_t)64 * 1024 * 1024)

static const char content_type[] = "application/json; charset=utf-8";

/* --- what is asked for --- */

/* A parameter that may have one value alone; false: res is the answer. */
static bool
read_choice(const struct cm_request *req, const char *name, const char *value,
            bool *chosen_r, struct cm_response *res)
{
    const char *given = cm_target_param(&req->target, name);
    *chosen_r = given != NULL;
    if (!given || strcmp(given, value) == 0)
        return true;
    cm_response_fail(res, req, 400, "%s must be %s, or not be given", name,
                     value);
    return false;
}

/* The rules in the body; false: res is the answer. */
static bool
read_body(const struct cm_api *api, const struct cm_request *req,
          struct cm_fault_list *given, struct cm_response *res)
{
    struct cm_problems problems;
    json_t *body = NULL;
    cm_problems_init(&problems);
    if (!cm_api_body(req, false, &body, res))
        return false;
    enum cm_status status =
        cm_fault_list_parse(given, body, api->address_flags, &problems);
    json_decref(body);
    if (status == CM_EINVAL)
        cm_response_fail_all(res, req, 400, &problems);
    else if (status != CM_OK)
        cm_response_fail(res, req, 503, "The server ran out of memory");
    return status == CM_OK;
}

/* --- the answer --- */

/* One rule with what is known of it besides. */
static void
print_full(struct cm_buf *buf, const struct cm_fault_rule *rule)
{
    json_t *json = NULL, *full = json_pack("{s:s}", "id", rule->name);
    char *text = NULL;
    if (full && cm_json_parse(&json, rule->text, rule->len, NULL) == CM_OK &&
        json_object_update_missing(full, json) == 0)
        text = cm_json_dump(full, NULL);
    if (text)
        cm_buf_puts(buf, text);
    else
        buf->status = CM_ENOMEM; /* it was parsed before */
    free(text);
    json_decref(json);
    json_decref(full);
}

static void
answer(const struct cm_fault_list *list, bool full, struct cm_response *res)
{
    struct cm_buf buf;
    size_t len = 0;
    cm_buf_init(&buf, CM_FAULTS_ANSWER_BYTES);
    cm_buf_puts(&buf, "[");
    for (size_t i = 0; i < list->n; i++) {
        cm_buf_puts(&buf, i > 0 ? "," : "");
        if (full)
            print_full(&buf, &list->rules[i]);
        else
            cm_buf_add(&buf, list->rules[i].text, list->rules[i].len);
    }
    cm_buf_puts(&buf, "]");
    char *text = cm_buf_take(&buf, &len);
    cm_buf_fini(&buf);
    cm_etag_set(res, list->at);
    cm_response_text(res, 200, content_type, text, len);
}

void
cm_api_faults_get(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    struct cm_fault_list list;
    struct cm_err err;
    bool full;
    if (!read_choice(req, "view", "full", &full, res))
        return;
    enum cm_status status = cm_fault_list_read(api->commits, &list, &err);
    if (status == CM_OK)
        answer(&list, full, res);
    else
        cm_api_failed(api, req, res, status, &err, false);
    cm_fault_list_fini(&list);
}

/* --- changes --- */

/* One try; given loses its rules to the result. CM_ECONFLICT: the list changed
 * meanwhile. CM_NOTFOUND: it is not the one that the client means. */
static enum cm_status
try_change(struct cm_api *api, const struct cm_request *req,
           struct cm_fault_list *given, enum cm_fault_list_edit edit,
           struct cm_fault_list *result, struct cm_err *err)
{
    struct cm_fault_list stored;
    *result = (struct cm_fault_list){.rules = NULL};
    enum cm_status status = cm_fault_list_read(api->commits, &stored, err);
    if (status == CM_OK && !cm_etag_holds(req, stored.at)) {
        result->at = stored.at;
        status = CM_NOTFOUND;
    }
    if (status == CM_OK)
        status = cm_fault_list_edit(result, &stored, given, edit, err);
    if (status == CM_OK)
        status = cm_fault_list_commit(api->commits, result, &stored, err);
    cm_fault_list_fini(&stored);
    return status;
}

static void
change(struct cm_api *api, const struct cm_request *req,
       enum cm_fault_list_edit edit, struct cm_response *res)
{
    struct cm_fault_list given = {.rules = NULL}, result = {.rules = NULL};
    struct cm_err err;
    enum cm_status status = CM_ECONFLICT;
    bool full;
    if (!read_choice(req, "view", "full", &full, res))
        return;
    for (int i = 0; i < CM_FAULTS_TRIES && status == CM_ECONFLICT; i++) {
        cm_fault_list_fini(&result);
        bool good = read_body(api, req, &given, res);
        if (good)
            status = try_change(api, req, &given, edit, &result, &err);
        cm_fault_list_fini(&given);
        if (!good)
            return;
    }
    if (status == CM_OK) {
        answer(&result, full, res);
    } else if (status == CM_NOTFOUND) {
        cm_etag_set(res, result.at);
        cm_response_fail(res, req, 412, "The list is another one");
    } else {
        cm_api_failed(api, req, res, status, &err, true);
    }
    cm_fault_list_fini(&result);
}

void
cm_api_faults_replace(struct cm_api *api, const struct cm_request *req,
                      struct cm_response *res)
{
    change(api, req, CM_FAULT_LIST_REPLACE, res);
}

void
cm_api_faults_add(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    bool first;
    if (read_choice(req, "position", "first", &first, res))
        change(api, req, first ? CM_FAULT_LIST_PREPEND : CM_FAULT_LIST_APPEND,
               res);
}

void
cm_api_faults_remove(struct cm_api *api, const struct cm_request *req,
                     struct cm_response *res)
{
    change(api, req, CM_FAULT_LIST_REMOVE, res);
}

/* --- effects --- */

static const char effects_name[] = "latency";

/* Takes the text out of doc. redis-cli may have written it. */
static void
answer_effects(const struct cm_request *req, struct cm_doc *doc,
               struct cm_response *res)
{
    struct cm_problems problems;
    struct cm_err err = {CM_OK, ""};
    struct cm_rule rule;
    json_t *json = NULL;
    cm_problems_init(&problems);
    enum cm_status status = cm_json_parse(&json, doc->text, doc->len, &err);
    if (status == CM_OK)
        status = cm_localstack_effect(&rule, json, &problems);
    json_decref(json);
    if (status == CM_OK)
        cm_rule_fini(&rule);
    if (status == CM_OK || status == CM_NOTFOUND) {
        cm_etag_set(res, doc->rev);
        cm_response_text(res, 200, content_type, doc->text, doc->len);
        doc->text = NULL;
    } else if (status == CM_EINVAL) {
        cm_response_fail(res, req, 500,
                         "The stored effects are broken and delay nothing "
                         "(replace them): %s",
                         problems.n ? cm_problems_first(&problems) : err.msg);
    } else {
        cm_response_fail(res, req, 503, "The server ran out of memory");
    }
}

void
cm_api_effects_get(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    struct cm_doc doc = {0};
    struct cm_err err;
    enum cm_status status =
        cm_commit_get(api->commits, CM_KIND_EFFECT, effects_name, &doc, &err);
    if (status == CM_OK) {
        answer_effects(req, &doc, res);
    } else if (status == CM_NOTFOUND) {
        cm_etag_set(res, 0);
        cm_response_json(res, 200, json_pack("{s:i}", "latency", 0));
    } else {
        cm_api_failed(api, req, res, status, &err, false);
    }
    cm_doc_fini(&doc);
}

/* The body, checked and printed; NULL: res is the answer. */
static char *
read_effects(const struct cm_request *req, size_t *len_r,
             struct cm_response *res)
{
    struct cm_problems problems;
    struct cm_rule rule;
    json_t *body = NULL;
    char *text = NULL;
    cm_problems_init(&problems);
    if (!cm_api_body(req, false, &body, res))
        return NULL;
    enum cm_status status = cm_localstack_effect(&rule, body, &problems);
    if (status == CM_OK)
        cm_rule_fini(&rule);
    if (status == CM_OK || status == CM_NOTFOUND)
        text = cm_json_dump(body, len_r);
    json_decref(body);
    if (status == CM_EINVAL)
        cm_response_fail_all(res, req, 400, &problems);
    else if (!text)
        cm_response_fail(res, req, 503, "The server ran out of memory");
    return text;
}

void
cm_api_effects_set(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    struct cm_err err;
    size_t len = 0;
    int64_t rev;
    char *text = read_effects(req, &len, res);
    if (!text ||
        !cm_api_wanted_rev(api, req, CM_KIND_EFFECT, effects_name, &rev, res))
        goto out;
    enum cm_status status = cm_commit_set(
        api->commits, CM_KIND_EFFECT, effects_name, text, len, rev, &rev, &err);
    if (status == CM_OK) {
        cm_etag_set(res, rev);
        cm_response_text(res, 200, content_type, text, len);
        text = NULL;
    } else {
        cm_api_failed(api, req, res, status, &err, true);
    }
out:
    free(text);
}
