/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * GET /api/v1/rules. All rules are read for each page, because order is by
 * place and Redis keeps none of places: ten thousand rules are a few megabytes
 * and take a tenth of a second, and an index would be one more thing to keep
 * right.
 *
 * A cursor is the face, the place and the name of the last rule shown, so it
 * holds when that rule is gone.
 */
#include "admin/api.h"
#include "admin/api_rules.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/rule_doc.h"
#include "milter/model/json.h"
#include "milter/model/rule_print.h"
#include "milter/store/commit.h"
#include "milter/store/listing.h"
#include "milter/store/rulebook.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_LIST_LIMIT     100
#define CM_LIST_LIMIT_MAX 1000
#define CM_CURSOR_BYTES   112
#define CM_KEY_BYTES      96

/* In the order of evaluation. */
static const enum cm_kind kinds[] = {CM_KIND_RULE, CM_KIND_FAULT,
                                     CM_KIND_TRIGGER, CM_KIND_EFFECT};
#define NKINDS (sizeof kinds / sizeof kinds[0])

struct cursor {
    size_t kind;   /* index in kinds */
    int64_t place; /* -1: of what cannot be read */
    const char *name;
};

/* The list as it was read. */
struct lists {
    size_t nkinds; /* 1: our own rules alone */
    struct cm_listing at[NKINDS];
    size_t total;
};

/* A page of it. */
struct shown {
    size_t kind;
    const struct cm_listed *rule;
    char name[CM_KEY_BYTES]; /* as records have it: "r7", "fault:12.1" */
};

/* "0.65536.r7"; false: not one of ours. */
static bool
read_cursor(const char *text, struct cursor *cursor_r)
{
    long long place;
    int at = 0;
    unsigned kind;
    if (strlen(text) >= CM_CURSOR_BYTES ||
        sscanf(text, "%1u.%lld.%n", &kind, &place, &at) != 2 || at == 0 ||
        kind >= NKINDS || !text[at])
        return false;
    *cursor_r =
        (struct cursor){.kind = kind, .place = place, .name = text + at};
    return true;
}

static bool
is_after(size_t kind, const struct cm_listed *rule, const struct cursor *cursor)
{
    if (kind != cursor->kind)
        return kind > cursor->kind;
    if (rule->doc.ord != cursor->place)
        return rule->doc.ord > cursor->place;
    return strcmp(rule->name, cursor->name) > 0;
}

/* --- one rule --- */

/* What the document became, or null; *why (256 bytes) is set when it is broken.
 */
static json_t *
compiled_json(const struct cm_api *api, const struct shown *shown, char *why)
{
    char key[CM_KEY_BYTES];
    struct cm_rule rule;
    struct cm_err err = {CM_OK, "the value in Redis is no document"};
    const struct cm_doc *doc = &shown->rule->doc;
    snprintf(key, sizeof key, "%s:%s", cm_kind_name(kinds[shown->kind]),
             shown->rule->name);
    why[0] = '\0';
    enum cm_status status =
        doc->text ? cm_rulebook_rule(&rule, key, doc->text, doc->len,
                                     api->address_flags, &err)
                  : CM_EINVAL;
    if (status == CM_NOTFOUND)
        return json_null();
    if (status != CM_OK) {
        snprintf(why, 256, "%s", err.msg);
        return json_null();
    }
    json_t *json = cm_rule_json(&rule);
    cm_rule_fini(&rule);
    return json;
}

static json_t *
document_json(const struct cm_doc *doc)
{
    json_t *json = NULL;
    if (!doc->text || cm_json_parse(&json, doc->text, doc->len, NULL) != CM_OK)
        return json_null();
    return json;
}

static json_t *
rule_json(const struct cm_api *api, const struct shown *shown, bool all,
          int64_t hits, int64_t shadowed)
{
    char why[256];
    const struct cm_listed *rule = shown->rule;
    json_t *compiled = compiled_json(api, shown, why);
    json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "id", rule->name,
                             "face", cm_kind_name(kinds[shown->kind]),
                             "revision", (json_int_t)rule->doc.rev, "hits",
                             (json_int_t)hits, "shadowed", (json_int_t)shadowed,
                             "rule", document_json(&rule->doc));
    if (json && all)
        json_object_set(json, "compiled", compiled);
    json_decref(compiled);
    if (json && *why)
        json_object_set_new(json, "error", json_string(why));
    return json;
}

/* --- the page --- */

static enum cm_status
read_lists(struct cm_api *api, struct lists *lists, struct cm_err *err)
{
    enum cm_status status = CM_OK;
    for (size_t k = 0; k < lists->nkinds && status == CM_OK; k++) {
        status = cm_commit_read(api->commits, kinds[k], &lists->at[k], err);
        lists->total += lists->at[k].n;
    }
    return status;
}

