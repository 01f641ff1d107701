/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reading side of a document that has passed its table. Readers never fail:
 * what is absent reads as nothing, and the complaint about it stands already.
 */
#include "milter/model/draft.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void
cm_draft_init(struct cm_draft *draft, const struct json_t *given,
              const struct cm_member *table, const char *prefix, unsigned flags,
              struct cm_problems *problems)
{
    *draft = (struct cm_draft){
        .given = given,
        .flags = flags,
        .problems = problems,
        .problems_before = problems->n + problems->dropped,
    };
    snprintf(draft->prefix, sizeof draft->prefix, "%s", prefix);
    draft->status = cm_members_normalize(&draft->doc, given, table,
                                         draft->prefix, problems);
}

void
cm_draft_fini(struct cm_draft *draft)
{
    json_decref(draft->doc);
    draft->doc = NULL;
}

enum cm_status
cm_draft_status(const struct cm_draft *draft)
{
    const struct cm_problems *p = draft->problems;
    if (draft->status != CM_OK)
        return draft->status;
    return p->n + p->dropped > draft->problems_before ? CM_EINVAL : CM_OK;
}

bool
cm_draft_is_given(const struct cm_draft *draft, const char *name)
{
    const json_t *value = json_object_get(draft->given, name);
    return value && !json_is_null(value);
}

const struct json_t *
cm_draft_member(const struct cm_draft *draft, const char *name)
{
    return json_object_get(draft->doc, name);
}

double
cm_draft_number(const struct cm_draft *draft, const char *name)
{
    return json_number_value(cm_draft_member(draft, name));
}

int64_t
cm_draft_rounded(const struct cm_draft *draft, const char *name)
{
    return (int64_t)llround(cm_draft_number(draft, name));
}

int64_t
cm_draft_integer(const struct cm_draft *draft, const char *name)
{
    return json_integer_value(cm_draft_member(draft, name));
}

bool
cm_draft_flag(const struct cm_draft *draft, const char *name)
{
    return json_is_true(cm_draft_member(draft, name));
}

const char *
cm_draft_text(const struct cm_draft *draft, const char *name)
{
    return json_string_value(cm_draft_member(draft, name));
}

unsigned
cm_draft_choice(const struct cm_draft *draft, const char *name,
                const char *const *names)
{
    const char *s = cm_draft_text(draft, name);
    for (unsigned i = 0; s && names[i]; i++) {
        if (strcmp(s, names[i]) == 0)
            return i;
    }
    return 0;
}

unsigned
cm_draft_choices(const struct cm_draft *draft, const char *name,
                 const char *const *names)
{
    const json_t *list = cm_draft_member(draft, name);
    unsigned bits = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_array_get(list, i));
        for (unsigned j = 0; s && names[j]; j++) {
            if (strcmp(s, names[j]) == 0)
                bits |= 1u << j;
        }
    }
    return bits;
}

char *
cm_draft_dup(struct cm_draft *draft, const char *s)
{
    char *copy = s ? strdup(s) : NULL;
    if (s && !copy)
        draft->status = CM_ENOMEM;
    return copy;
}
