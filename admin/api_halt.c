/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/api_halt.h"
#include "admin/api.h"
#include "admin/own.h"
#include "admin/response.h"
#include "milter/buf.h"
#include "milter/model/members.h"
#include "milter/store/commit.h"
#include "milter/store/halt.h"

#include <jansson.h>
#include <string.h>

#define CM_HALT_ANSWER_MAX 4096

static const struct cm_member halt_members[] = {
    {.name = "reason", .type = CM_MEMBER_STRING, .max = CM_HALT_REASON_MAX},
    CM_MEMBER_ROW_END,
};
static const struct cm_member no_members[] = {CM_MEMBER_ROW_END};

static void
answer(struct cm_api *api, const struct cm_request *req,
       struct cm_response *res, enum cm_status status,
       const struct cm_halt *halt, const struct cm_err *err, bool is_write)
{
    struct cm_buf buf;
    size_t len = 0;
    if (status == CM_EINVAL) {
        cm_response_fail(res, req, 422, "%s", err->msg);
        return;
    }
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, err, is_write);
        return;
    }
    cm_buf_init(&buf, CM_HALT_ANSWER_MAX);
    cm_halt_print(&buf, halt);
    char *text = cm_buf_take(&buf, &len);
    cm_response_text(res, 200, "application/json; charset=utf-8", text, len);
    cm_buf_fini(&buf);
}

void
cm_api_halt_get(struct cm_api *api, const struct cm_request *req,
                struct cm_response *res)
{
    struct cm_halt halt;
    struct cm_err err;
    enum cm_status status = cm_commit_halted(api->commits, &halt, &err);
    answer(api, req, res, status, &halt, &err, false);
}

void
cm_api_halt(struct cm_api *api, const struct cm_request *req,
            struct cm_response *res)
{
    struct cm_halt halt;
    struct cm_err err;
    json_t *body = NULL;
    if (!cm_own_body(req, halt_members, true, &body, res))
        return;
    const char *reason = json_string_value(json_object_get(body, "reason"));
    enum cm_status status =
        cm_commit_halt(api->commits, reason ? reason : "", &halt, &err);
    answer(api, req, res, status, &halt, &err, true);
    json_decref(body);
}

void
cm_api_resume(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res)
{
    struct cm_halt halt;
    struct cm_err err;
    json_t *body = NULL;
    if (!cm_own_body(req, no_members, true, &body, res))
        return;
    json_decref(body);
    enum cm_status status = cm_commit_resume(api->commits, &halt, &err);
    answer(api, req, res, status, &halt, &err, true);
}
