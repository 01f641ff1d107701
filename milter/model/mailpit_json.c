/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Not by a table of members like the other documents: names are matched without
 * case here, complaints have Mailpit's words, and the first one is all that a
 * client gets. Stricter than Mailpit, which ignores members that it does not
 * know, so that "Recipients" silently resets Recipient there.
 */
#include "milter/model/mailpit_json.h"
#include "milter/model/ascii.h"

#include <jansson.h>
#include <string.h>

static enum cm_status
refuse(struct cm_err *err, const char *name, const char *what)
{
    enum cm_status status = cm_err_set(err, CM_EINVAL, "%.160s %s", name, what);
    if (err)
        cm_ascii_make_printable(err->msg);
    return status;
}

/* Which of n names (ended by NULL) each member of the object is; found[i]
 * becomes the value of the i-th, NULL when absent or null. */
static enum cm_status
sort_members(const json_t *object, const char *const *names,
             const json_t **found, struct cm_err *err)
{
    const char *key;
    json_t *value;
    bool seen[CM_TRIGGER_COUNT] = {false};
    json_object_foreach((json_t *)object, key, value)
    {
        size_t i = 0;
        while (names[i] && !cm_ascii_equal(names[i], key))
            i++;
        if (!names[i])
            return refuse(err, key, "is not a member of this document");
        if (seen[i])
            return refuse(err, names[i], "is given twice");
        seen[i] = true;
        found[i] = json_is_null(value) ? NULL : value;
    }
    return CM_OK;
}

enum cm_status
cm_trigger_read(struct cm_trigger_setting *setting_r, enum cm_trigger trigger,
                const struct json_t *json, struct cm_err *err)
{
    static const char *const names[] = {"ErrorCode", "Probability", NULL};
    const json_t *found[2] = {NULL, NULL};
    struct cm_triggers defaults;
    cm_triggers_default(&defaults);
    if (!json_is_object(json))
        return refuse(err, cm_trigger_name(trigger), "must be an object");
    enum cm_status status = sort_members(json, names, found, err);
    for (int i = 0; i < 2 && status == CM_OK; i++) {
        if (found[i] && !json_is_integer(found[i]))
            status = refuse(err, names[i], "must be an integer");
    }
    if (status != CM_OK)
        return status;
    json_int_t code = json_integer_value(found[0]);
    json_int_t percent = json_integer_value(found[1]);
    if (code == 0)
        code = defaults.at[trigger].code;
    const char *fault = cm_trigger_check(code, percent);
    if (fault)
        return cm_err_set(err, CM_EINVAL, "%s", fault);
    *setting_r = (struct cm_trigger_setting){(int)code, (int)percent};
    return CM_OK;
}

enum cm_status
cm_triggers_read(struct cm_triggers *triggers_r, const struct json_t *json,
                 struct cm_err *err)
{
    const char *names[CM_TRIGGER_COUNT + 1] = {NULL};
    const json_t *found[CM_TRIGGER_COUNT] = {NULL};
    struct cm_triggers triggers;
    cm_triggers_default(&triggers);
    for (int i = 0; i < CM_TRIGGER_COUNT; i++)
        names[i] = cm_trigger_name((enum cm_trigger)i);
    if (!json_is_object(json))
        return cm_err_set(err, CM_EINVAL, "the body must be a JSON object");
    enum cm_status status = sort_members(json, names, found, err);
    for (int i = 0; i < CM_TRIGGER_COUNT && status == CM_OK; i++) {
        if (found[i])
            status = cm_trigger_read(&triggers.at[i], (enum cm_trigger)i,
                                     found[i], err);
    }
    if (status == CM_OK)
        *triggers_r = triggers;
    return status;
}

struct json_t *
cm_trigger_json(const struct cm_trigger_setting *setting)
{
    return json_pack("{s:i, s:i}", "ErrorCode", setting->code, "Probability",
                     setting->percent);
}

struct json_t *
cm_triggers_json(const struct cm_triggers *triggers)
{
    json_t *json = json_object();
    for (int i = 0; json && i < CM_TRIGGER_COUNT; i++) {
        if (json_object_set_new(json, cm_trigger_name((enum cm_trigger)i),
                                cm_trigger_json(&triggers->at[i])) != 0) {
            json_decref(json);
            json = NULL;
        }
    }
    return json;
}
