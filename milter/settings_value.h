/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SETTINGS_VALUE_H
#define CM_SETTINGS_VALUE_H

#include "milter/err.h"
#include "milter/settings_check.h"

#include <stddef.h>
#include <stdint.h>

struct cm_settings;
struct cm_string_list;

/*
 * One setting's value: from text to the member of struct cm_settings, checked.
 * Default, file and environment all pass here, so a default cannot be what a
 * file may not say.
 */
enum cm_setting_type {
    CM_SETTING_BOOL,
    CM_SETTING_INT,
    CM_SETTING_MODE, /* text in the file: libconfig knows no octal numbers */
    CM_SETTING_STRING,
    CM_SETTING_LIST,
    CM_SETTING_SECRET /* a string that the file must not hold */
};

struct cm_setting {
    const char *path; /* "redis.address" */
    enum cm_setting_type type;
    size_t offset;            /* in struct cm_settings */
    const char *default_text; /* as in the environment */
    int64_t min, max;         /* CM_SETTING_INT */
    cm_settings_check_fn *check;
    const char *const *choices; /* NULL-terminated; NULL: anything */
};

/* cm_settings_table - every setting, *n_r of them; static. */
const struct cm_setting *cm_settings_table(size_t *n_r);

/* Where a value came from; neither file nor variable: it is the default. */
struct cm_setting_origin {
    const char *file;
    unsigned line;
    const char *variable;
};

/* cm_setting_fault - CM_EINVAL with "file:line: setting: what", or
 * "VARIABLE: what". what never holds a value: it might be a secret. */
enum cm_status cm_setting_fault(struct cm_err *err,
                                const struct cm_setting_origin *from,
                                const char *name, const char *what);

/* cm_setting_member - where the value lives in to. */
void *cm_setting_member(struct cm_settings *to, const struct cm_setting *def);

/*
 * cm_setting_set - give def the value that text stands for: "true", "10000",
 * "0660", a string, or a comma-separated list, which replaces the one before.
 * CM_OK; CM_EINVAL as cm_setting_fault; CM_ENOMEM. On failure a list may hold
 * a part: the caller gives up the whole.
 */
enum cm_status cm_setting_set(struct cm_settings *to,
                              const struct cm_setting *def, const char *text,
                              const struct cm_setting_origin *from,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_setting_add - one more entry of a list. As cm_setting_set. */
enum cm_status cm_setting_add(struct cm_settings *to,
                              const struct cm_setting *def, const char *text,
                              const struct cm_setting_origin *from,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_setting_clear - free the value; a secret is wiped first. */
void cm_setting_clear(struct cm_settings *to, const struct cm_setting *def);

#endif
