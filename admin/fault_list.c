/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An edit moves rules from the stored and the given list into the result. What
 * is left of the stored list is deleted, what has no name yet is written, and
 * the rest is not touched: a rule that stays keeps its name and its hits.
 *
 * Names are made of the number of the list's last change, which no two edits
 * share, for a batch demands that it is still the last.
 */
#include "admin/fault_list.h"
#include "milter/model/json.h"
#include "milter/model/localstack_json.h"
#include "milter/model/problem.h"
#include "milter/model/rule.h"
#include "milter/store/batch.h"
#include "milter/store/listing.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_PLACE_LAST   ((int64_t)999999999999999) /* 15 digits */
#define CM_PLACE_MIDDLE (CM_PLACE_LAST / 2)
#define CM_NAME_BYTES   48

static void
rule_fini(struct cm_fault_rule *rule)
{
    free(rule->name);
    free(rule->text);
    free(rule->canonical);
    memset(rule, 0, sizeof *rule);
}

void
cm_fault_list_fini(struct cm_fault_list *list)
{
    for (size_t i = 0; i < list->n + list->nbroken; i++)
        rule_fini(&list->rules[i]);
    free(list->rules);
    memset(list, 0, sizeof *list);
}

static enum cm_status
list_init(struct cm_fault_list *list, size_t room)
{
    *list = (struct cm_fault_list){.rules = NULL};
    list->rules = calloc(room > 0 ? room : 1, sizeof *list->rules);
    return list->rules ? CM_OK : CM_ENOMEM;
}

/* --- equality --- */

/* The rules of a list, sorted by what they say. Borrowed. */
struct lookup {
    const struct cm_fault_rule **sorted;
    size_t n;
};

static int
compare(const struct cm_fault_rule *a, const struct cm_fault_rule *b)
{
    return strcmp(a->canonical, b->canonical);
}

/* Equal rules in the order of the list. */
static int
by_canonical(const void *a, const void *b)
{
    const struct cm_fault_rule *one = *(const struct cm_fault_rule *const *)a;
    const struct cm_fault_rule *two = *(const struct cm_fault_rule *const *)b;
    int order = compare(one, two);
    return order != 0 ? order : one < two ? -1 : one > two;
}

static enum cm_status
lookup_init(struct lookup *lookup, const struct cm_fault_list *list)
{
    lookup->n = list->n;
    lookup->sorted = calloc(list->n + 1, sizeof *lookup->sorted);
    if (!lookup->sorted)
        return CM_ENOMEM;
    for (size_t i = 0; i < list->n; i++)
        lookup->sorted[i] = &list->rules[i];
    qsort(lookup->sorted, lookup->n, sizeof *lookup->sorted, by_canonical);
    return CM_OK;
}

static int
by_key(const void *key, const void *entry)
{
    return compare(key, *(const struct cm_fault_rule *const *)entry);
}

/* Marks the rules of a list that equal one of the other. */
static enum cm_status
mark_twins(struct cm_fault_list *list, const struct cm_fault_list *other)
{
    struct lookup lookup;
    if (lookup_init(&lookup, other) != CM_OK)
        return CM_ENOMEM;
    for (size_t i = 0; i < list->n; i++)
        list->rules[i].twin =
            lookup.n > 0 && bsearch(&list->rules[i], lookup.sorted, lookup.n,
                                    sizeof *lookup.sorted, by_key) != NULL;
    free(lookup.sorted);
    return CM_OK;
}

/* --- from a request --- */

static enum cm_status
parse_rule(struct cm_fault_rule *to, const json_t *json, size_t place,
           unsigned flags, struct cm_problems *problems)
{
    struct cm_rule rule;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "[%zu].", place);
    enum cm_status status =
        cm_localstack_compile(&rule, "new", json, prefix, flags, problems);
    if (status != CM_OK)
        return status;
    cm_rule_fini(&rule);
    to->place = CM_PLACE_USUAL;
    to->text = cm_json_dump(json, &to->len);
    to->canonical = cm_json_canonical(json);
    return to->text && to->canonical ? CM_OK : CM_ENOMEM;
}

static enum cm_status
check_twins(const struct cm_fault_list *list, struct cm_problems *problems)
{
    struct lookup lookup;
    size_t before = problems->n;
    if (lookup_init(&lookup, list) != CM_OK)
        return CM_ENOMEM;
    for (size_t i = 1; i < lookup.n; i++) {
        char path[32];
        size_t first = (size_t)(lookup.sorted[i - 1] - list->rules);
        size_t again = (size_t)(lookup.sorted[i] - list->rules);
        if (compare(lookup.sorted[i - 1], lookup.sorted[i]) != 0)
            continue;
        snprintf(path, sizeof path, "[%zu]", again);
        cm_problem_add(problems, path, "%s must not equal [%zu]", path, first);
    }
    free(lookup.sorted);
    return problems->n > before ? CM_EINVAL : CM_OK;
}

