/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * GET /api/v1/rules. All rules are read for each page, because order is by
 * place and Redis keeps none of places: ten thousand rules are a few megabytes
 * and take a tenth of a second, and an index would be one more thing to keep
 * right.
 *
 * A cursor is the place and the id of the last rule shown, so it holds when
 * that rule is gone.
 */
#include "admin/api.h"
#include "admin/api_rules.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/rule_doc.h"
#include "milter/store/commit.h"
#include "milter/store/listing.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_LIST_LIMIT     100
#define CM_LIST_LIMIT_MAX 1000
#define CM_CURSOR_BYTES   96

struct cursor {
    int64_t place; /* -1: of what cannot be read */
    const char *id;
};

/* "65536.r7"; false: not one of ours. */
static bool
read_cursor(const char *text, struct cursor *cursor_r)
{
    char *end = NULL;
    const char *digits = text + (*text == '-');
    if (*digits < '0' || *digits > '9' || strlen(text) >= CM_CURSOR_BYTES)
        return false;
    cursor_r->place = strtoll(text, &end, 10);
    cursor_r->id = end + 1;
    return *end == '.' && end[1] != '\0';
}

static bool
is_after(const struct cm_listed *rule, const struct cursor *cursor)
{
    if (rule->doc.ord != cursor->place)
        return rule->doc.ord > cursor->place;
    return strcmp(rule->name, cursor->id) > 0;
}

static json_t *
rule_json(const struct cm_api *api, const struct cm_listed *rule, int64_t hits,
          int64_t shadowed)
{
    char why[256];
    json_t *doc = cm_rule_doc_json(api, rule->name, &rule->doc, why);
    json_t *json =
        json_pack("{s:s, s:I, s:I, s:I, s:o?}", "id", rule->name, "revision",
                  (json_int_t)rule->doc.rev, "hits", (json_int_t)hits,
                  "shadowed", (json_int_t)shadowed, "rule", doc);
    if (json && *why)
        json_object_set_new(json, "error", json_string(why));
    return json;
}

/* Rules first..first+n-1 as a JSON array; NULL: res is the answer. */
static json_t *
page_json(struct cm_api *api, const struct cm_request *req,
          const struct cm_listed *rules, size_t n, struct cm_response *res)
{
    struct cm_err err;
    json_t *page = json_array();
    const char **names = calloc(n + 1, sizeof *names);
    int64_t *hits = calloc(2 * n + 1, sizeof *hits);
    enum cm_status status = page && names && hits ? CM_OK : CM_ENOMEM;
    for (size_t i = 0; status == CM_OK && i < n; i++)
        names[i] = rules[i].name;
    if (status == CM_OK)
        status = cm_commit_hits(api->commits, names, n, hits, hits + n, &err);
    for (size_t i = 0; status == CM_OK && i < n; i++)
        if (json_array_append_new(
                page, rule_json(api, &rules[i], hits[i], hits[n + i])) != 0)
            status = CM_ENOMEM;
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        json_decref(page);
        page = NULL;
    }
    free(names);
    free(hits);
    return page;
}

static void
answer(struct cm_api *api, const struct cm_request *req,
       const struct cm_listing *rules, size_t first, size_t limit,
       struct cm_response *res)
{
    char next[CM_CURSOR_BYTES];
    size_t n = rules->n - first < limit ? rules->n - first : limit;
    json_t *page = page_json(api, req, &rules->docs[first], n, res);
    if (!page)
        return;
    bool more = first + n < rules->n;
    if (more)
        snprintf(next, sizeof next, "%" PRId64 ".%s",
                 rules->docs[first + n - 1].doc.ord,
                 rules->docs[first + n - 1].name);
    cm_response_json(res, 200,
                     json_pack("{s:o, s:I, s:s?}", "rules", page, "total",
                               (json_int_t)rules->n, "next",
                               more ? next : NULL));
}

void
cm_api_rule_list(struct cm_api *api, const struct cm_request *req,
                 struct cm_response *res)
{
    static const char *const known[] = {"limit", "after", NULL};
    const char *after = cm_target_param(&req->target, "after");
    struct cm_listing rules;
    struct cursor cursor = {-2, ""};
    struct cm_err err;
    size_t first = 0;
    int limit;
    if (!cm_own_query(req, known, res) ||
        !cm_own_number(req, "limit", 1, CM_LIST_LIMIT_MAX, CM_LIST_LIMIT,
                       &limit, res))
        return;
    if (after && !read_cursor(after, &cursor)) {
        cm_response_fail(res, req, 400,
                         "after must be the next of an earlier answer");
        return;
    }
    enum cm_status status =
        cm_commit_read(api->commits, CM_KIND_RULE, &rules, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        return;
    }
    while (first < rules.n && !is_after(&rules.docs[first], &cursor))
        first++;
    answer(api, req, &rules, first, (size_t)limit, res);
    cm_listing_fini(&rules);
}
