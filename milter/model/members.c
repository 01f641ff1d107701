/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One walk over a table serves every document, so that all of them are checked
 * with the same care and complain in the same words: those of the validator
 * that VaultSandbox uses (class-validator), because its SDKs' users know them.
 *
 * A JSON Schema was rejected: jansson has no validator, and its complaints
 * would not be these.
 */
#include "milter/model/members.h"
#include "milter/model/rfc3339.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CM_MEMBERS_LIST_BYTES 192

/* One member being looked at. */
struct look {
    const struct cm_member *member;
    const char *prefix;
    struct cm_problems *problems;
    enum cm_status status; /* CM_ENOMEM latches */
};

/* Each takes a value that is neither absent nor null and returns a new
 * reference to what is kept of it; NULL after a complaint, or without memory.
 */
typedef json_t *check_fn(struct look *look, const json_t *value);

static void complain(struct look *look, const char *fmt, ...) CM_PRINTF(2, 3);

/* The sentence is put together as "<prefix><what fmt says>". */
static void
complain(struct look *look, const char *fmt, ...)
{
    char path[sizeof look->problems->at[0].path];
    char sentence[sizeof look->problems->at[0].text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    snprintf(path, sizeof path, "%s%s", look->prefix, look->member->name);
    cm_problem_add(look->problems, path, "%s%s", look->prefix, sentence);
}

void
cm_member_problem(struct cm_problems *problems, const char *prefix,
                  const char *name, const char *fmt, ...)
{
    struct cm_member member = {.name = name};
    struct look look = {&member, prefix, problems, CM_OK};
    char sentence[sizeof problems->at[0].text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    complain(&look, "%s %s", name, sentence);
}

/* Takes what a jansson constructor returned; NULL means no memory there. */
static json_t *
made(struct look *look, json_t *json)
{
    if (!json)
        look->status = CM_ENOMEM;
    return json;
}

static json_t *
make_number(struct look *look, double number)
{
    const double exact = 9007199254740992.0; /* 2^53 */
    bool whole = fabs(number) <= exact && number == floor(number);
    return made(look,
                whole ? json_integer((json_int_t)number) : json_real(number));
}

static json_t *
check_boolean(struct look *look, const json_t *value)
{
    if (!json_is_boolean(value)) {
        complain(look, "%s must be a boolean value", look->member->name);
        return NULL;
    }
    return json_boolean(json_is_true(value));
}

static bool
in_range(struct look *look, double number)
{
    const struct cm_member *m = look->member;
    if (number < m->min)
        complain(look, "%s must not be less than %.15g", m->name, m->min);
    else if (number > m->max)
        complain(look, "%s must not be greater than %.15g", m->name, m->max);
    else
        return true;
    return false;
}

static json_t *
check_number(struct look *look, const json_t *value)
{
    if (!json_is_number(value)) {
        complain(look,
                 "%s must be a number conforming to the specified constraints",
                 look->member->name);
        return NULL;
    }
    double number = json_number_value(value);
    return in_range(look, number) ? make_number(look, number) : NULL;
}

static json_t *
check_integer(struct look *look, const json_t *value)
{
    if (!json_is_integer(value)) {
        complain(look, "%s must be an integer number", look->member->name);
        return NULL;
    }
    json_int_t number = json_integer_value(value);
    return in_range(look, (double)number) ? made(look, json_integer(number))
                                          : NULL;
}

static size_t
count_characters(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static json_t *
check_string(struct look *look, const json_t *value)
{
    const struct cm_member *m = look->member;
    const char *s = json_string_value(value);
    if (!s || strlen(s) != json_string_length(value)) {
        complain(look, "%s must be a string", m->name);
        return NULL;
    }
    if ((double)count_characters(s) > m->max) {
        complain(look, "%s must be shorter than or equal to %.0f characters",
                 m->name, m->max);
        return NULL;
    }
    return made(look, json_string(s));
}

static json_t *
check_time(struct look *look, const json_t *value)
{
    int64_t ms;
    if (!json_is_string(value)) {
        complain(look, "%s must be a string", look->member->name);
        return NULL;
    }
    if (cm_time_parse(json_string_value(value), &ms) != CM_OK) {
        complain(look, "%s must be a valid ISO 8601 date string",
                 look->member->name);
        return NULL;
    }
    return made(look, json_string(json_string_value(value)));
}

static bool
is_choice(const struct cm_member *m, const json_t *value)
{
    const char *s = json_string_value(value);
    for (size_t i = 0; s && m->choices[i]; i++) {
        if (strcmp(s, m->choices[i]) == 0)
            return true;
    }
    return false;
}

/* "a, b, c" into out, cut to its size. */
static void
list_choices(const struct cm_member *m, char out[CM_MEMBERS_LIST_BYTES])
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; m->choices[i] && at < CM_MEMBERS_LIST_BYTES; i++)
        at += (size_t)snprintf(out + at, CM_MEMBERS_LIST_BYTES - at, "%s%s",
                               i > 0 ? ", " : "", m->choices[i]);
}

static json_t *
check_choice(struct look *look, const json_t *value)
{
    char list[CM_MEMBERS_LIST_BYTES];
    if (!is_choice(look->member, value)) {
        list_choices(look->member, list);
        complain(look, "%s must be one of the following values: %s",
                 look->member->name, list);
        return NULL;
    }
    return made(look, json_string(json_string_value(value)));
}

/* jansson's own copies of arrays and objects lose what they cannot allocate
 * and succeed. */
static json_t *
copy_list(struct look *look, const json_t *list)
{
    json_t *copy = made(look, json_array());
    for (size_t i = 0; copy && i < json_array_size(list); i++) {
        if (json_array_append(copy, json_array_get(list, i)) != 0) {
            json_decref(copy);
            return made(look, NULL);
        }
    }
    return copy;
}

static json_t *
check_choices(struct look *look, const json_t *value)
{
    char list[CM_MEMBERS_LIST_BYTES];
    if (!json_is_array(value)) {
        complain(look, "%s must be an array", look->member->name);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (is_choice(look->member, json_array_get(value, i)))
            continue;
        list_choices(look->member, list);
        complain(look,
                 "each value in %s must be one of the following values: %s",
                 look->member->name, list);
        return NULL;
    }
    return copy_list(look, value);
}

static json_t *
check_object(struct look *look, const json_t *value)
{
    const struct cm_member *m = look->member;
    if (json_is_array(value)) {
        complain(look, "%s must be an object", m->name);
        return NULL;
    }
    if (!json_is_object(value)) {
        complain(look, "nested property %s must be either object or array",
                 m->name);
        return NULL;
    }
    char prefix[sizeof look->problems->at[0].path];
    snprintf(prefix, sizeof prefix, "%s%s.", look->prefix, m->name);
    json_t *out = NULL;
    look->status =
        cm_members_normalize(&out, value, m->members, prefix, look->problems);
    return out;
}

static json_t *
check_any(struct look *look, const json_t *value)
{
    (void)look;
    return json_incref((json_t *)value); /* shared: nobody changes either */
}

static check_fn *const checks[] = {
    [CM_MEMBER_BOOLEAN] = check_boolean, [CM_MEMBER_NUMBER] = check_number,
    [CM_MEMBER_INTEGER] = check_integer, [CM_MEMBER_STRING] = check_string,
    [CM_MEMBER_TIME] = check_time,       [CM_MEMBER_CHOICE] = check_choice,
    [CM_MEMBER_CHOICES] = check_choices, [CM_MEMBER_OBJECT] = check_object,
    [CM_MEMBER_ANY] = check_any,
};

static json_t *
make_list(struct look *look, const char *const *texts)
{
    json_t *list = made(look, json_array());
    for (size_t i = 0; list && texts[i]; i++) {
        if (json_array_append_new(list, json_string(texts[i])) != 0) {
            json_decref(list);
            return made(look, NULL);
        }
    }
    return list;
}

static json_t *
make_default(struct look *look)
{
    const struct cm_member *m = look->member;
    switch (m->type) {
    case CM_MEMBER_BOOLEAN:
        return json_boolean(m->default_number > 0);
    case CM_MEMBER_NUMBER:
    case CM_MEMBER_INTEGER:
        return make_number(look, m->default_number);
    case CM_MEMBER_STRING:
    case CM_MEMBER_TIME:
    case CM_MEMBER_CHOICE:
        return made(look, json_string(m->default_texts[0]));
    case CM_MEMBER_CHOICES:
        return make_list(look, m->default_texts);
    case CM_MEMBER_OBJECT:
    case CM_MEMBER_ANY:
        break;
    }
    return NULL;
}

/* The value to keep for a member; NULL for none. */
static json_t *
settle(struct look *look, const json_t *value)
{
    const struct cm_member *m = look->member;
    if (value && !json_is_null(value))
        return checks[m->type](look, value);
    if (m->required) /* say what is wanted, as of any other wrong value */
        return checks[m->type](look, json_null());
    return m->has_default ? make_default(look) : NULL;
}

static void
refuse_unknown(const json_t *in, const struct cm_member *table,
               const char *prefix, struct cm_problems *problems)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)in, key, value)
    {
        const struct cm_member *m = table;
        while (m->name && strcmp(m->name, key) != 0)
            m++;
        if (m->name)
            continue;
        struct cm_member unknown = {.name = key};
        struct look look = {&unknown, prefix, problems, CM_OK};
        complain(&look, "property %s should not exist", key);
    }
}

enum cm_status
cm_members_normalize(struct json_t **out_r, const struct json_t *in,
                     const struct cm_member *table, const char *prefix,
                     struct cm_problems *problems)
{
    json_t *out = json_object();
    enum cm_status status = out ? CM_OK : CM_ENOMEM;

    refuse_unknown(in, table, prefix, problems);
    for (const struct cm_member *m = table; m->name && status == CM_OK; m++) {
        struct look look = {m, prefix, problems, CM_OK};
        json_t *kept = settle(&look, json_object_get(in, m->name));
        status = look.status;
        if (kept && json_object_set_new(out, m->name, kept) != 0)
            status = CM_ENOMEM;
    }
    if (status == CM_OK)
        *out_r = out;
    else
        json_decref(out);
    return status;
}