enum cm_status
cm_fault_list_parse(struct cm_fault_list *list_r, const struct json_t *json,
                    unsigned flags, struct cm_problems *problems)
{
    size_t n = json_array_size(json);
    enum cm_status status = list_init(list_r, n);
    if (status != CM_OK)
        return status;
    if (!json_is_array(json)) {
        cm_problem_add(problems, "", "body must be an array of rules");
        return CM_EINVAL;
    }
    if (n > CM_FAULT_LIST_MAX) {
        cm_problem_add(problems, "", "body must have at most %d rules",
                       CM_FAULT_LIST_MAX);
        return CM_EINVAL;
    }
    while (list_r->n < n) {
        size_t i = list_r->n++;
        enum cm_status one = parse_rule(
            &list_r->rules[i], json_array_get(json, i), i, flags, problems);
        if (one == CM_ENOMEM)
            return one;
        if (one != CM_OK)
            status = one;
    }
    return status == CM_OK ? check_twins(list_r, problems) : status;
}

/* --- from Redis --- */

/* What is no JSON object is kept without a text: broken. */
static enum cm_status
take_stored(struct cm_fault_rule *to, struct cm_listed *from)
{
    json_t *json = NULL;
    *to = (struct cm_fault_rule){.name = from->name, .place = from->doc.ord};
    from->name = NULL;
    if (!from->doc.text)
        return CM_OK;
    enum cm_status status =
        cm_json_parse(&json, from->doc.text, from->doc.len, NULL);
    if (status == CM_OK && json_is_object(json)) {
        to->canonical = cm_json_canonical(json);
        to->text = from->doc.text;
        to->len = from->doc.len;
        from->doc.text = NULL;
        status = to->canonical ? CM_OK : CM_ENOMEM;
    }
    json_decref(json);
    return status == CM_ENOMEM ? status : CM_OK;
}

static enum cm_status
take_listing(struct cm_fault_list *list, struct cm_listing *listing)
{
    size_t end = listing->n;
    for (size_t i = 0; i < listing->n; i++) {
        struct cm_fault_rule rule;
        enum cm_status status = take_stored(&rule, &listing->docs[i]);
        if (status != CM_OK) {
            rule_fini(&rule);
            /* Close the gap for fini. */
            memmove(&list->rules[list->n], &list->rules[end],
                    list->nbroken * sizeof rule);
            return status;
        }
        if (rule.text) {
            list->rules[list->n++] = rule;
        } else {
            list->rules[--end] = rule;
            list->nbroken++;
        }
    }
    return CM_OK;
}

enum cm_status
cm_fault_list_read(struct cm_commits *commits, struct cm_fault_list *list_r,
                   struct cm_err *err)
{
    struct cm_listing listing;
    *list_r = (struct cm_fault_list){.rules = NULL};
    enum cm_status status =
        cm_commit_read(commits, CM_KIND_FAULT, &listing, err);
    if (status != CM_OK)
        return status;
    status = list_init(list_r, listing.n);
    list_r->at = listing.at;
    if (status == CM_OK)
        status = take_listing(list_r, &listing);
    cm_listing_fini(&listing);
    return status == CM_OK ? CM_OK : cm_err_set(err, status, "out of memory");
}

/* --- edits --- */

static void
move(struct cm_fault_list *to, struct cm_fault_rule *rule)
{
    to->rules[to->n++] = *rule;
    memset(rule, 0, sizeof *rule);
}

static void
move_all(struct cm_fault_list *to, struct cm_fault_list *from)
{
    for (size_t i = 0; i < from->n; i++)
        move(to, &from->rules[i]);
}

static void
move_without_twins(struct cm_fault_list *to, struct cm_fault_list *from)
{
    for (size_t i = 0; i < from->n; i++) {
        if (!from->rules[i].twin)
            move(to, &from->rules[i]);
    }
}

/* When a list has no room left at an end. */
static void
renumber(struct cm_fault_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        list->rules[i].place = CM_PLACE_MIDDLE + (int64_t)i;
        list->rules[i].moved = true;
    }
}

/* The new rules of a list, those without a name, all stand before the others or
 * all behind them. */
static void
place_new(struct cm_fault_list *list, size_t nnew, bool before)
{
    size_t nold = list->n - nnew;
    if (nold == 0 || nnew == 0)
        return; /* each behind the one before it, as it is written */
    struct cm_fault_rule *first = &list->rules[before ? 0 : nold];
    int64_t low = list->rules[before ? nnew : 0].place;
    int64_t high = list->rules[before ? list->n - 1 : nold - 1].place;
    int64_t from = before ? low - (int64_t)nnew : high + 1;
    if (from < 1 || from > CM_PLACE_LAST - (int64_t)nnew) {
        renumber(list);
        return;
    }
    for (size_t i = 0; i < nnew; i++)
        first[i].place = from + (int64_t)i;
}

