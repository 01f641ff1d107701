/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/own.h"
#include "admin/api.h"
#include "admin/request.h"
#include "admin/response.h"
#include "milter/model/members.h"
#include "milter/model/problem.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

void
cm_own_no_memory(struct cm_response *res, const struct cm_request *req)
{
    cm_response_header(res, "Retry-After", "1");
    cm_response_fail(res, req, 503, "The server ran out of memory");
}

void
cm_own_invalid(struct cm_response *res, const struct cm_request *req,
               const struct cm_problems *problems)
{
    cm_response_fail_all(res, req, 422, problems);
}

bool
cm_own_body(const struct cm_request *req, const struct cm_member *table,
            bool may_be_empty, struct json_t **json_r, struct cm_response *res)
{
    struct cm_problems problems;
    json_t *body = NULL, *kept = NULL;
    if (!cm_api_body(req, may_be_empty, &body, res))
        return false;
    cm_problems_init(&problems);
    enum cm_status status = CM_OK;
    if (json_is_object(body))
        status = cm_members_normalize(&kept, body, table, "", &problems);
    else
        cm_problem_add(&problems, "", "the body must be a JSON object");
    json_decref(body);
    if (status == CM_OK && problems.n == 0) {
        *json_r = kept;
        return true;
    }
    json_decref(kept);
    if (status == CM_OK)
        cm_own_invalid(res, req, &problems);
    else
        cm_own_no_memory(res, req);
    return false;
}

bool
cm_own_query(const struct cm_request *req, const char *const *known,
             struct cm_response *res)
{
    for (size_t i = 0; i < req->target.nparam; i++) {
        const char *name = req->target.param[i].name;
        size_t k = 0;
        while (known[k] && strcmp(known[k], name) != 0)
            k++;
        if (known[k])
            continue;
        cm_response_fail(res, req, 400, "The query parameter %s is not known",
                         name);
        return false;
    }
    return true;
}

bool
cm_own_number(const struct cm_request *req, const char *name, int lo, int hi,
              int preset, int *number_r, struct cm_response *res)
{
    const char *text = cm_target_param(&req->target, name);
    *number_r = preset;
    if (!text)
        return true;
    size_t len = strlen(text);
    long number = len > 0 && len < 10 && strspn(text, "0123456789") == len
                      ? strtol(text, NULL, 10)
                      : (long)hi + 1;
    *number_r = (int)number;
    if (number >= lo && number <= hi)
        return true;
    cm_response_fail(res, req, 400, "%s must be a whole number from %d to %d",
                     name, lo, hi);
    return false;
}

bool
cm_own_confirmed(const struct cm_request *req, const char *wanted,
                 struct cm_response *res)
{
    const char *text = cm_target_param(&req->target, "confirm");
    if (text && strcmp(text, wanted) == 0)
        return true;
    cm_response_fail(res, req, 400,
                     "This removes more than one thing: ask for it with "
                     "?confirm=%s",
                     wanted);
    return false;
}
