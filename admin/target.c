/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The decoder works in place on one copy of the target: decoding never makes
 * text longer, and every "/", "?", "&" and "=" that parts two pieces becomes
 * the NUL that ends one. libmicrohttpd's own decoding is switched off, because
 * it decodes before it splits and takes %00 for the end of the text.
 */
#include "admin/target.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Decodes the NUL-terminated text in place, once. */
static enum cm_status
decode(char *text, bool plus_is_space, struct cm_err *err)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from == '+' && plus_is_space) {
            *to++ = ' ';
        } else if (*from != '%') {
            *to++ = *from;
        } else {
            int high = hex_value(from[1]);
            int low = high < 0 ? -1 : hex_value(from[2]);
            if (low < 0)
                return cm_err_set(err, CM_EINVAL,
                                  "The URL has a %% without two hex digits");
            if (high == 0 && low == 0)
                return cm_err_set(err, CM_EINVAL, "The URL has a NUL (%%00)");
            *to++ = (char)(high * 16 + low);
            from += 2;
        }
    }
    *to = '\0';
    return CM_OK;
}

/* What RFC 3986 does not let stand in a target, less the few printable bytes
 * that common clients send as they are ("|", "{", "[", ...). */
static enum cm_status
check_bytes(const char *raw, struct cm_err *err)
{
    if (raw[0] != '/')
        return cm_err_set(err, CM_EINVAL, "The URL must start with a slash");
    for (const char *s = raw; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return cm_err_set(err, CM_EINVAL,
                              "The URL has a byte (0x%02X) that must be "
                              "percent-encoded",
                              c);
    }
    return CM_OK;
}

static enum cm_status
split_path(struct cm_target *target, char *path, struct cm_err *err)
{
    char *rest = path + 1; /* behind the first slash */
    while (rest) {
        char *segment = rest;
        rest = strchr(segment, '/');
        if (rest)
            *rest++ = '\0';
        if (target->nsegment == CM_TARGET_SEGMENTS_MAX)
            return cm_err_set(err, CM_EINVAL, "The URL has too many segments");
        enum cm_status status = decode(segment, false, err);
        if (status != CM_OK)
            return status;
        target->segment[target->nsegment++] = segment;
    }
    return CM_OK;
}

static enum cm_status
add_param(struct cm_target *target, char *piece, struct cm_err *err)
{
    if (target->nparam == CM_TARGET_PARAMS_MAX)
        return cm_err_set(err, CM_EINVAL, "The URL has too many parameters");
    char *value = strchr(piece, '=');
    if (value)
        *value++ = '\0';
    else
        value = piece + strlen(piece);
    enum cm_status status = decode(piece, true, err);
    if (status == CM_OK)
        status = decode(value, true, err);
    if (status != CM_OK)
        return status;
    if (cm_target_param(target, piece))
        return cm_err_set(err, CM_EINVAL, "The URL has a parameter twice");
    target->param[target->nparam++] = (struct cm_param){piece, value};
    return CM_OK;
}

static enum cm_status
split_query(struct cm_target *target, char *query, struct cm_err *err)
{
    char *rest = query;
    while (rest) {
        char *piece = rest;
        rest = strchr(piece, '&');
        if (rest)
            *rest++ = '\0';
        enum cm_status status = CM_OK;
        if (*piece)
            status = add_param(target, piece, err);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

enum cm_status
cm_target_parse(struct cm_target *target_r, const char *raw, struct cm_err *err)
{
    memset(target_r, 0, sizeof *target_r);
    target_r->raw = strndup(raw, strcspn(raw, "?"));
    target_r->decoded = strdup(raw);
    if (!target_r->raw || !target_r->decoded)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status = check_bytes(raw, err);
    if (status != CM_OK)
        return status;
    char *query = strchr(target_r->decoded, '?');
    if (query)
        *query++ = '\0';
    status = split_path(target_r, target_r->decoded, err);
    if (status == CM_OK && query)
        status = split_query(target_r, query, err);
    return status;
}

void
cm_target_fini(struct cm_target *target)
{
    free(target->raw);
    free(target->decoded);
    memset(target, 0, sizeof *target);
}

const char *
cm_target_param(const struct cm_target *target, const char *name)
{
    for (size_t i = 0; i < target->nparam; i++) {
        if (strcmp(target->param[i].name, name) == 0)
            return target->param[i].value;
    }
    return NULL;
}
