/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Header names are few, whatever the number of rules: a sorted list without
 * doubles answers in a handful of comparisons. Mutations count while they are
 * live: a rule in shadow mode changes nothing, and so needs nothing to change.
 * Steps of a sequence are no mutations (fault_steps_json.c refuses them).
 */
#include "milter/model/watch.h"
#include "milter/model/ascii.h"

#include <stdlib.h>

static const struct cm_fault_mutate *
mutation_of(const struct cm_rule *rule)
{
    return rule->fault.kind == CM_FAULT_MUTATE && rule->mode == CM_RULE_LIVE
               ? &rule->fault.u.mutate
               : NULL;
}

static void
note_names(struct cm_watch *watch, const struct cm_rule *rule)
{
    const struct cm_fault_mutate *mutate = mutation_of(rule);
    for (size_t i = 0; i < rule->match.nheaders; i++)
        watch->names[watch->nnames++] = rule->match.headers[i].name;
    if (mutate && mutate->how == CM_MUTATE_DROP_HEADER)
        watch->names[watch->nnames++] = mutate->name;
}

int64_t
cm_watch_body(const struct cm_rule *rule)
{
    const struct cm_fault_mutate *mutate = mutation_of(rule);
    if (!mutate)
        return 0;
    switch (mutate->how) {
    case CM_MUTATE_TRUNCATE_BODY:
        return mutate->n;
    case CM_MUTATE_FLIP_BITS:
        return INT64_MAX;
    case CM_MUTATE_DROP_HEADER:
    case CM_MUTATE_ADD_HEADER:
        break;
    }
    return 0;
}

static void
note_bytes(struct cm_watch *watch, const struct cm_rule *rule)
{
    int64_t bytes = cm_watch_body(rule);
    if (bytes > watch->body_bytes)
        watch->body_bytes = bytes;
    if (rule->match.size.given && rule->stage == CM_STAGE_MESSAGE)
        watch->size = true;
}

static int
compare(const void *a, const void *b)
{
    return cm_ascii_compare(*(const char *const *)a, *(const char *const *)b);
}

static void
sort_names(struct cm_watch *watch)
{
    size_t n = 0;
    if (watch->nnames == 0)
        return;
    qsort(watch->names, watch->nnames, sizeof *watch->names, compare);
    for (size_t i = 0; i < watch->nnames; i++)
        if (n == 0 || !cm_ascii_equal(watch->names[n - 1], watch->names[i]))
            watch->names[n++] = watch->names[i];
    watch->nnames = n;
}

enum cm_status
cm_watch_init(struct cm_watch *watch, const struct cm_rule *rules,
              size_t nrules)
{
    size_t most = 0;
    *watch = (struct cm_watch){.names = NULL};
    for (size_t i = 0; i < nrules; i++)
        most += rules[i].match.nheaders + 1; /* one for a header to drop */
    watch->names = calloc(most + 1, sizeof *watch->names);
    if (!watch->names)
        return CM_ENOMEM;
    for (size_t i = 0; i < nrules; i++) {
        if (!rules[i].enabled)
            continue;
        note_names(watch, &rules[i]);
        note_bytes(watch, &rules[i]);
    }
    sort_names(watch);
    return CM_OK;
}

void
cm_watch_fini(struct cm_watch *watch)
{
    free(watch->names);
    *watch = (struct cm_watch){.names = NULL};
}

bool
cm_watch_header(const struct cm_watch *watch, const char *name)
{
    return watch->nnames > 0 && bsearch(&name, watch->names, watch->nnames,
                                        sizeof *watch->names, compare);
}
