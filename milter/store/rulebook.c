/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/rulebook.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"
#include "milter/model/ruleset.h"
#include "milter/store/map.h"

#include <jansson.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* rule_r is to be freed with cm_rule_fini after CM_OK. */
static enum cm_status
compile(struct cm_rule *rule_r, const char *id, const char *text, size_t len,
        unsigned address_flags, struct cm_err *err)
{
    struct cm_problems problems;
    json_t *json = NULL;
    enum cm_status st = cm_json_parse(&json, text, len, err);
    if (st != CM_OK)
        return st;
    cm_problems_init(&problems);
    st = cm_rule_compile(rule_r, id, json, address_flags, &problems);
    if (st == CM_EINVAL)
        cm_err_set(err, st, "%s", cm_problems_first(&problems));
    json_decref(json);
    return st;
}

enum cm_status
cm_rule_doc_new(struct cm_rule_doc **doc_r, const char *id, int64_t ord,
                const char *text, size_t len, unsigned address_flags,
                struct cm_err *err)
{
    struct cm_rule rule;
    enum cm_status st = compile(&rule, id, text, len, address_flags, err);
    if (st != CM_OK)
        return st;
    cm_rule_fini(&rule);
    struct cm_rule_doc *doc = malloc(sizeof *doc + len + 1);
    if (!doc)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    doc->ord = ord;
    doc->len = len;
    memcpy(doc->text, text, len);
    doc->text[len] = '\0';
    *doc_r = doc;
    return CM_OK;
}

struct gathering {
    const struct cm_map_entry **entries;
    size_t n;
};

static bool
gather(void *arg, const struct cm_map_entry *entry)
{
    struct gathering *all = arg;
    all->entries[all->n++] = entry;
    return true;
}

static int
by_order(const void *a, const void *b)
{
    const struct cm_map_entry *one = *(const struct cm_map_entry *const *)a;
    const struct cm_map_entry *two = *(const struct cm_map_entry *const *)b;
    const struct cm_rule_doc *first = one->value, *second = two->value;
    if (first->ord != second->ord)
        return first->ord < second->ord ? -1 : 1;
    return strcmp(one->key, two->key);
}

enum cm_status
cm_rulebook_compile(struct cm_ruleset **set_r, struct cm_map *rules,
                    unsigned address_flags)
{
    struct gathering all = {NULL, 0};
    size_t count = cm_map_count(rules), done = 0;
    if (count == 0) {
        *set_r = NULL;
        return CM_OK;
    }
    enum cm_status st = CM_ENOMEM;
    struct cm_rule *compiled = calloc(count, sizeof *compiled);
    all.entries = calloc(count, sizeof *all.entries);
    if (!compiled || !all.entries)
        goto out;
    /* The writer alone changes the map, and this is the writer: the entries
     * stay where they are after the visit. */
    cm_map_each(rules, gather, &all);
    qsort(all.entries, all.n, sizeof *all.entries, by_order);
    for (size_t i = 0; i < all.n; i++) {
        const struct cm_rule_doc *doc = all.entries[i]->value;
        st = compile(&compiled[done], all.entries[i]->key, doc->text, doc->len,
                     address_flags, NULL);
        if (st == CM_ENOMEM)
            goto out;
        if (st == CM_OK)
            done++; /* else it was sound when it came, and is left out */
    }
    st = cm_ruleset_new(set_r, compiled, done); /* takes compiled */
    compiled = NULL;
out:
    for (size_t i = 0; compiled && i < done; i++)
        cm_rule_fini(&compiled[i]);
    free(compiled);
    free(all.entries);
    return st;
}
