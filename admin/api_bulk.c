/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many inboxes in one request. All that can be wrong is found before anything
 * is written, and one batch changes all of them or none; only populate, which
 * can be repeated, writes several batches, and says how far it came when one of
 * them fails.
 */
#include "admin/api.h"
#include "admin/api_own_inboxes.h"
#include "admin/inbox_gate.h"
#include "admin/own.h"
#include "admin/range.h"
#include "admin/request.h"
#include "admin/response.h"
#include "milter/model/address.h"
#include "milter/model/inbox_json.h"
#include "milter/model/json.h"
#include "milter/model/members.h"
#include "milter/model/problem.h"
#include "milter/settings.h"
#include "milter/store/batch.h"
#include "milter/store/commit.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_POPULATE_EACH 1000 /* inboxes of one batch */

static const struct cm_member set_members[] = {
    {.name = "inboxes", .type = CM_MEMBER_ANY},
    {.name = "addresses", .type = CM_MEMBER_ANY},
    {.name = "chaos", .type = CM_MEMBER_ANY},
    CM_MEMBER_ROW_END,
};
static const struct cm_member entry_members[] = {
    {.name = "address", .type = CM_MEMBER_STRING, .required = true, .max = 400},
    {.name = "chaos", .type = CM_MEMBER_ANY},
    CM_MEMBER_ROW_END,
};
static const struct cm_member clear_members[] = {
    {.name = "addresses", .type = CM_MEMBER_ANY},
    CM_MEMBER_ROW_END,
};
static const struct cm_member populate_members[] = {
    {.name = "pattern", .type = CM_MEMBER_STRING, .required = true, .max = 400},
    {.name = "chaos", .type = CM_MEMBER_ANY},
    CM_MEMBER_ROW_END,
};

/* A bulk request on its way: what will be changed, and what is wrong. */
struct bulk {
    const struct cm_api *api;
    struct cm_problems problems;
    enum cm_status status; /* of memory and the store; latches */
    struct cm_err err;
    size_t n;
    struct cm_change changes[CM_BULK_MAX];
    char *names[CM_BULK_MAX]; /* owned */
    char *docs[CM_BULK_MAX];  /* owned; NULL: the common one */
    char *common;             /* owned */
    size_t common_len;
};

static struct bulk *
bulk_new(const struct cm_api *api, const struct cm_request *req,
         struct cm_response *res)
{
    struct bulk *bulk = calloc(1, sizeof *bulk);
    if (!bulk) {
        cm_own_no_memory(res, req);
        return NULL;
    }
    bulk->api = api;
    cm_problems_init(&bulk->problems);
    return bulk;
}

static void
bulk_free(struct bulk *bulk)
{
    for (size_t i = 0; i < bulk->n; i++) {
        free(bulk->names[i]);
        free(bulk->docs[i]);
    }
    free(bulk->common);
    free(bulk);
}

static void
latch(struct bulk *bulk, enum cm_status status)
{
    if (bulk->status == CM_OK)
        bulk->status = status;
}

/* The configuration in its normal form, printed; NULL after a complaint or
 * without memory. */
static char *
print_config(struct bulk *bulk, const json_t *chaos, const char *prefix,
             size_t *len_r)
{
    json_t *config = NULL;
    char *text = NULL;
    enum cm_status status =
        cm_inbox_normalize(&config, chaos, prefix, &bulk->problems);
    if (status == CM_OK)
        text = cm_json_dump(config, len_r);
    json_decref(config);
    if (status != CM_EINVAL && !text)
        latch(bulk, CM_ENOMEM);
    return text;
}

/* One more change; false: no room for more, which is a problem too. */
static bool
add(struct bulk *bulk, enum cm_change_what what, const char *text,
    const char *path)
{
    struct cm_address addr;
    struct cm_err err;
    if (bulk->n == CM_BULK_MAX)
        return false;
    enum cm_status status = cm_gate_inbox(bulk->api, text, &addr, &err);
    if (status == CM_EINVAL || status == CM_NOTFOUND) {
        cm_problem_add(&bulk->problems, path, "%s: %s", path, err.msg);
        return true;
    }
    char *name = status == CM_OK ? strdup(addr.text) : NULL;
    if (!name) {
        bulk->err = err;
        latch(bulk, status == CM_OK ? CM_ENOMEM : status);
        return true;
    }
    bulk->names[bulk->n] = name;
    bulk->changes[bulk->n++] = (struct cm_change){.what = what,
                                                  .kind = CM_KIND_INBOX,
                                                  .name = name,
                                                  .rev = CM_REV_ANY,
                                                  .place = CM_PLACE_USUAL};
    return true;
}

