/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While it waits for us the mail server does not look at its client, so we do,
 * once a second. A client that has closed its side may still wait for the
 * answer (delay.c has the same rule); only a reset ends the delay.
 */
#include "milter/filter/hook_hold.h"
#include "milter/clock.h"
#include "milter/filter/filter.h"
#include "milter/filter/incident.h"

#include <stdio.h>

#define LOOK_US 1000000

static int64_t
measured_ms(const struct cm_hook_hold *hold)
{
    return (cm_clock_mono_us() - hold->since_us) / 1000;
}

void
cm_hook_hold_begin(struct cm_hook_hold *hold,
                   const struct cm_incident *incident,
                   const struct cm_guest *guest)
{
    int64_t now_us = cm_clock_mono_us();
    *hold = (struct cm_hook_hold){
        .on = true,
        .since_us = now_us,
        .due_us = now_us + incident->delay_asked_ms * 1000,
        .closed_by_ms = -1,
        .incident = *incident,
    };
    cm_presence_begin(&hold->client, guest->tuple_known ? &guest->tuple : NULL);
}

bool
cm_hook_hold_is_over(struct cm_hook_hold *hold, int64_t *next_us_r)
{
    int64_t now_us = cm_clock_mono_us();
    enum cm_presence_now now = cm_presence_look(&hold->client);
    if (now_us >= hold->due_us || now == CM_PRESENCE_GONE)
        return true;
    if (now == CM_PRESENCE_CLOSED && hold->closed_by_ms < 0)
        hold->closed_by_ms = measured_ms(hold);
    *next_us_r =
        hold->due_us - now_us < LOOK_US ? hold->due_us : now_us + LOOK_US;
    return false;
}

/* What the client did meanwhile, NULL when nothing that we know of. */
static const char *
tell_client(const struct cm_hook_hold *hold, char *out, size_t cap)
{
    if (cm_clock_mono_us() < hold->due_us)
        return "cut short: the client's connection was reset";
    if (hold->closed_by_ms < 0)
        return NULL;
    snprintf(out, cap, "by %lld ms the client had closed its side",
             (long long)hold->closed_by_ms);
    return out;
}

void
cm_hook_hold_end(struct cm_hook_hold *hold, struct cm_filter *filter,
                 const char *how)
{
    char client[64], detail[CM_INCIDENT_TEXT];
    hold->on = false;
    hold->incident.delay_measured_ms = measured_ms(hold);
    if (!how)
        how = tell_client(hold, client, sizeof client);
    if (how)
        snprintf(detail, sizeof detail, "%.60s: %s", hold->incident.detail,
                 how);
    cm_incident_close(filter, &hold->incident, CM_INCIDENT_APPLIED,
                      how ? detail : NULL);
}
