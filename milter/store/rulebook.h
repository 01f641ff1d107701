/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RULEBOOK_H
#define CM_RULEBOOK_H

#include "milter/err.h"
#include "milter/model/rule.h"

#include <stddef.h>
#include <stdint.h>

struct cm_map;
struct cm_ruleset;

/*
 * Documents of all kinds that become rules, as they are kept beside the
 * compiled list: our own rules, LocalStack's fault rules and effects, Mailpit's
 * triggers. The list is made anew from all of them when one changes. Allocated
 * with malloc; free() frees.
 */
struct cm_rule_doc {
    enum cm_face face;
    int64_t ord; /* place in the order of evaluation, within the face */
    size_t len;
    char text[]; /* NUL-terminated */
};

/* cm_rulebook_kinds - the kinds of documents that become rules, ended by NULL:
 * "rule", "fault", ... */
extern const char *const cm_rulebook_kinds[];

/* cm_rulebook_name - the name in a key, "r7" of "rule:r7"; NULL: the key is of
 * no kind that becomes rules. face_r may be NULL. */
const char *cm_rulebook_name(const char *key, enum cm_face *face_r);

/* cm_rule_doc_new - checks that the text is a document of the key's kind, one
 * that cm_rulebook_name knows. CM_OK, CM_EINVAL (err says what is wrong with
 * it), CM_ENOMEM. */
enum cm_status cm_rule_doc_new(struct cm_rule_doc **doc_r, const char *key,
                               int64_t ord, const char *text, size_t len,
                               unsigned address_flags,
                               struct cm_err *err) CM_MUST_CHECK;

/* cm_rulebook_rule - the rule that a document of the key's kind becomes; then
 * cm_rule_fini it. As cm_rule_doc_new, and CM_NOTFOUND: none, for it says that
 * nothing shall happen. */
enum cm_status cm_rulebook_rule(struct cm_rule *rule_r, const char *key,
                                const char *text, size_t len,
                                unsigned address_flags,
                                struct cm_err *err) CM_MUST_CHECK;

/* cm_rulebook_compile - the list of all rules in the map (key to cm_rule_doc),
 * by face, ord and then name. *set_r has one reference; NULL when there are
 * none. CM_OK or CM_ENOMEM. */
enum cm_status cm_rulebook_compile(struct cm_ruleset **set_r,
                                   struct cm_map *rules,
                                   unsigned address_flags) CM_MUST_CHECK;

#endif