static bool
check_list(struct bulk *bulk, const json_t *list, const char *name)
{
    size_t n = json_array_size(list);
    if (json_is_array(list) && n >= 1 && n <= CM_BULK_MAX)
        return true;
    cm_problem_add(&bulk->problems, name, "%s must be an array of 1 to %d %s",
                   name, CM_BULK_MAX, name);
    return false;
}

static void
add_addresses(struct bulk *bulk, enum cm_change_what what, const json_t *list)
{
    char path[32];
    if (!check_list(bulk, list, "addresses"))
        return;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        snprintf(path, sizeof path, "addresses[%zu]", i);
        if (text)
            add(bulk, what, text, path);
        else
            cm_problem_add(&bulk->problems, path, "%s must be a string", path);
    }
}

/* {"address": ..., "chaos": {...}} */
static void
add_entry(struct bulk *bulk, const json_t *entry, size_t i)
{
    char prefix[48], path[64];
    json_t *kept = NULL;
    size_t len = 0, before = bulk->n;
    snprintf(prefix, sizeof prefix, "inboxes[%zu].", i);
    if (!json_is_object(entry)) {
        cm_problem_add(&bulk->problems, prefix,
                       "inboxes[%zu] must be a JSON object", i);
        return;
    }
    latch(bulk, cm_members_normalize(&kept, entry, entry_members, prefix,
                                     &bulk->problems));
    const char *address = json_string_value(json_object_get(kept, "address"));
    snprintf(path, sizeof path, "%saddress", prefix);
    if (address)
        add(bulk, CM_CHANGE_SET, address, path);
    snprintf(path, sizeof path, "%schaos.", prefix);
    char *text =
        kept ? print_config(bulk, json_object_get(kept, "chaos"), path, &len)
             : NULL;
    if (text && bulk->n > before) {
        bulk->docs[before] = text;
        bulk->changes[before].doc = text;
        bulk->changes[before].len = len;
    } else {
        free(text);
    }
    json_decref(kept);
}

/* Writes it, or says what is wrong; true when it is done. */
static bool
commit(struct bulk *bulk, struct cm_api *api, const struct cm_request *req,
       struct cm_response *res)
{
    size_t failed;
    if (bulk->status == CM_OK && bulk->problems.n > 0) {
        cm_own_invalid(res, req, &bulk->problems);
        return false;
    }
    for (size_t i = 0; i < bulk->n; i++)
        if (!bulk->changes[i].doc && bulk->common) {
            bulk->changes[i].doc = bulk->common;
            bulk->changes[i].len = bulk->common_len;
        }
    if (bulk->status == CM_OK)
        latch(bulk, cm_commit_batch(api->commits, bulk->changes, bulk->n, NULL,
                                    &failed, &bulk->err));
    if (bulk->status == CM_EINVAL)
        cm_response_fail(res, req, 422, "%s", bulk->err.msg);
    else if (bulk->status != CM_OK)
        cm_api_failed(api, req, res, bulk->status, &bulk->err, true);
    return bulk->status == CM_OK;
}

static void
read_set(struct bulk *bulk, const json_t *body)
{
    const json_t *inboxes = json_object_get(body, "inboxes");
    const json_t *addresses = json_object_get(body, "addresses");
    const json_t *chaos = json_object_get(body, "chaos");
    if (!inboxes == !addresses) {
        cm_problem_add(&bulk->problems, "",
                       "either inboxes or addresses must be there");
        return;
    }
    if (addresses) {
        bulk->common = print_config(bulk, chaos, "chaos.", &bulk->common_len);
        add_addresses(bulk, CM_CHANGE_SET, addresses);
        return;
    }
    if (chaos)
        cm_problem_add(&bulk->problems, "chaos",
                       "chaos goes with addresses; each of inboxes has its "
                       "own");
    if (!check_list(bulk, inboxes, "inboxes"))
        return;
    for (size_t i = 0; i < json_array_size(inboxes); i++)
        add_entry(bulk, json_array_get(inboxes, i), i);
}

void
cm_api_bulk_set(struct cm_api *api, const struct cm_request *req,
                struct cm_response *res)
{
    json_t *body = NULL;
    struct bulk *bulk = bulk_new(api, req, res);
    if (!bulk)
        return;
    if (cm_own_body(req, set_members, false, &body, res)) {
        read_set(bulk, body);
        if (commit(bulk, api, req, res))
            cm_response_json(res, 200,
                             json_pack("{s:I}", "set", (json_int_t)bulk->n));
    }
    json_decref(body);
    bulk_free(bulk);
}

