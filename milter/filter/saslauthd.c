/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nothing on this wire can be wrong but the length: any bytes are some
 * question, and what they mean is for the real saslauthd to say.
 */
#include "milter/filter/saslauthd.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* In the order of the wire. */
enum { LOGIN, PASSWORD, SERVICE, REALM, FIELDS };

struct field {
    const char *at;
    size_t len;
};

/* The fields that are there whole, from the first; how many. *end_r: where the
 * last of them ends, or where the next would if that is known. */
static int
part_fields(const char *data, size_t len, struct field *fields_r, size_t *end_r)
{
    size_t at = 0;
    int n = 0;
    for (; n < FIELDS && len - at >= 2; n++) {
        size_t field = (size_t)((unsigned char)data[at] << 8 |
                                (unsigned char)data[at + 1]);
        fields_r[n] = (struct field){data + at + 2, field};
        at += 2 + field;
        if (at > len)
            break;
    }
    *end_r = at;
    return n;
}

enum cm_saslauthd_state
cm_saslauthd_measure(const char *data, size_t len)
{
    struct field fields[FIELDS];
    size_t end;
    int n = part_fields(data, len, fields, &end);
    if (n == FIELDS)
        return CM_SASLAUTHD_WHOLE;
    return end > CM_SASLAUTHD_QUESTION_MAX || len >= CM_SASLAUTHD_QUESTION_MAX
               ? CM_SASLAUTHD_LONG
               : CM_SASLAUTHD_MORE;
}

static bool
is_text(const struct field *field)
{
    return field->len > 0 && field->len < CM_SASLAUTHD_TEXT &&
           !memchr(field->at, '\0', field->len);
}

void
cm_saslauthd_read(struct cm_saslauthd_who *who_r, const char *data, size_t len)
{
    struct field fields[FIELDS];
    size_t end;
    who_r->login[0] = who_r->login_at_realm[0] = '\0';
    if (part_fields(data, len, fields, &end) < FIELDS ||
        !is_text(&fields[LOGIN]))
        return;
    snprintf(who_r->login, sizeof who_r->login, "%.*s", (int)fields[LOGIN].len,
             fields[LOGIN].at);
    if (is_text(&fields[REALM]))
        snprintf(who_r->login_at_realm, sizeof who_r->login_at_realm, "%s@%.*s",
                 who_r->login, (int)fields[REALM].len, fields[REALM].at);
}

const char *
cm_saslauthd_refusal(size_t *len_r)
{
    static const char refusal[] = "\0\016NO chaosmilter";
    *len_r = sizeof refusal - 1;
    return refusal;
}
