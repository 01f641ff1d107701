/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While it waits for us the mail server does not look at its client, so we do,
 * once a second. A client that has closed its side may still wait for the
 * answer (delay.c has the same rule); only a reset ends the delay.
 */
#include "milter/filter/late.h"
#include "milter/clock.h"
#include "milter/filter/filter.h"
#include "milter/filter/incident.h"

#include <stdio.h>

#define LOOK_US 1000000

static int64_t
measured_ms(const struct cm_late *late)
{
    return (cm_clock_mono_us() - late->since_us) / 1000;
}

void
cm_late_begin(struct cm_late *late, const struct cm_incident *incident,
              const struct cm_guest *guest, atomic_size_t *count)
{
    int64_t now_us = cm_clock_mono_us();
    *late = (struct cm_late){
        .on = true,
        .since_us = now_us,
        .due_us = now_us + incident->delay_asked_ms * 1000,
        .closed_by_ms = -1,
        .incident = *incident,
        .count = count,
    };
    cm_presence_begin(&late->client, guest->tuple_known ? &guest->tuple : NULL);
    atomic_fetch_add(count, 1);
}

int64_t
cm_late_look(struct cm_late *late)
{
    int64_t left_us = late->due_us - cm_clock_mono_us();
    enum cm_presence_now now = cm_presence_look(&late->client);
    if (left_us <= 0 || now == CM_PRESENCE_GONE)
        return 0;
    if (now == CM_PRESENCE_CLOSED && late->closed_by_ms < 0)
        late->closed_by_ms = measured_ms(late);
    return left_us < LOOK_US ? left_us : LOOK_US;
}

/* What the client did meanwhile, NULL when nothing that we know of. */
static const char *
tell_client(const struct cm_late *late, char *out, size_t cap)
{
    if (cm_clock_mono_us() < late->due_us)
        return "cut short: the client's connection was reset";
    if (late->closed_by_ms < 0)
        return NULL;
    snprintf(out, cap, "by %lld ms the client had closed its side",
             (long long)late->closed_by_ms);
    return out;
}

void
cm_late_end(struct cm_late *late, struct cm_filter *filter, const char *how)
{
    char client[64], detail[CM_INCIDENT_TEXT];
    if (!late->on)
        return;
    late->on = false;
    atomic_fetch_sub(late->count, 1);
    late->incident.delay_measured_ms = measured_ms(late);
    if (!how && cm_clock_mono_us() >= late->due_us)
        cm_metrics_delay(&filter->metrics, late->incident.delay_asked_ms,
                         late->incident.delay_measured_ms);
    if (!how)
        how = tell_client(late, client, sizeof client);
    if (how)
        snprintf(detail, sizeof detail, "%.60s: %s", late->incident.detail,
                 how);
    cm_incident_close(filter, &late->incident, CM_INCIDENT_APPLIED,
                      how ? detail : NULL);
}