static void
free_lists(struct lists *lists)
{
    for (size_t k = 0; k < lists->nkinds; k++)
        cm_listing_fini(&lists->at[k]);
}

/* The rules after the cursor, at most limit; *more_r: there are further ones.
 */
static size_t
choose(const struct lists *lists, const struct cursor *cursor, size_t limit,
       struct shown *shown, bool *more_r)
{
    size_t n = 0;
    *more_r = false;
    for (size_t k = 0; k < lists->nkinds; k++) {
        for (size_t i = 0; i < lists->at[k].n; i++) {
            const struct cm_listed *rule = &lists->at[k].docs[i];
            if (cursor && !is_after(k, rule, cursor))
                continue;
            *more_r = n == limit;
            if (*more_r)
                return n;
            shown[n] = (struct shown){.kind = k, .rule = rule};
            snprintf(shown[n].name, sizeof shown[n].name, "%s%s%s",
                     k == 0 ? "" : cm_kind_name(kinds[k]), k == 0 ? "" : ":",
                     rule->name);
            n++;
        }
    }
    return n;
}

static enum cm_status
print_page(struct cm_api *api, const struct shown *shown, size_t n, bool all,
           json_t *page, struct cm_err *err)
{
    const char **names = calloc(n + 1, sizeof *names);
    int64_t *hits = calloc(2 * n + 1, sizeof *hits);
    enum cm_status status = page && names && hits ? CM_OK : CM_ENOMEM;
    for (size_t i = 0; status == CM_OK && i < n; i++)
        names[i] = shown[i].name;
    if (status == CM_OK)
        status = cm_commit_hits(api->commits, names, n, hits, hits + n, err);
    for (size_t i = 0; status == CM_OK && i < n; i++)
        if (json_array_append_new(page, rule_json(api, &shown[i], all, hits[i],
                                                  hits[n + i])) != 0)
            status = CM_ENOMEM;
    free(names);
    free(hits);
    return status;
}

static void
answer(struct cm_api *api, const struct cm_request *req,
       const struct lists *lists, const struct cursor *cursor, size_t limit,
       struct cm_response *res)
{
    char next[CM_CURSOR_BYTES];
    struct cm_err err;
    bool more = false, all = lists->nkinds > 1;
    struct shown *shown = calloc(limit, sizeof *shown);
    json_t *page = json_array();
    size_t n = shown ? choose(lists, cursor, limit, shown, &more) : 0;
    enum cm_status status =
        shown ? print_page(api, shown, n, all, page, &err) : CM_ENOMEM;
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        json_decref(page);
        free(shown);
        return;
    }
    if (more)
        snprintf(next, sizeof next, "%zu.%" PRId64 ".%s", shown[n - 1].kind,
                 shown[n - 1].rule->doc.ord, shown[n - 1].rule->name);
    json_t *json =
        json_pack("{s:o, s:I, s:s?}", "rules", page, "total",
                  (json_int_t)lists->total, "next", more ? next : NULL);
    if (json && all)
        json_object_set_new(json, "order",
                            json_pack("[s, s, s, s, s]", "inbox", "rule",
                                      "fault", "trigger", "effect"));
    cm_response_json(res, 200, json);
    free(shown);
}

/* ?face=own, or all; false: res is the answer. */
static bool
read_face(const struct cm_request *req, struct lists *lists,
          struct cm_response *res)
{
    const char *face = cm_target_param(&req->target, "face");
    lists->nkinds = face && strcmp(face, "all") == 0 ? NKINDS : 1;
    if (!face || strcmp(face, "all") == 0 || strcmp(face, "own") == 0)
        return true;
    cm_response_fail(res, req, 400, "face must be own or all");
    return false;
}

void
cm_api_rule_list(struct cm_api *api, const struct cm_request *req,
                 struct cm_response *res)
{
    static const char *const known[] = {"limit", "after", "face", NULL};
    const char *after = cm_target_param(&req->target, "after");
    struct lists lists = {0};
    struct cursor cursor;
    struct cm_err err;
    int limit;
    if (!cm_own_query(req, known, res) || !read_face(req, &lists, res) ||
        !cm_own_number(req, "limit", 1, CM_LIST_LIMIT_MAX, CM_LIST_LIMIT,
                       &limit, res))
        return;
    if (after && !read_cursor(after, &cursor)) {
        cm_response_fail(res, req, 400,
                         "after must be the next of an earlier answer");
        return;
    }
    enum cm_status status = read_lists(api, &lists, &err);
    if (status == CM_OK)
        answer(api, req, &lists, after ? &cursor : NULL, (size_t)limit, res);
    else
        cm_api_failed(api, req, res, status, &err, false);
    free_lists(&lists);
}
