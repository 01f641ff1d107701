/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A netstring says its length first, so there is nothing to search and nothing
 * to escape, and a question may hold any byte. The length is judged before the
 * bytes have come: a peer can make us wait for at most as much as it announced
 * and we allow.
 *
 * A question that is too long for us is still a question: it is passed over and
 * answered, since a closed connection would cost an SMTP client its session.
 */
#include "milter/filter/socketmap.h"
#include "milter/model/ascii.h"

#include <stdio.h>
#include <string.h>

#define DIGITS_MAX 7 /* of CM_SOCKETMAP_SKIP_MAX */

/* "<digits>:" at the beginning; *body_r is where the text begins. */
static enum cm_socketmap_state
parse_length(const char *data, size_t len, size_t *length_r, size_t *body_r)
{
    size_t n = 0, i = 0;
    for (; i < len && cm_ascii_is_digit(data[i]); i++) {
        if (i == DIGITS_MAX || (i > 0 && n == 0)) /* no leading zeros */
            return CM_SOCKETMAP_BAD;
        n = n * 10 + (size_t)(data[i] - '0');
    }
    if (i == len)
        return CM_SOCKETMAP_MORE;
    if (i == 0 || data[i] != ':' || n > CM_SOCKETMAP_SKIP_MAX)
        return CM_SOCKETMAP_BAD;
    *length_r = n;
    *body_r = i + 1;
    return CM_SOCKETMAP_WHOLE;
}

enum cm_socketmap_state
cm_socketmap_parse(const char *data, size_t len,
                   struct cm_socketmap_request *request_r)
{
    size_t length = 0, body = 0;
    enum cm_socketmap_state state = parse_length(data, len, &length, &body);
    if (state != CM_SOCKETMAP_WHOLE)
        return state;
    if (length > CM_SOCKETMAP_REQUEST_MAX) {
        *request_r = (struct cm_socketmap_request){.bytes = body + length + 1};
        return CM_SOCKETMAP_LONG;
    }
    if (len < body + length + 1)
        return CM_SOCKETMAP_MORE;
    const char *text = data + body;
    const char *space = memchr(text, ' ', length);
    if (text[length] != ',' || !space || space == text)
        return CM_SOCKETMAP_BAD;
    size_t map_len = (size_t)(space - text);
    *request_r = (struct cm_socketmap_request){.map = text,
                                               .map_len = map_len,
                                               .key = space + 1,
                                               .key_len = length - map_len - 1,
                                               .bytes = body + length + 1};
    return CM_SOCKETMAP_WHOLE;
}

static size_t
print(char *out, size_t cap, const char *word, const char *value)
{
    size_t length = strlen(word) + 1 + strlen(value);
    int n = snprintf(out, cap, "%zu:%s %s,", length, word, value);
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

size_t
cm_socketmap_print_ok(char *out, size_t cap, const char *value)
{
    return print(out, cap, "OK", value);
}

size_t
cm_socketmap_print_notfound(char *out, size_t cap)
{
    return print(out, cap, "NOTFOUND", "");
}
