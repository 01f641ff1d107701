/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/api_audit.h"
#include "admin/api.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "milter/model/json.h"
#include "milter/model/rfc3339.h"
#include "milter/store/audit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_AUDIT_LIMIT     100
#define CM_AUDIT_LIMIT_MAX 1000

/* How a field of the stream is shown. What is not listed is a text. */
static const struct {
    const char *field, *name;
    enum { AS_TIME, AS_NUMBER, AS_DOCUMENT } as;
} shown[] = {
    {"at", "time", AS_TIME},
    {"seq", "seq", AS_NUMBER},
    {"rev", "revision", AS_NUMBER},
    {"count", "count", AS_NUMBER},
    {"place", "place", AS_NUMBER},
    {"place_before", "placeBefore", AS_NUMBER},
    {"before_bytes", "beforeBytes", AS_NUMBER},
    {"after_bytes", "afterBytes", AS_NUMBER},
    {"before", "before", AS_DOCUMENT},
    {"after", "after", AS_DOCUMENT},
};

static json_t *
time_json(const char *text)
{
    char printed[32];
    cm_time_print(strtoll(text, NULL, 10), printed, sizeof printed);
    return json_string(printed);
}

/* A document that is none any more is shown as the text it is. */
static json_t *
document_json(const char *text)
{
    json_t *json = NULL;
    if (cm_json_parse(&json, text, strlen(text), NULL) == CM_OK)
        return json;
    return json_string(text);
}

static void
show(json_t *entry, const char *field, const char *value)
{
    size_t i = 0, n = sizeof shown / sizeof shown[0];
    while (i < n && strcmp(shown[i].field, field) != 0)
        i++;
    if (i == n) {
        json_object_set_new(entry, field, json_string(value));
        return;
    }
    switch (shown[i].as) {
    case AS_TIME:
        json_object_set_new(entry, shown[i].name, time_json(value));
        break;
    case AS_NUMBER:
        json_object_set_new(entry, shown[i].name,
                            json_integer(strtoll(value, NULL, 10)));
        break;
    case AS_DOCUMENT:
        json_object_set_new(entry, shown[i].name, document_json(value));
        break;
    }
}

static json_t *
entry_json(const struct cm_audit_entry *entry)
{
    json_t *json = json_pack("{s:s}", "id", entry->id);
    for (size_t i = 0; json && i < entry->n; i++)
        show(json, entry->field[i].name, entry->field[i].value);
    return json;
}

static bool
is_of_inboxes(const char *key)
{
    return strncmp(key, "inbox:", 6) == 0 || strncmp(key, "box:", 4) == 0;
}

/* Which of the two; false: res is the answer. */
static bool
choose(const struct cm_request *req, const char *key, enum cm_audit_of *of_r,
       struct cm_response *res)
{
    const char *of = cm_target_param(&req->target, "of");
    *of_r = key && is_of_inboxes(key) ? CM_AUDIT_INBOXES : CM_AUDIT_FLEET;
    if (of && strcmp(of, "inboxes") != 0 && strcmp(of, "fleet") != 0) {
        cm_response_fail(res, req, 400, "of must be fleet or inboxes");
        return false;
    }
    if (of)
        *of_r = *of == 'i' ? CM_AUDIT_INBOXES : CM_AUDIT_FLEET;
    return true;
}

void
cm_api_audit(struct cm_api *api, const struct cm_request *req,
             struct cm_response *res)
{
    static const char *const known[] = {"limit", "from", "key", "of", NULL};
    const char *from = cm_target_param(&req->target, "from");
    const char *key = cm_target_param(&req->target, "key");
    struct cm_audit audit;
    struct cm_err err;
    enum cm_audit_of of;
    int limit;
    if (!cm_own_query(req, known, res) ||
        !cm_own_number(req, "limit", 1, CM_AUDIT_LIMIT_MAX, CM_AUDIT_LIMIT,
                       &limit, res) ||
        !choose(req, key, &of, res))
        return;
    enum cm_status status = cm_audit_read(api->commits, of, from ? from : "",
                                          key, limit, &audit, &err);
    if (status == CM_EINVAL) {
        cm_response_fail(res, req, 400,
                         "from must be the next of an earlier answer");
    } else if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
    } else {
        json_t *list = json_array();
        for (size_t i = 0; list && i < audit.n; i++)
            json_array_append_new(list, entry_json(&audit.entries[i]));
        cm_response_json(res, 200,
                         json_pack("{s:o, s:s?}", "entries", list, "next",
                                   *audit.next ? audit.next : NULL));
    }
    cm_audit_fini(&audit);
}
