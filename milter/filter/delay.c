/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Latency, from fate to record. The record is made when the fault is decided
 * and closed when the reply went out, seconds later and on another thread, when
 * the session may be gone: so it travels with the hold and owns all it needs.
 */
#include "milter/filter/delay.h"
#include "milter/filter/hold.h"
#include "milter/filter/incident.h"
#include "milter/filter/presence.h"
#include "milter/log.h"

#include <stdio.h>
#include <stdlib.h>

struct held {
    struct cm_filter *filter;
    struct cm_presence client;
    int64_t closed_by_ms; /* the client had closed its side; -1: it had not */
    int64_t longest_ms;   /* of what is no effect */
    int64_t added_ms;     /* by the effects */
    size_t n, neffects;   /* effects come last */
    struct cm_incident at[];
};

/* How much of the time that the reply was held was the effects'. What decided
 * comes first, and what goes beyond the time asked for is its own. */
static int64_t
share_of_effects(const struct held *held, int64_t measured_ms)
{
    int64_t rest = measured_ms - held->longest_ms;
    if (held->neffects == held->n)
        return measured_ms;
    if (rest < 0)
        return 0;
    return rest < held->added_ms ? rest : held->added_ms;
}

static void
close_all(struct held *held, enum cm_incident_outcome outcome,
          int64_t measured_ms, const char *detail)
{
    int64_t added = share_of_effects(held, measured_ms);
    for (size_t i = 0; i < held->n; i++) {
        bool is_effect = i >= held->n - held->neffects;
        held->at[i].delay_measured_ms = is_effect ? added : measured_ms - added;
        cm_incident_close(held->filter, &held->at[i], outcome, detail);
    }
    free(held);
}

/* The MTA went on without our reply. */
static void
forget_commit(struct held *held)
{
    for (size_t i = 0; i < held->n; i++)
        held->at[i].committed = CM_COMMITTED_UNKNOWN;
}

/* A client that has closed its side may still wait for the reply, so only one
 * whose connection is no more ends the hold. */
static bool
is_wanted(void *arg, int64_t measured_ms)
{
    struct held *held = arg;
    enum cm_presence_now now = cm_presence_look(&held->client);
    if (now == CM_PRESENCE_CLOSED && held->closed_by_ms < 0)
        held->closed_by_ms = measured_ms;
    return now != CM_PRESENCE_GONE;
}

static void
on_hold_end(void *arg, enum cm_hold_end end, int64_t measured_ms)
{
    enum cm_incident_outcome outcome = CM_INCIDENT_APPLIED;
    struct held *held = arg;
    const char *detail = NULL;
    char closed[CM_INCIDENT_TEXT];
    switch (end) {
    case CM_HOLD_SENT:
        cm_metrics_delay(&held->filter->metrics,
                         held->longest_ms + held->added_ms, measured_ms);
        if (held->closed_by_ms < 0)
            break;
        snprintf(closed, sizeof closed,
                 "by %lld ms the client had closed its side",
                 (long long)held->closed_by_ms);
        detail = closed;
        break;
    case CM_HOLD_LEFT:
        detail = "cut short: the client's connection was reset";
        break;
    case CM_HOLD_GONE:
        detail = "the session ended before the reply was due";
        forget_commit(held);
        break;
    case CM_HOLD_CUT:
        detail = "cut short: the filter stops";
        break;
    case CM_HOLD_RELEASED:
        detail = "cut short: chaos was halted";
        break;
    case CM_HOLD_FAILED:
        outcome = CM_INCIDENT_SHED;
        detail = "no memory to hold the reply";
        break;
    }
    close_all(held, outcome, measured_ms, detail);
}

static void
sleep_instead(struct held *held, int64_t delay_ms)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn(
            "replies cannot be held on this system, so the filter sleeps "
            "and other sessions may wait with it");
    close_all(held, CM_INCIDENT_APPLIED, cm_hold_sleep(delay_ms), NULL);
}

void
cm_delay_reply(struct cm_session *session, const struct cm_fate *const *fates,
               size_t n, const char *queue_id, unsigned others)
{
    struct held *held = calloc(1, sizeof *held + n * sizeof held->at[0]);
    if (!held) {
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
        return;
    }
    held->filter = session->filter;
    held->closed_by_ms = -1;
    held->n = n;
    for (size_t i = 0; i < n; i++) {
        cm_incident_make(&held->at[i], session, fates[i], queue_id);
        held->at[i].others = others;
        if (fates[i]->rule->face == CM_FACE_EFFECT) {
            held->neffects++;
            held->added_ms += fates[i]->delay_ms;
        } else if (fates[i]->delay_ms > held->longest_ms) {
            held->longest_ms = fates[i]->delay_ms;
        }
    }
    int64_t delay_ms = held->longest_ms + held->added_ms;
    if (delay_ms == 0) {
        close_all(held, CM_INCIDENT_APPLIED, 0, NULL);
        return;
    }
    cm_presence_begin(&held->client,
                      session->tuple_known ? &session->tuple : NULL);
    struct cm_hold_wish wish = {
        .delay_ms = delay_ms,
        .progress = cm_patience_renews(session->mta, fates[0]->stage),
        .look = held->client.known ? is_wanted : NULL,
        .done = on_hold_end,
        .arg = held};
    switch (cm_hold_until(session->fd, &wish)) {
    case CM_HOLD_OK:
        break;
    case CM_HOLD_FULL:
        close_all(held, CM_INCIDENT_SHED, 0, "no reply more can be held");
        break;
    case CM_HOLD_UNABLE:
        sleep_instead(held, delay_ms);
        break;
    }
}
