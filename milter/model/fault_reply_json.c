/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The faults that answer with a reply: error and throttle. Lines are checked
 * one by one before the reply is built, so that every bad one is named.
 */
#include "milter/model/fault_parts.h"
#include "milter/model/reply.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#define CM_FAULT_RATE_MAX  1000000
#define CM_FAULT_BURST_MAX 1000000000

#define CODE(preset)                                                           \
    {                                                                          \
        .name = "code", .type = CM_MEMBER_INTEGER, .min = 400, .max = 599,     \
        .has_default = true, .default_number = preset                          \
    }
#define ENHANCED                                                               \
    {                                                                          \
        .name = "enhanced", .type = CM_MEMBER_STRING, .max = 11                \
    }
#define TEXT                                                                   \
    {                                                                          \
        .name = "text", .type = CM_MEMBER_ANY                                  \
    }

/* The lines of a reply as they were given: borrowed from the document. */
struct lines {
    const char *at[CM_REPLY_LINES_MAX];
    size_t n;
    bool good;
};

static void
take_line(struct cm_draft *draft, struct lines *lines, const json_t *line,
          const char *name)
{
    const char *s = json_string_value(line);
    const char *fault = s ? cm_reply_check_line(s, json_string_length(line))
                          : "must be a string or an array of strings";
    if (fault) {
        cm_draft_complain(draft, name, "%s", fault);
        lines->good = false;
    } else {
        lines->at[lines->n++] = s;
    }
}

static struct lines
take_lines(struct cm_draft *draft, const char *fallback)
{
    struct lines lines = {.n = 0, .good = true};
    const json_t *given = cm_draft_member(draft, "text");
    if (!given) {
        lines.at[lines.n++] = fallback;
        return lines;
    }
    if (!json_is_array(given)) {
        take_line(draft, &lines, given, "text");
        return lines;
    }
    size_t n = json_array_size(given);
    if (n < 1 || n > CM_REPLY_LINES_MAX) {
        cm_draft_complain(draft, "text", "must have 1 to %d lines",
                          CM_REPLY_LINES_MAX);
        lines.good = false;
        return lines;
    }
    for (size_t i = 0; i < n; i++) {
        char name[sizeof "text[32]"];
        snprintf(name, sizeof name, "text[%zu]", i % CM_REPLY_LINES_MAX);
        take_line(draft, &lines, json_array_get(given, i), name);
    }
    return lines;
}

/* code, enhanced and text as one reply. usual is the enhanced code of the
 * default code; any other code gets the plainest of its class. */
static struct cm_reply *
build_reply(struct cm_draft *draft, int usual_code, const char *usual,
            const char *fallback_text)
{
    struct cm_reply *reply = NULL;
    struct lines lines = take_lines(draft, fallback_text);
    if (!cm_draft_member(draft, "code") ||
        (cm_draft_is_given(draft, "enhanced") &&
         !cm_draft_member(draft, "enhanced")))
        return NULL;

    int code = (int)cm_draft_integer(draft, "code");
    const char *enhanced = cm_draft_text(draft, "enhanced");
    if (!enhanced)
        enhanced = code == usual_code ? usual : cm_reply_default_enhanced(code);
    const char *fault = cm_reply_check_enhanced(code, enhanced);
    if (fault)
        cm_draft_complain(draft, "enhanced", "%s", fault);
    if (fault || !lines.good)
        return NULL;
    fault = cm_reply_check_lines(lines.n, enhanced);
    if (fault) {
        cm_draft_complain(draft, "text", "%s", fault);
        return NULL;
    }
    if (cm_reply_new(&reply, code, enhanced, lines.at, lines.n, NULL) != CM_OK)
        draft->status = CM_ENOMEM; /* all else was checked */
    return reply;
}

/* --- error --- */

static const char *const type_names[] = {"temporary", "permanent", NULL};
_Static_assert(CM_REPLY_TEMPORARY == 1 && CM_REPLY_PERMANENT == 2,
               "types are the bits of their names");

const struct cm_member cm_fault_error_members[] = {
    CM_FAULT_MEMBER_KIND,
    CODE(451),
    ENHANCED,
    TEXT,
    {.name = "types", .type = CM_MEMBER_CHOICES, .choices = type_names},
    CM_MEMBER_ROW_END,
};

void
cm_fault_build_error(struct cm_draft *draft, struct cm_fault *fault)
{
    struct cm_fault_error *error = &fault->u.error;
    if (!cm_draft_is_given(draft, "types")) {
        error->reply =
            build_reply(draft, 451, "4.3.0", cm_reply_default_text());
        return;
    }
    if (cm_draft_is_given(draft, "code") ||
        cm_draft_is_given(draft, "enhanced") ||
        cm_draft_is_given(draft, "text"))
        cm_draft_complain(
            draft, "types",
            "must not be given together with code, enhanced or text");
    error->types = cm_draft_choices(draft, "types", type_names);
    if (cm_draft_member(draft, "types") && error->types == 0)
        cm_draft_complain(draft, "types", "must not be empty");
}

/* --- throttle --- */

static const char *const throttle_per[] = {"inbox", "domain", "sender",
                                           "client", NULL};

const struct cm_member cm_fault_throttle_members[] = {
    CM_FAULT_MEMBER_KIND,
    {.name = "rate",
     .type = CM_MEMBER_NUMBER,
     .required = true,
     .max = CM_FAULT_RATE_MAX},
    {.name = "burst",
     .type = CM_MEMBER_INTEGER,
     .min = 1,
     .max = CM_FAULT_BURST_MAX},
    CM_MEMBER_ROW_CHOICE("per", "inbox", "inbox", "domain", "sender", "client"),
    CODE(450),
    ENHANCED,
    TEXT,
    CM_MEMBER_ROW_END,
};

void
cm_fault_build_throttle(struct cm_draft *draft, struct cm_fault *fault)
{
    struct cm_fault_throttle *throttle = &fault->u.throttle;
    throttle->rate = cm_draft_number(draft, "rate");
    if (cm_draft_member(draft, "rate") && throttle->rate <= 0)
        cm_draft_complain(draft, "rate", "must be greater than 0");
    /* A bucket that holds what one second brings, and at least one mail. */
    throttle->burst = cm_draft_is_given(draft, "burst")
                          ? cm_draft_integer(draft, "burst")
                          : (int64_t)fmax(1, ceil(throttle->rate));
    throttle->per =
        (enum cm_throttle_per)cm_draft_choice(draft, "per", throttle_per);
    throttle->reply =
        build_reply(draft, 450, "4.2.1", "Too many messages, try again later");
}
