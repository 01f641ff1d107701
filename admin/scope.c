/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/scope.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned scope;
} names[] = {
    {"read", CM_SCOPE_READ},
    {"write", CM_SCOPE_WRITE},
    {"halt", CM_SCOPE_HALT},
};
#define NSCOPES (sizeof names / sizeof names[0])

bool
cm_scopes_parse(const json_t *list, unsigned *scopes_r)
{
    *scopes_r = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        size_t k = 0;
        while (k < NSCOPES && text && strcmp(names[k].name, text) != 0)
            k++;
        if (!text || k == NSCOPES)
            return false;
        *scopes_r |= names[k].scope;
    }
    return json_is_array(list);
}

json_t *
cm_scopes_json(unsigned scopes)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < NSCOPES; i++)
        if (scopes & names[i].scope)
            json_array_append_new(list, json_string(names[i].name));
    return list;
}

void
cm_scopes_print(unsigned scopes, const char *between, char *out, unsigned cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < NSCOPES && n < cap; i++)
        if (scopes & names[i].scope)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? between : "",
                                  names[i].name);
}
