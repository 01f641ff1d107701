/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hide fault: keywords that the EHLO reply leaves out. They are those that
 * Postfix 3.7 knows by name, for it does the hiding; a name that it does not
 * know it would only complain of, mail by mail.
 */
#include "milter/model/ascii.h"
#include "milter/model/fault_parts.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define CM_FAULT_KEYWORDS_MAX 16

static const char *const keywords[] = {
    "STARTTLS", "SIZE", "SMTPUTF8", "PIPELINING",          "AUTH",
    "8BITMIME", "DSN",  "ETRN",     "ENHANCEDSTATUSCODES", "VRFY",
    "CHUNKING",
};
#define NKEYWORDS (sizeof keywords / sizeof *keywords)
#define ALL       ((1u << NKEYWORDS) - 1)
/* Holds them all, each with a separator. */
#define LIST_BYTES 128

const struct cm_member cm_fault_hide_members[] = {
    CM_FAULT_MEMBER_KIND,
    {.name = "keywords", .type = CM_MEMBER_ANY},
    CM_MEMBER_ROW_END,
};

static void
list_keywords(unsigned set, const char *separator, char out[LIST_BYTES])
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < NKEYWORDS && n < LIST_BYTES; i++)
        if (set & 1u << i)
            n += (size_t)snprintf(out + n, LIST_BYTES - n, "%s%s",
                                  n > 0 ? separator : "", keywords[i]);
}

/* The keyword's bit, 0 for none. */
static unsigned
find_keyword(const char *s)
{
    for (size_t i = 0; s && i < NKEYWORDS; i++)
        if (cm_ascii_equal(s, keywords[i]))
            return 1u << i;
    return 0;
}

void
cm_fault_build_hide(struct cm_draft *draft, struct cm_fault *fault)
{
    char list[LIST_BYTES];
    const json_t *given = cm_draft_member(draft, "keywords");
    size_t n = json_array_size(given);
    unsigned set = 0;
    if (!json_is_array(given) || n < 1 || n > CM_FAULT_KEYWORDS_MAX) {
        cm_draft_complain(draft, "keywords",
                          "must be an array of 1 to %d EHLO keywords",
                          CM_FAULT_KEYWORDS_MAX);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        char name[sizeof "keywords[16]"];
        unsigned bit =
            find_keyword(json_string_value(json_array_get(given, i)));
        set |= bit;
        if (bit)
            continue;
        snprintf(name, sizeof name, "keywords[%zu]", i % CM_FAULT_KEYWORDS_MAX);
        list_keywords(ALL, ", ", list);
        cm_draft_complain(draft, name,
                          "must be one of the following values: %s", list);
    }
    list_keywords(set, ",", list);
    fault->u.hide = cm_draft_dup(draft, list);
}
