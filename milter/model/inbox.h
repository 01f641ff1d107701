/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_INBOX_H
#define CM_INBOX_H

#include "milter/err.h"
#include "milter/model/rule.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One inbox's chaos, compiled: the VaultSandbox configuration as at most five
 * rules in its order of priority (drop, greylist, random error, blackhole,
 * latency). Immutable and reference-counted, so a million inboxes with equal
 * documents share one, and a mail in hand keeps what it began with.
 */
#define CM_INBOX_RULES_MAX 5
#define CM_INBOX_DOC_MAX   65536 /* bytes of one document, in Redis and here */

struct cm_inbox {
    _Atomic unsigned long refs;
    bool enabled;          /* the master switch */
    int64_t expires_at_ms; /* CM_RULE_NEVER_EXPIRES when not given */
    size_t nrules;         /* of what is enabled below the master switch */
    struct cm_rule rules[CM_INBOX_RULES_MAX];
    size_t doc_len;
    char *doc; /* owned: the document it was compiled from, as given */
};

/* Each holder has its own reference; the last release frees. NULL-safe. */
struct cm_inbox *cm_inbox_ref(struct cm_inbox *inbox);
void cm_inbox_release(struct cm_inbox **inbox);

/* cm_inbox_active - could it hurt a mail now? */
bool cm_inbox_active(const struct cm_inbox *inbox, int64_t now_ms);

/* cm_inbox_stages - CM_STAGE_BITs at which its rules act. */
unsigned cm_inbox_stages(const struct cm_inbox *inbox);

#endif
