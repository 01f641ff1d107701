/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * GET /api/inboxes. Two lists in byte order, of the inboxes that were made and
 * of those that have a configuration, merged a page at a time: keeping a third
 * index of both in Redis would be one more thing to keep right.
 */
#include "admin/api.h"
#include "admin/api_inboxes.h"
#include "admin/box.h"
#include "admin/response.h"
#include "milter/clock.h"
#include "milter/model/address.h"
#include "milter/model/rule_json.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_INBOX_LIMIT     100
#define CM_INBOX_LIMIT_MAX 1000

struct page {
    const char *prefix, *after;
    int limit;
    char **with_chaos, **made; /* names, in byte order, limit + 1 at most */
};

static bool
read_query(const struct cm_request *req, struct page *page,
           struct cm_response *res)
{
    const char *limit = cm_target_param(&req->target, "limit");
    const char *prefix = cm_target_param(&req->target, "prefix");
    const char *after = cm_target_param(&req->target, "after");
    page->prefix = prefix ? prefix : "";
    page->after = after ? after : "";
    page->limit = CM_INBOX_LIMIT;
    if (limit) {
        char *end;
        long n = strtol(limit, &end, 10);
        if (limit[0] < '0' || limit[0] > '9' || *end || n < 1 ||
            n > CM_INBOX_LIMIT_MAX) {
            cm_response_fail(res, req, 400, "limit must be between 1 and %d",
                             CM_INBOX_LIMIT_MAX);
            return false;
        }
        page->limit = (int)n;
    }
    if (strlen(page->prefix) > CM_ADDRESS_MAX_BYTES ||
        strlen(page->after) > CM_ADDRESS_MAX_BYTES) {
        cm_response_fail(res, req, 400,
                         "prefix and after must be at most %d bytes",
                         CM_ADDRESS_MAX_BYTES);
        return false;
    }
    return true;
}

static enum cm_status
fetch(struct cm_api *api, struct page *page, struct cm_err *err)
{
    enum cm_status status =
        cm_commit_list(api->commits, CM_KIND_INBOX, page->prefix, page->after,
                       page->limit + 1, &page->with_chaos, NULL, err);
    if (status == CM_OK)
        status =
            cm_commit_list(api->commits, CM_KIND_BOX, page->prefix, page->after,
                           page->limit + 1, &page->made, NULL, err);
    return status;
}

/* One entry; a box that has expired and has no chaos is not listed. */
static enum cm_status
add_entry(struct cm_api *api, json_t *list, const char *name, bool chaos,
          bool made, struct cm_err *err)
{
    struct cm_box box;
    char expires[32];
    enum cm_status status = CM_NOTFOUND;
    if (made) {
        status = cm_box_get(api->commits, name, cm_clock_wall_ms(), &box, err);
        if (status == CM_NOTFOUND && !chaos)
            return CM_OK;
        if (status != CM_OK && status != CM_NOTFOUND)
            return status;
    }
    json_t *entry =
        json_pack("{s:s, s:b}", "emailAddress", name, "chaos", (int)chaos);
    if (entry && status == CM_OK) {
        cm_time_print(box.expires_ms, expires, sizeof expires);
        json_object_set_new(entry, "expiresAt", json_string(expires));
    }
    if (json_array_append_new(list, entry) < 0)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    return CM_OK;
}

/* Merges the two lists; *next_r is the last name when more follow. */
static enum cm_status
merge(struct cm_api *api, const struct page *page, json_t *list,
      const char **next_r, struct cm_err *err)
{
    char **chaos = page->with_chaos, **made = page->made;
    const char *last = NULL;
    *next_r = NULL;
    for (int n = 0; *chaos || *made; n++) {
        int order = !*chaos ? 1 : !*made ? -1 : strcmp(*chaos, *made);
        if (n == page->limit) {
            *next_r = last;
            break;
        }
        last = order <= 0 ? *chaos : *made;
        enum cm_status status =
            add_entry(api, list, last, order <= 0, order >= 0, err);
        if (status != CM_OK)
            return status;
        chaos += order <= 0;
        made += order >= 0;
    }
    return CM_OK;
}

void
cm_api_inbox_list(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    struct page page = {0};
    struct cm_err err;
    const char *next = NULL;
    if (!read_query(req, &page, res))
        return;
    json_t *list = json_array();
    enum cm_status status = fetch(api, &page, &err);
    if (status == CM_OK)
        status = merge(api, &page, list, &next, &err);
    if (status == CM_OK) {
        cm_response_json(
            res, 200, json_pack("{s:O, s:s?}", "inboxes", list, "next", next));
    } else {
        cm_api_failed(api, req, res, status, &err, false);
    }
    json_decref(list);
    cm_names_free(&page.with_chaos);
    cm_names_free(&page.made);
}
