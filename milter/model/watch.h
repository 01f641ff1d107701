/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_WATCH_H
#define CM_WATCH_H

#include "milter/err.h"
#include "milter/model/rule.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What must be known of a message for the enabled rules of a list to have their
 * say and do their work, found once, so that a filter asks its mail server for
 * no more and keeps no more.
 */
struct cm_watch {
    const char **names; /* owned; borrowed texts, sorted, each once */
    size_t nnames;
    bool size;
    int64_t body_bytes;
};

/* cm_watch_init - the names stay the rules', which must outlive the watch.
 * CM_OK or CM_ENOMEM; cm_watch_fini may be called either way. */
enum cm_status cm_watch_init(struct cm_watch *watch,
                             const struct cm_rule *rules,
                             size_t nrules) CM_MUST_CHECK;
void cm_watch_fini(struct cm_watch *watch);

/* cm_watch_body - how much of a body's beginning this one rule needs. */
int64_t cm_watch_body(const struct cm_rule *rule);

/* cm_watch_header - does a rule name this header? Without case. */
bool cm_watch_header(const struct cm_watch *watch, const char *name);

#endif
