/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a compiled inbox: shared by reference, never changed. How it is
 * built from a document is in inbox_json.c.
 */
#include "milter/model/inbox.h"

#include <stdatomic.h>
#include <stdlib.h>

struct cm_inbox *
cm_inbox_ref(struct cm_inbox *inbox)
{
    if (inbox)
        atomic_fetch_add_explicit(&inbox->refs, 1, memory_order_relaxed);
    return inbox;
}

void
cm_inbox_release(struct cm_inbox **inbox)
{
    struct cm_inbox *old = *inbox;
    *inbox = NULL;
    if (!old ||
        atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < old->nrules; i++)
        cm_rule_fini(&old->rules[i]);
    free(old->doc);
    free(old);
}

bool
cm_inbox_active(const struct cm_inbox *inbox, int64_t now_ms)
{
    return inbox && inbox->enabled && inbox->nrules > 0 &&
           now_ms < inbox->expires_at_ms;
}

unsigned
cm_inbox_stages(const struct cm_inbox *inbox)
{
    unsigned stages = 0;
    if (inbox && inbox->enabled) {
        for (size_t i = 0; i < inbox->nrules; i++)
            stages |= CM_STAGE_BIT(inbox->rules[i].stage);
    }
    return stages;
}
