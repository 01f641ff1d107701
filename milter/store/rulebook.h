/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULEBOOK_H
#define CM_RULEBOOK_H

#include "milter/err.h"

#include <stddef.h>
#include <stdint.h>

struct cm_map;
struct cm_ruleset;

/*
 * Rule documents as they are kept beside the compiled list: the list is made
 * anew from all of them when one changes. Allocated with malloc; free() frees.
 */
struct cm_rule_doc {
    int64_t ord; /* place in the order of evaluation */
    size_t len;
    char text[]; /* NUL-terminated */
};

/* cm_rule_doc_new - checks that the text is a rule under this id. CM_OK,
 * CM_EINVAL (err says what is wrong with it), CM_ENOMEM. */
enum cm_status cm_rule_doc_new(struct cm_rule_doc **doc_r, const char *id,
                               int64_t ord, const char *text, size_t len,
                               unsigned address_flags,
                               struct cm_err *err) CM_MUST_CHECK;

/* cm_rulebook_compile - the list of all rules in the map (id to cm_rule_doc),
 * by ord and then id. *set_r has one reference; NULL when there are none.
 * CM_OK or CM_ENOMEM. */
enum cm_status cm_rulebook_compile(struct cm_ruleset **set_r,
                                   struct cm_map *rules,
                                   unsigned address_flags) CM_MUST_CHECK;

#endif