void
cm_api_bulk_clear(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    json_t *body = NULL;
    struct bulk *bulk = bulk_new(api, req, res);
    if (!bulk)
        return;
    if (cm_own_body(req, clear_members, false, &body, res)) {
        add_addresses(bulk, CM_CHANGE_DEL, json_object_get(body, "addresses"));
        if (commit(bulk, api, req, res))
            cm_response_json(
                res, 200, json_pack("{s:I}", "cleared", (json_int_t)bulk->n));
    }
    json_decref(body);
    bulk_free(bulk);
}

/* --- populate --- */

/* The range of the pattern; problems says what is wrong with it. */
static void
read_range(struct bulk *bulk, const char *pattern,
           struct cm_range_pattern *range_r)
{
    char first[400], last[400];
    struct cm_err err;
    if (cm_range_parse(range_r, pattern, &err) != CM_OK) {
        cm_problem_add(&bulk->problems, "pattern", "pattern %s", err.msg);
        return;
    }
    if (range_r->last - range_r->first >= CM_POPULATE_MAX) {
        cm_problem_add(&bulk->problems, "pattern",
                       "pattern must not stand for more than %d inboxes",
                       CM_POPULATE_MAX);
        return;
    }
    /* What is between them is as good as they are. */
    if (!cm_range_print(range_r, range_r->first, first, sizeof first) ||
        !cm_range_print(range_r, range_r->last, last, sizeof last))
        cm_problem_add(&bulk->problems, "pattern", "pattern is too long");
    else if (add(bulk, CM_CHANGE_SET, first, "pattern"))
        add(bulk, CM_CHANGE_SET, last, "pattern");
}

/* Inboxes from..from+n-1 as one batch. */
static enum cm_status
write_part(struct cm_api *api, const struct bulk *bulk,
           const struct cm_range_pattern *range, int64_t from, size_t n,
           struct cm_err *err)
{
    struct bulk *part = calloc(1, sizeof *part);
    char text[400];
    size_t failed;
    if (!part)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    part->api = api;
    for (size_t i = 0; i < n && part->status == CM_OK; i++) {
        if (!cm_range_print(range, from + (int64_t)i, text, sizeof text) ||
            !add(part, CM_CHANGE_SET, text, "pattern"))
            latch(part, CM_EINVAL);
        if (part->n > i) {
            part->changes[i].doc = bulk->common;
            part->changes[i].len = bulk->common_len;
        }
    }
    if (part->status == CM_OK && part->n == n)
        latch(part, cm_commit_batch(api->commits, part->changes, part->n, NULL,
                                    &failed, &part->err));
    enum cm_status status = part->status;
    *err = part->err;
    bulk_free(part);
    return status;
}

static void
populate(struct cm_api *api, const struct cm_request *req,
         const struct bulk *bulk, const struct cm_range_pattern *range,
         struct cm_response *res)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status status = CM_OK;
    int64_t done = 0, all = range->last - range->first + 1;
    while (status == CM_OK && done < all) {
        int64_t n =
            all - done < CM_POPULATE_EACH ? all - done : CM_POPULATE_EACH;
        status =
            write_part(api, bulk, range, range->first + done, (size_t)n, &err);
        if (status == CM_OK)
            done += n;
    }
    if (status == CM_OK) {
        cm_response_json(res, 200, json_pack("{s:I}", "set", (json_int_t)done));
        return;
    }
    char what[sizeof err.msg];
    snprintf(what, sizeof what, "%s", err.msg);
    cm_err_set(&err, status, "after %" PRId64 " of %" PRId64 " inboxes: %.180s",
               done, all, what);
    cm_api_failed(api, req, res, status, &err, true);
}

void
cm_api_populate(struct cm_api *api, const struct cm_request *req,
                struct cm_response *res)
{
    struct cm_range_pattern range;
    json_t *body = NULL;
    struct bulk *bulk = bulk_new(api, req, res);
    if (!bulk)
        return;
    if (strcmp(api->settings->admin.inboxes, "explicit") == 0) {
        cm_response_fail(res, req, 409,
                         "admin.inboxes is explicit: make inboxes by POST "
                         "/api/inboxes first");
    } else if (cm_own_body(req, populate_members, false, &body, res)) {
        read_range(bulk, json_string_value(json_object_get(body, "pattern")),
                   &range);
        bulk->common = print_config(bulk, json_object_get(body, "chaos"),
                                    "chaos.", &bulk->common_len);
        if (bulk->problems.n > 0)
            cm_own_invalid(res, req, &bulk->problems);
        else if (bulk->status != CM_OK)
            cm_api_failed(api, req, res, bulk->status, &bulk->err, false);
        else
            populate(api, req, bulk, &range, res);
    }
    json_decref(body);
    bulk_free(bulk);
}
