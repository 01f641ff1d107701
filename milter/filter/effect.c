/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all mail has to bear, and what was decided for some of it, meet in one
 * reply, which can be held once: so both are put into one hold. An effect is
 * asked for its hindrance with the whole delay, its own and what it adds to,
 * since that is what the mail server would have to wait for.
 */
#include "milter/filter/effect.h"
#include "milter/filter/deed.h"
#include "milter/filter/delay.h"
#include "milter/filter/deliberate.h"
#include "milter/model/ruleset.h"

#include <stdlib.h>

#define CM_EFFECTS_MAX 4 /* LocalStack's one; the rest is for what may come */

struct effects {
    struct cm_fate at[CM_EFFECTS_MAX];
    size_t n;
};

static int64_t
longest(const struct cm_fate *const *slow, size_t n)
{
    int64_t ms = 0;
    for (size_t i = 0; i < n; i++)
        ms = slow[i]->delay_ms > ms ? slow[i]->delay_ms : ms;
    return ms;
}

/* The effects that act on a reply which is late by so much already. */
static void
gather(struct cm_session *session, struct smfi_str *ctx, struct cm_walk *walk,
       int64_t late_ms, const char *recipient, const char *typed,
       struct effects *effects)
{
    struct cm_fate fate;
    while (effects->n < CM_EFFECTS_MAX &&
           cm_deliberate(session, walk, NULL, "", recipient, typed, &fate)) {
        int64_t own_ms = fate.delay_ms;
        fate.delay_ms = late_ms + own_ms;
        const char *why = cm_fate_hindrance(session, &fate);
        fate.delay_ms = own_ms;
        if (why) {
            cm_deed_record(session, ctx, &fate, CM_INCIDENT_UNAVAILABLE, 0,
                           why);
        } else {
            effects->at[effects->n++] = fate;
            late_ms += own_ms;
        }
    }
}

static void
hold(struct cm_session *session, struct smfi_str *ctx,
     const struct cm_fate *const *slow, size_t n, const struct effects *effects,
     unsigned others)
{
    const struct cm_fate **all = calloc(n + effects->n, sizeof *all);
    if (!all) {
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
        return;
    }
    for (size_t i = 0; i < n; i++)
        all[i] = slow[i];
    for (size_t i = 0; i < effects->n; i++)
        all[n + i] = &effects->at[i];
    cm_delay_reply(session, all, n + effects->n, cm_deed_queue_id(ctx), others);
    free(all);
}

void
cm_effect_delay(struct cm_session *session, struct smfi_str *ctx,
                const struct cm_ruleset *rules, enum cm_stage stage,
                const struct cm_fate *const *slow, size_t n,
                const char *recipient, const char *typed, unsigned others)
{
    struct effects effects = {.n = 0};
    struct cm_event event;
    struct cm_walk walk;
    if (cm_ruleset_effect_stages(rules) & CM_STAGE_BIT(stage)) {
        cm_session_event(session, stage, &event);
        cm_decide_effects(&walk, rules, &event, &session->coin);
        gather(session, ctx, &walk, longest(slow, n), recipient, typed,
               &effects);
    }
    if (effects.n > 0)
        hold(session, ctx, slow, n, &effects, others);
    else if (n > 0)
        cm_delay_reply(session, slow, n, cm_deed_queue_id(ctx), others);
}