static enum cm_status
check_size(const struct cm_fault_list *list, struct cm_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < list->n; i++)
        bytes += list->rules[i].len;
    if (list->n > CM_FAULT_LIST_MAX)
        return cm_err_set(err, CM_EINVAL,
                          "the list would have %zu rules, at most %d are "
                          "allowed",
                          list->n, CM_FAULT_LIST_MAX);
    if (bytes > CM_FAULT_LIST_BYTES_MAX)
        return cm_err_set(err, CM_EINVAL,
                          "the list would have %zu bytes, at most %zu are "
                          "allowed",
                          bytes, CM_FAULT_LIST_BYTES_MAX);
    return CM_OK;
}

enum cm_status
cm_fault_list_edit(struct cm_fault_list *result_r, struct cm_fault_list *stored,
                   struct cm_fault_list *given, enum cm_fault_list_edit edit,
                   struct cm_err *err)
{
    enum cm_status status = list_init(result_r, stored->n + given->n);
    result_r->at = stored->at;
    if (status == CM_OK)
        status = mark_twins(stored, given);
    if (status == CM_OK)
        status = mark_twins(given, stored);
    if (status != CM_OK)
        return cm_err_set(err, status, "out of memory");
    size_t nold = stored->n;
    switch (edit) {
    case CM_FAULT_LIST_REPLACE:
        move_all(result_r, given);
        stored->n += stored->nbroken; /* these go, too */
        stored->nbroken = 0;
        break;
    case CM_FAULT_LIST_APPEND:
        move_all(result_r, stored);
        move_without_twins(result_r, given);
        place_new(result_r, result_r->n - nold, false);
        break;
    case CM_FAULT_LIST_PREPEND:
        move_without_twins(result_r, given);
        move_all(result_r, stored);
        place_new(result_r, result_r->n - nold, true);
        break;
    case CM_FAULT_LIST_REMOVE:
        move_without_twins(result_r, stored);
        break;
    }
    return check_size(result_r, err);
}

/* --- to Redis --- */

struct plan {
    struct cm_change *changes;
    size_t n;
    char (*names)[CM_NAME_BYTES];
};

static void
plan_removals(struct plan *plan, const struct cm_fault_list *rest)
{
    for (size_t i = 0; i < rest->n; i++) {
        if (rest->rules[i].name)
            plan->changes[plan->n++] =
                (struct cm_change){.what = CM_CHANGE_DEL,
                                   .kind = CM_KIND_FAULT,
                                   .name = rest->rules[i].name,
                                   .rev = CM_REV_ANY};
    }
}

static void
plan_writes(struct plan *plan, const struct cm_fault_list *result)
{
    for (size_t i = 0; i < result->n; i++) {
        const struct cm_fault_rule *rule = &result->rules[i];
        snprintf(plan->names[i], CM_NAME_BYTES, "%" PRId64 ".%zu",
                 result->at + 1, i + 1);
        if (!rule->name || rule->moved)
            plan->changes[plan->n++] = (struct cm_change){
                .what = CM_CHANGE_SET,
                .kind = CM_KIND_FAULT,
                .name = rule->name ? rule->name : plan->names[i],
                .doc = rule->text,
                .len = rule->len,
                .rev = CM_REV_ANY,
                .place = rule->place};
    }
}

/* The new rules have their names now. */
static enum cm_status
keep_names(struct cm_fault_list *result, const struct plan *plan)
{
    for (size_t i = 0; i < result->n; i++) {
        struct cm_fault_rule *rule = &result->rules[i];
        if (!rule->name)
            rule->name = strdup(plan->names[i]);
        if (!rule->name)
            return CM_ENOMEM;
    }
    return CM_OK;
}

enum cm_status
cm_fault_list_commit(struct cm_commits *commits, struct cm_fault_list *result,
                     const struct cm_fault_list *rest, struct cm_err *err)
{
    struct plan plan = {NULL, 0, NULL};
    enum cm_status status = CM_ENOMEM;
    plan.changes = calloc(1 + result->n + rest->n, sizeof *plan.changes);
    plan.names = calloc(result->n + 1, sizeof *plan.names);
    if (!plan.changes || !plan.names)
        goto out;
    plan.changes[plan.n++] = (struct cm_change){
        .what = CM_CHANGE_AT, .kind = CM_KIND_FAULT, .rev = result->at};
    plan_removals(&plan, rest);
    plan_writes(&plan, result);
    status = CM_OK;
    if (plan.n > 1)
        status = cm_commit_batch(commits, plan.changes, plan.n, &result->at,
                                 NULL, err);
    if (status == CM_OK)
        status = keep_names(result, &plan);
out:
    if (status == CM_ENOMEM)
        cm_err_set(err, status, "out of memory");
    free(plan.changes);
    free(plan.names);
    return status;
}
