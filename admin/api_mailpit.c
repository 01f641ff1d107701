/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Refusals of a document are written here and not by cm_response_fail: below
 * /api/v1 that makes problem documents, and Mailpit's clients show the body as
 * it is.
 */
#include "admin/api_mailpit.h"
#include "admin/api.h"
#include "admin/etag.h"
#include "admin/keeper.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/triggers.h"
#include "milter/model/json.h"
#include "milter/model/mailpit_json.h"
#include "milter/settings.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <string.h>

static void
refuse(struct cm_response *res, const char *text)
{
    cm_response_text(res, 400, "text/plain", strdup(text), strlen(text));
}

static bool
is_enabled(const struct cm_api *api, struct cm_response *res)
{
    if (!api->settings->armed)
        refuse(res, "Chaos is not enabled");
    return api->settings->armed;
}

static void
answer(const struct cm_triggers *triggers, int64_t at, struct cm_response *res)
{
    cm_etag_set(res, at);
    cm_response_json(res, 200, cm_triggers_json(triggers));
}

void
cm_api_mailpit_get(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    struct cm_triggers triggers;
    struct cm_err err;
    int64_t at = 0;
    if (!is_enabled(api, res))
        return;
    enum cm_status status =
        cm_triggers_load(api->commits, &triggers, &at, &err);
    if (status == CM_OK)
        answer(&triggers, at, res);
    else
        cm_api_failed(api, req, res, status, &err, false);
}

/* false: res is the answer. */
static bool
read_body(const struct cm_request *req, struct cm_triggers *triggers_r,
          struct cm_response *res)
{
    struct cm_err err;
    json_t *body = NULL;
    enum cm_status status = cm_json_parse(
        &body, req->body.data ? req->body.data : "", req->body.len, &err);
    if (status == CM_OK)
        status = cm_triggers_read(triggers_r, body, &err);
    json_decref(body);
    if (status == CM_EINVAL)
        refuse(res, err.msg);
    else if (status != CM_OK)
        cm_response_fail(res, req, 503, "The server ran out of memory");
    return status == CM_OK;
}

/* Is it the state that the client means? at: CM_REV_ANY when it does not care.
 */
static bool
wanted_state(struct cm_api *api, const struct cm_request *req, int64_t *at,
             struct cm_response *res)
{
    struct cm_triggers now;
    struct cm_err err;
    *at = CM_REV_ANY;
    if (!cm_etag_asked(req))
        return true;
    enum cm_status status = cm_triggers_load(api->commits, &now, at, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        return false;
    }
    if (cm_etag_holds(req, *at))
        return true;
    cm_etag_set(res, *at);
    cm_response_fail(res, req, 412, "The triggers are others");
    return false;
}

void
cm_api_mailpit_set(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    struct cm_triggers triggers;
    struct cm_err err;
    int64_t at;
    if (!is_enabled(api, res) || !read_body(req, &triggers, res) ||
        !wanted_state(api, req, &at, res))
        return;
    cm_keeper_forget_triggers(api->keeper);
    enum cm_status status =
        cm_triggers_store(api->commits, &triggers, &at, &err);
    if (status == CM_OK)
        answer(&triggers, at, res);
    else
        cm_api_failed(api, req, res, status, &err, true);
}
