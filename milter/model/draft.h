/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DRAFT_H
#define CM_DRAFT_H

#include "milter/err.h"
#include "milter/model/members.h"
#include "milter/model/problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_t; /* jansson's */

/*
 * A document on its way to becoming a rule or a fault: what was given, what is
 * left of it after its table of members has been applied, and where complaints
 * go. Building goes on after a complaint, so that all faults are told at once:
 * a member that is missing from doc although its table has a default was
 * refused already, and reads as 0, "" or NULL.
 */
#define CM_DRAFT_PREFIX_BYTES 96

struct cm_draft {
    const struct json_t *given; /* borrowed */
    struct json_t *doc;         /* owned; normalized */
    char prefix[CM_DRAFT_PREFIX_BYTES];
    unsigned flags;               /* as in cm_address_parse */
    struct cm_problems *problems; /* borrowed */
    size_t problems_before;
    enum cm_status status; /* CM_ENOMEM latches */
};

/* cm_draft_init - apply the table to given, an object; cm_draft_fini in any
 * case. The status is CM_OK or CM_ENOMEM afterwards. */
void cm_draft_init(struct cm_draft *draft, const struct json_t *given,
                   const struct cm_member *table, const char *prefix,
                   unsigned flags, struct cm_problems *problems);
void cm_draft_fini(struct cm_draft *draft);

/* cm_draft_status - CM_ENOMEM, CM_EINVAL when anything was complained of since
 * init, else CM_OK. */
enum cm_status cm_draft_status(const struct cm_draft *draft) CM_MUST_CHECK;

/* cm_draft_complain - "<prefix><name> <sentence>", at that path. */
#define cm_draft_complain(draft, name, ...)                                    \
    cm_member_problem((draft)->problems, (draft)->prefix, name, __VA_ARGS__)

/* cm_draft_is_given - was it in the document, and not null? */
bool cm_draft_is_given(const struct cm_draft *draft, const char *name);

/* The members that passed. Borrowed. */
const struct json_t *cm_draft_member(const struct cm_draft *draft,
                                     const char *name);
double cm_draft_number(const struct cm_draft *draft, const char *name);
int64_t cm_draft_rounded(const struct cm_draft *draft, const char *name);
int64_t cm_draft_integer(const struct cm_draft *draft, const char *name);
bool cm_draft_flag(const struct cm_draft *draft, const char *name);
const char *cm_draft_text(const struct cm_draft *draft, const char *name);

/* cm_draft_choice - the position of the text among names (ended by NULL); 0
 * when it is none of them. */
unsigned cm_draft_choice(const struct cm_draft *draft, const char *name,
                         const char *const *names);

/* cm_draft_choices - bit i set for names[i] in the array. */
unsigned cm_draft_choices(const struct cm_draft *draft, const char *name,
                          const char *const *names);

/* cm_draft_dup - a copy of s, the caller's to free(); NULL for NULL, and
 * without memory, which latches. */
char *cm_draft_dup(struct cm_draft *draft, const char *s);

#endif
