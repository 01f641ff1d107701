/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text is the common form because two of the three sources have nothing else;
 * the file's typed values are few and are turned into text by their reader.
 */
#include "milter/settings_value.h"
#include "milter/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MAX 4096

void *
cm_setting_member(struct cm_settings *to, const struct cm_setting *def)
{
    return (char *)to + def->offset;
}

enum cm_status
cm_setting_fault(struct cm_err *err, const struct cm_setting_origin *from,
                 const char *name, const char *what)
{
    if (from->variable)
        return cm_err_set(err, CM_EINVAL, "%s: %s", from->variable, what);
    if (!from->file)
        return cm_err_set(err, CM_EINVAL, "%s: %s", name, what);
    return cm_err_set(err, CM_EINVAL, "%s:%u: %s: %s", from->file, from->line,
                      name, what);
}

static void
list_clear(struct cm_string_list *list)
{
    while (list->n > 0)
        free(list->at[--list->n]);
}

static const char *
set_bool(bool *slot, const char *text)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return "must be true or false";
    *slot = text[0] == 't';
    return NULL;
}

static const char *
set_int(int64_t *slot, const struct cm_setting *def, const char *text,
        char *what, size_t size)
{
    size_t sign = text[0] == '-';
    size_t digits = strspn(text + sign, "0123456789");
    long long n;
    errno = 0;
    n = strtoll(text, NULL, 10);
    if (digits == 0 || text[sign + digits] || errno || n < def->min ||
        n > def->max) {
        snprintf(what, size, "must be an integer from %lld to %lld",
                 (long long)def->min, (long long)def->max);
        return what;
    }
    *slot = n;
    return NULL;
}

static const char *
set_mode(int64_t *slot, const char *text)
{
    size_t digits = strspn(text, "01234567");
    long mode = strtol(text, NULL, 8);
    if (digits < 3 || digits > 4 || text[digits] || mode > 0777)
        return "must be octal permissions as text, \"0000\" to \"0777\"";
    *slot = mode;
    return NULL;
}

/* NULL when text may be this setting's value, else what may. */
static const char *
check_string(const struct cm_setting *def, const char *text, char *what,
             size_t size)
{
    size_t len = (size_t)snprintf(what, size, "must be");
    if (strlen(text) > TEXT_BYTES_MAX)
        return "is too long";
    if (def->check)
        return def->check(text);
    for (size_t i = 0; def->choices && def->choices[i]; i++) {
        const char *comma = def->choices[i + 1] ? "," : " or";
        if (strcmp(def->choices[i], text) == 0)
            return NULL;
        len += (size_t)snprintf(what + len, size - len, "%s \"%s\"",
                                i == 0 ? "" : comma, def->choices[i]);
    }
    return def->choices ? what : NULL;
}

enum cm_status
cm_setting_add(struct cm_settings *to, const struct cm_setting *def,
               const char *text, const struct cm_setting_origin *from,
               struct cm_err *err)
{
    struct cm_string_list *list = cm_setting_member(to, def);
    char buf[96];
    const char *what = check_string(def, text, buf, sizeof buf);
    if (!what && list->n == CM_SETTINGS_LIST_MAX) {
        snprintf(buf, sizeof buf, "must not have more than %d entries",
                 CM_SETTINGS_LIST_MAX);
        what = buf;
    }
    if (what)
        return cm_setting_fault(err, from, def->path, what);
    list->at[list->n] = strdup(text);
    if (!list->at[list->n])
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    list->n++;
    return CM_OK;
}

/* Blanks around entries and empty entries do not count. */
static enum cm_status
set_list(struct cm_settings *to, const struct cm_setting *def, const char *text,
         const struct cm_setting_origin *from, struct cm_err *err)
{
    enum cm_status status = CM_OK;
    char *rest = NULL;
    char *copy = strdup(text);
    if (!copy)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    list_clear(cm_setting_member(to, def));
    for (char *item = strtok_r(copy, ",", &rest); item && status == CM_OK;
         item = strtok_r(NULL, ",", &rest)) {
        size_t n;
        item += strspn(item, " \t");
        n = strlen(item);
        while (n > 0 && strchr(" \t", item[n - 1]))
            item[--n] = '\0';
        if (n > 0)
            status = cm_setting_add(to, def, item, from, err);
    }
    free(copy);
    return status;
}

static enum cm_status
set_string(struct cm_settings *to, const struct cm_setting *def,
           const char *text, struct cm_err *err)
{
    char **slot = cm_setting_member(to, def);
    char *copy = strdup(text);
    if (!copy)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    cm_setting_clear(to, def);
    *slot = copy;
    return CM_OK;
}

enum cm_status
cm_setting_set(struct cm_settings *to, const struct cm_setting *def,
               const char *text, const struct cm_setting_origin *from,
               struct cm_err *err)
{
    void *slot = cm_setting_member(to, def);
    char buf[96];
    const char *what = NULL;
    switch (def->type) {
    case CM_SETTING_LIST:
        return set_list(to, def, text, from, err);
    case CM_SETTING_BOOL:
        what = set_bool(slot, text);
        break;
    case CM_SETTING_INT:
        what = set_int(slot, def, text, buf, sizeof buf);
        break;
    case CM_SETTING_MODE:
        what = set_mode(slot, text);
        break;
    case CM_SETTING_STRING:
    case CM_SETTING_SECRET:
        what = check_string(def, text, buf, sizeof buf);
        if (!what)
            return set_string(to, def, text, err);
        break;
    }
    return what ? cm_setting_fault(err, from, def->path, what) : CM_OK;
}

void
cm_setting_clear(struct cm_settings *to, const struct cm_setting *def)
{
    char **text;
    switch (def->type) {
    case CM_SETTING_BOOL:
    case CM_SETTING_INT:
    case CM_SETTING_MODE:
        return;
    case CM_SETTING_LIST:
        list_clear(cm_setting_member(to, def));
        return;
    case CM_SETTING_SECRET:
    case CM_SETTING_STRING:
        text = cm_setting_member(to, def);
        if (*text && def->type == CM_SETTING_SECRET)
            explicit_bzero(*text, strlen(*text));
        free(*text);
        *text = NULL;
        return;
    }
}
