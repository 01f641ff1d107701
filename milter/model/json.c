/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * jansson behind two functions, with two guards.
 *
 * Depth: its parser recurses up to 2,048 levels; a scan before it keeps the
 * stack small and costs one pass over at most 64 KiB.
 *
 * Memory: when its lexer cannot grow a token (read and run in 2.14), it goes on
 * without the bytes that did not fit: one address becomes another, or the lost
 * byte is the closing quote, and it copies beyond the end. So its allocator is
 * ours: malloc(), but a parse that has once been refused memory gets none from
 * then on. The lexer then gives up where it would have copied, nothing that was
 * built from the damaged text survives, and the parse is out of memory whatever
 * jansson calls it. (Left over: a number of 16 digits or more that ends in that
 * very moment trips an assertion of jansson's.)
 */
#include "milter/model/json.h"
#include "milter/model/ascii.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
    bool parsing, starved;
} diet;

static void *
strict_malloc(size_t size)
{
    void *p = diet.starved ? NULL : malloc(size);
    if (!p && diet.parsing)
        diet.starved = true;
    return p;
}

/* Before main, because setting it beside a running parser would be a race. */
__attribute__((constructor)) static void
take_allocator(void)
{
    json_set_alloc_funcs(strict_malloc, free);
}

/* Where a text nests too deep, or NULL. Strings are skipped; what else is
 * wrong with the text is the parser's to find. */
static const char *
too_deep(const char *text, size_t len)
{
    int depth = 0;
    bool in_string = false;
    for (const char *at = text; at < text + len; at++) {
        if (in_string) {
            if (*at == '\\')
                at++;
            else if (*at == '"')
                in_string = false;
        } else if (*at == '"') {
            in_string = true;
        } else if (*at == '{' || *at == '[') {
            if (++depth > CM_JSON_DEPTH_MAX)
                return at;
        } else if (*at == '}' || *at == ']') {
            depth--;
        }
    }
    return NULL;
}

static enum cm_status
complain_depth(const char *text, const char *at, struct cm_err *err)
{
    int line = 1, column = 1;
    for (; text < at; text++) {
        column = *text == '\n' ? 1 : column + 1;
        line += *text == '\n';
    }
    return cm_err_set(err, CM_EINVAL,
                      "line %d column %d: nested deeper than %d levels", line,
                      column, CM_JSON_DEPTH_MAX);
}

enum cm_status
cm_json_parse(struct json_t **json_r, const char *text, size_t len,
              struct cm_err *err)
{
    json_error_t error = {.line = 0};
    const char *deep = too_deep(text, len);
    if (deep)
        return complain_depth(text, deep, err);

    diet.parsing = true;
    json_t *json =
        json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    bool starved = diet.starved;
    diet.parsing = diet.starved = false;
    if (starved) {
        json_decref(json);
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    if (!json) {
        cm_ascii_make_printable(error.text); /* it quotes the document */
        return cm_err_set(err, CM_EINVAL, "line %d column %d: %s", error.line,
                          error.column, error.text);
    }
    *json_r = json;
    return CM_OK;
}

char *
cm_json_dump(const struct json_t *json, size_t *len_r)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY |
                                      JSON_REAL_PRECISION(15));
    if (len_r)
        *len_r = text ? strlen(text) : 0;
    return text;
}

/* --- equality --- */

static json_t *canonical(const json_t *json);

static json_t *
canonical_number(const json_t *json)
{
    const double limit = 9223372036854775808.0; /* 2^63 */
    char digits[32];
    if (json_is_integer(json))
        return json_integer(json_integer_value(json));
    /* As many as are printed, or what prints as whole would not be. */
    snprintf(digits, sizeof digits, "%.15g", json_real_value(json));
    double number = strtod(digits, NULL);
    if (number > -limit && number < limit && number == floor(number))
        return json_integer((json_int_t)number);
    return json_real(number);
}

static json_t *
canonical_array(const json_t *json)
{
    json_t *out = json_array();
    for (size_t i = 0; out && i < json_array_size(json); i++) {
        if (json_array_append_new(out, canonical(json_array_get(json, i))) !=
            0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *
canonical_object(const json_t *json)
{
    const char *key;
    json_t *value, *out = json_object();
    json_object_foreach((json_t *)json, key, value)
    {
        if (out && json_object_set_new(out, key, canonical(value)) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* A new reference, NULL when out of memory. As deep as the parser let it be. */
static json_t *
canonical(const json_t *json)
{
    if (json_is_number(json))
        return canonical_number(json);
    if (json_is_array(json))
        return canonical_array(json);
    if (json_is_object(json))
        return canonical_object(json);
    return json_incref((json_t *)json);
}

char *
cm_json_canonical(const struct json_t *json)
{
    json_t *same = canonical(json);
    char *text =
        same ? json_dumps(same, JSON_COMPACT | JSON_ENCODE_ANY |
                                    JSON_SORT_KEYS | JSON_REAL_PRECISION(15))
             : NULL;
    json_decref(same);
    return text;
}
