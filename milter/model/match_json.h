/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MATCH_JSON_H
#define CM_MATCH_JSON_H

#include "milter/model/draft.h"
#include "milter/model/rule.h"

/* The rows of the conditions in a rule's table; ends with a comma. */
#define CM_MATCH_MEMBERS                                                       \
    {.name = "inbox", .type = CM_MEMBER_STRING, .max = CM_MATCH_TEXT_MAX},     \
        {.name = "domain",                                                     \
         .type = CM_MEMBER_STRING,                                             \
         .max = CM_MATCH_TEXT_MAX},                                            \
        {.name = "sender",                                                     \
         .type = CM_MEMBER_STRING,                                             \
         .max = CM_MATCH_TEXT_MAX},                                            \
        {.name = "client",                                                     \
         .type = CM_MEMBER_STRING,                                             \
         .max = CM_MATCH_TEXT_MAX},                                            \
        {.name = "helo", .type = CM_MEMBER_STRING, .max = CM_MATCH_TEXT_MAX},  \
        {.name = "user", .type = CM_MEMBER_STRING, .max = CM_MATCH_TEXT_MAX},  \
        {.name = "mechanism",                                                  \
         .type = CM_MEMBER_STRING,                                             \
         .max = CM_MATCH_TEXT_MAX},                                            \
        {.name = "header", .type = CM_MEMBER_ANY},                             \
        CM_MEMBER_ROW_OBJECT("size", cm_match_size_members),                   \
        CM_MEMBER_ROW_OBJECT("attempt", cm_match_attempt_members),
#define CM_MATCH_TEXT_MAX 512

extern const struct cm_member cm_match_size_members[];
extern const struct cm_member cm_match_attempt_members[];

/*
 * cm_match_build - the conditions of a drafted rule. match starts zeroed and is
 * the caller's to free with its rule, whatever became of the draft. Complains
 * of conditions that are not well formed.
 */
void cm_match_build(struct cm_draft *draft, struct cm_match *match);

/* cm_match_check_stage - complains of every given condition that nobody can
 * tell at that stage. */
void cm_match_check_stage(struct cm_draft *draft, enum cm_stage stage);

/* cm_match_check_hide - complains of every given condition that nobody can tell
 * where EHLO keywords are hidden: all but the client's address. */
void cm_match_check_hide(struct cm_draft *draft);

#endif
