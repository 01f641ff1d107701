/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The faults that change the message or where it goes: quarantine, misdeliver
 * and mutate (duplicate has no members). What they write into a message is held
 * to printable ASCII of one line, as replies are.
 */
#include "milter/model/address.h"
#include "milter/model/ascii.h"
#include "milter/model/fault_parts.h"
#include "milter/model/reply.h"

#include <jansson.h>
#include <string.h>

#define CM_FAULT_BYTES_MAX  ((int64_t)1 << 40)
#define CM_FAULT_FLIPS_MAX  1000000
#define CM_FAULT_HEADER_MAX 998 /* a line of RFC 5322 2.1.1 */

const struct cm_member cm_fault_quarantine_members[] = {
    CM_FAULT_MEMBER_KIND,
    {.name = "reason",
     .type = CM_MEMBER_STRING,
     .max = CM_REPLY_LINE_BYTES_MAX,
     .has_default = true,
     .default_texts = CM_MEMBER_TEXTS("Held by a chaos rule")},
    CM_MEMBER_ROW_END,
};

void
cm_fault_build_quarantine(struct cm_draft *draft, struct cm_fault *fault)
{
    const char *reason = cm_draft_text(draft, "reason");
    const char *wrong =
        reason ? cm_reply_check_line(reason, strlen(reason)) : NULL;
    if (wrong)
        cm_draft_complain(draft, "reason", "%s", wrong);
    fault->u.quarantine_reason = cm_draft_dup(draft, reason);
}

const struct cm_member cm_fault_misdeliver_members[] = {
    CM_FAULT_MEMBER_KIND,
    {.name = "to",
     .type = CM_MEMBER_STRING,
     .required = true,
     .max = CM_ADDRESS_MAX_BYTES},
    CM_MEMBER_ROW_END,
};

void
cm_fault_build_misdeliver(struct cm_draft *draft, struct cm_fault *fault)
{
    struct cm_address addr;
    struct cm_err err;
    const char *to = cm_draft_text(draft, "to");
    if (!to)
        return;
    enum cm_status status =
        cm_address_parse(&addr, to, strlen(to), draft->flags, &err);
    if (status == CM_ENOMEM)
        draft->status = CM_ENOMEM;
    else if (status != CM_OK)
        cm_draft_complain(draft, "to", "must be an address: %s", err.msg);
    else if (addr.domain_off == addr.len)
        cm_draft_complain(draft, "to", "must be an address with a domain");
    else
        fault->u.misdeliver_to = cm_draft_dup(draft, addr.text);
}

const struct cm_member cm_fault_mutate_members[] = {
    CM_FAULT_MEMBER_KIND,
    {.name = "truncateBody",
     .type = CM_MEMBER_INTEGER,
     .max = (double)CM_FAULT_BYTES_MAX},
    {.name = "dropHeader",
     .type = CM_MEMBER_STRING,
     .max = CM_FAULT_HEADER_MAX},
    {.name = "addHeader", .type = CM_MEMBER_ANY},
    {.name = "flipBits",
     .type = CM_MEMBER_INTEGER,
     .min = 1,
     .max = CM_FAULT_FLIPS_MAX},
    CM_MEMBER_ROW_END,
};
/* In the order of enum cm_mutate_how. */
static const char *const mutate_how[] = {"truncateBody", "dropHeader",
                                         "addHeader", "flipBits"};

static void
build_header(struct cm_draft *draft, struct cm_fault *fault,
             const char *member_name, const char *name, const char *value)
{
    if (!cm_ascii_is_header_name(name))
        cm_draft_complain(draft, member_name, "must name a header");
    if (value && *value && cm_reply_check_line(value, strlen(value)))
        cm_draft_complain(
            draft, member_name,
            "must have a value of at most 480 printable ASCII characters");
    fault->u.mutate.name = cm_draft_dup(draft, name);
    fault->u.mutate.value = cm_draft_dup(draft, value);
}

static void
build_added_header(struct cm_draft *draft, struct cm_fault *fault)
{
    json_t *header = json_object_get(draft->doc, "addHeader");
    void *only = json_object_iter(header);
    const char *value =
        only ? json_string_value(json_object_iter_value(only)) : NULL;
    if (json_object_size(header) == 1 && value)
        build_header(draft, fault, "addHeader", json_object_iter_key(only),
                     value);
    else
        cm_draft_complain(
            draft, "addHeader",
            "must be an object with one member, a header's name and its "
            "value");
}

void
cm_fault_build_mutate(struct cm_draft *draft, struct cm_fault *fault)
{
    struct cm_fault_mutate *mutate = &fault->u.mutate;
    int ways = 0;
    for (int i = 0; i <= CM_MUTATE_FLIP_BITS; i++) {
        if (cm_draft_is_given(draft, mutate_how[i])) {
            mutate->how = (enum cm_mutate_how)i;
            ways++;
        }
    }
    if (ways != 1) {
        cm_draft_complain(draft, "truncateBody",
                          "must be given, or dropHeader, or addHeader, or "
                          "flipBits, and only one of them");
        return;
    }
    if (!cm_draft_member(draft, mutate_how[mutate->how]))
        return;
    mutate->n = cm_draft_integer(draft, mutate_how[mutate->how]);
    if (mutate->how == CM_MUTATE_DROP_HEADER)
        build_header(draft, fault, "dropHeader",
                     cm_draft_text(draft, "dropHeader"), NULL);
    else if (mutate->how == CM_MUTATE_ADD_HEADER)
        build_added_header(draft, fault);
}
