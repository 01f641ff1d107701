/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The filter knows only rules, and here is where it stops to matter which API
 * one was made by: a table of the kinds, each with the function that compiles
 * it. A kind's place in the table is its face, and its rank in the order of
 * evaluation.
 */
#include "milter/store/rulebook.h"
#include "milter/model/json.h"
#include "milter/model/localstack_json.h"
#include "milter/model/mailpit_json.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"
#include "milter/model/ruleset.h"
#include "milter/store/map.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a document of each kind becomes. CM_NOTFOUND: nothing, for now. */
typedef enum cm_status compile_fn(struct cm_rule *rule_r, const char *name,
                                  const json_t *json, unsigned address_flags,
                                  struct cm_problems *problems);

static enum cm_status
compile_rule(struct cm_rule *rule_r, const char *name, const json_t *json,
             unsigned address_flags, struct cm_problems *problems)
{
    return cm_rule_compile(rule_r, name, json, address_flags, problems);
}

static enum cm_status
compile_fault(struct cm_rule *rule_r, const char *name, const json_t *json,
              unsigned address_flags, struct cm_problems *problems)
{
    return cm_localstack_compile(rule_r, name, json, "", address_flags,
                                 problems);
}

static enum cm_status
compile_trigger(struct cm_rule *rule_r, const char *name, const json_t *json,
                unsigned address_flags, struct cm_problems *problems)
{
    enum cm_trigger trigger;
    struct cm_trigger_setting setting;
    struct cm_err err;
    (void)address_flags;
    if (cm_trigger_find(name, &trigger) != CM_OK) {
        cm_problem_add(problems, "", "there is no trigger of this name");
        return CM_EINVAL;
    }
    if (cm_trigger_read(&setting, trigger, json, &err) != CM_OK) {
        cm_problem_add(problems, "", "%s", err.msg);
        return CM_EINVAL;
    }
    return cm_trigger_compile(rule_r, trigger, &setting);
}

static enum cm_status
compile_effect(struct cm_rule *rule_r, const char *name, const json_t *json,
               unsigned address_flags, struct cm_problems *problems)
{
    (void)address_flags;
    if (strcmp(name, "latency") != 0) {
        cm_problem_add(problems, "", "there is no effect of this name");
        return CM_EINVAL;
    }
    return cm_localstack_effect(rule_r, json, problems);
}

static compile_fn *const compilers[] = {
    [CM_FACE_RULE] = compile_rule,
    [CM_FACE_FAULT] = compile_fault,
    [CM_FACE_TRIGGER] = compile_trigger,
    [CM_FACE_EFFECT] = compile_effect,
};
#define NFACES (sizeof compilers / sizeof compilers[0])

const char *const cm_rulebook_kinds[] = {"rule", "fault", "trigger", "effect",
                                         NULL};

const char *
cm_rulebook_name(const char *key, enum cm_face *face_r)
{
    for (size_t i = 0; i < NFACES; i++) {
        size_t len = strlen(cm_rulebook_kinds[i]);
        if (strncmp(key, cm_rulebook_kinds[i], len) != 0 || key[len] != ':')
            continue;
        if (face_r)
            *face_r = (enum cm_face)i;
        return key + len + 1;
    }
    return NULL;
}

enum cm_status
cm_rulebook_rule(struct cm_rule *rule_r, const char *key, const char *text,
                 size_t len, unsigned address_flags, struct cm_err *err)
{
    struct cm_problems problems;
    enum cm_face face = CM_FACE_RULE;
    json_t *json = NULL;
    const char *name = cm_rulebook_name(key, &face);
    enum cm_status st = cm_json_parse(&json, text, len, err);
    if (st != CM_OK)
        return st;
    cm_problems_init(&problems);
    st = compilers[face](rule_r, name, json, address_flags, &problems);
    if (st == CM_EINVAL)
        cm_err_set(err, st, "%s", cm_problems_first(&problems));
    json_decref(json);
    return st;
}

enum cm_status
cm_rule_doc_new(struct cm_rule_doc **doc_r, const char *key, int64_t ord,
                const char *text, size_t len, unsigned address_flags,
                struct cm_err *err)
{
    struct cm_rule rule;
    enum cm_status st =
        cm_rulebook_rule(&rule, key, text, len, address_flags, err);
    if (st == CM_OK)
        cm_rule_fini(&rule);
    else if (st != CM_NOTFOUND)
        return st;
    struct cm_rule_doc *doc = malloc(sizeof *doc + len + 1);
    if (!doc)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    (void)cm_rulebook_name(key, &doc->face);
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
    if (first->face != second->face)
        return first->face < second->face ? -1 : 1;
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
        st = cm_rulebook_rule(&compiled[done], all.entries[i]->key, doc->text,
                              doc->len, address_flags, NULL);
        if (st == CM_ENOMEM)
            goto out;
        if (st == CM_OK)
            done++; /* else it has nothing to say */
    }
    st = CM_OK;
    *set_r = NULL;
    if (done > 0) {
        st = cm_ruleset_new(set_r, compiled, done); /* takes compiled */
        compiled = NULL;
    }
out:
    for (size_t i = 0; compiled && i < done; i++)
        cm_rule_fini(&compiled[i]);
    free(compiled);
    free(all.entries);
    return st;
}
