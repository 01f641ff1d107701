/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/api_reset.h"
#include "admin/api.h"
#include "admin/own.h"
#include "admin/response.h"
#include "milter/model/members.h"
#include "milter/store/forget.h"
#include "milter/store/wipe.h"

#include <jansson.h>

static const struct cm_member members[] = {
    CM_MEMBER_ROW_BOOLEAN("state", false),
    CM_MEMBER_ROW_END,
};

static const struct {
    enum cm_kind kind;
    const char *name; /* in the answer */
} kinds[] = {
    {CM_KIND_INBOX, "inboxes"},  {CM_KIND_RULE, "rules"},
    {CM_KIND_FAULT, "faults"},   {CM_KIND_TRIGGER, "triggers"},
    {CM_KIND_EFFECT, "effects"},
};
#define NKINDS (sizeof kinds / sizeof kinds[0])

void
cm_api_reset(struct cm_api *api, const struct cm_request *req,
             struct cm_response *res)
{
    struct cm_wipe wipes[NKINDS];
    struct cm_err err;
    json_t *body = NULL;
    int64_t state = 0;
    if (!cm_own_body(req, members, true, &body, res))
        return;
    bool with_state = json_is_true(json_object_get(body, "state"));
    json_decref(body);
    for (size_t i = 0; i < NKINDS; i++)
        wipes[i] = (struct cm_wipe){.kind = kinds[i].kind, .begin = ""};
    enum cm_status status = cm_commit_wipe(api->commits, wipes, NKINDS, &err);
    if (status == CM_OK && with_state)
        status = cm_commit_forget_state(api->commits, &state, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, true);
        return;
    }
    json_t *removed = json_object();
    for (size_t i = 0; i < NKINDS; i++)
        json_object_set_new(removed, kinds[i].name,
                            json_integer(wipes[i].count));
    if (with_state)
        json_object_set_new(removed, "state", json_integer(state));
    cm_response_json(res, 200, json_pack("{s:o}", "removed", removed));
}
