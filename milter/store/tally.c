/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A flat array, so that one loop finds what is not zero: the faults' cells
 * follow the totals, kind by kind, stage by stage. Most of them stay zero for
 * ever, and walking five hundred of them four times a second costs less than
 * one command to Redis. A hash of those in use was rejected for its lock.
 */
#include "milter/store/tally.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum total {
    TOTAL_EVENTS,
    TOTAL_LATENCY_MS,
    TOTAL_ERRORS,
    TOTAL_DROPS,
    TOTAL_GREYLIST,
    TOTAL_BLACKHOLE,
    TOTAL_CONNECTIONS,
    TOTAL_MESSAGES,
    TOTAL_RECIPIENTS,
    TOTAL_COUNT
};
_Static_assert(TOTAL_COUNT == CM_TALLY_TOTALS, "the header says how many");

static const char *const total_names[] = {
    [TOTAL_EVENTS] = "chaos.events_total",
    [TOTAL_LATENCY_MS] = "chaos.latency_injected_ms",
    [TOTAL_ERRORS] = "chaos.errors_returned_total",
    [TOTAL_DROPS] = "chaos.connections_dropped_total",
    [TOTAL_GREYLIST] = "chaos.greylist_rejections_total",
    [TOTAL_BLACKHOLE] = "chaos.blackhole_total",
    [TOTAL_CONNECTIONS] = "connections.total",
    [TOTAL_MESSAGES] = "email.received_total",
    [TOTAL_RECIPIENTS] = "email.recipients_total",
};

static void
add(struct cm_tally *tally, size_t cell, int64_t n)
{
    atomic_fetch_add_explicit(&tally->cells[cell], n, memory_order_relaxed);
}

static size_t
fault_cell(const struct cm_incident *incident)
{
    size_t row = (size_t)incident->kind * CM_STAGE_COUNT + incident->stage;
    return TOTAL_COUNT + row * CM_INCIDENT_OUTCOMES + incident->outcome;
}

void
cm_tally_incident(struct cm_tally *tally, const struct cm_incident *incident)
{
    add(tally, fault_cell(incident), 1);
    if (incident->outcome != CM_INCIDENT_APPLIED)
        return;
    add(tally, TOTAL_EVENTS, 1);
    switch (incident->kind) {
    case CM_FAULT_ERROR:
        add(tally, TOTAL_ERRORS, 1);
        break;
    case CM_FAULT_LATENCY:
        if (incident->delay_measured_ms > 0)
            add(tally, TOTAL_LATENCY_MS, incident->delay_measured_ms);
        break;
    case CM_FAULT_DROP:
        add(tally, TOTAL_DROPS, 1);
        break;
    case CM_FAULT_GREYLIST:
        add(tally, TOTAL_GREYLIST, 1);
        break;
    case CM_FAULT_BLACKHOLE:
        add(tally, TOTAL_BLACKHOLE, 1);
        break;
    case CM_FAULT_THROTTLE:
    case CM_FAULT_SEQUENCE:
    case CM_FAULT_QUARANTINE:
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_MISDELIVER:
    case CM_FAULT_MUTATE:
    case CM_FAULT_HIDE:
    case CM_FAULT_COUNT:
        break;
    }
}

void
cm_tally_count(struct cm_tally *tally, enum cm_count what, int64_t n)
{
    static const enum total totals[] = {
        [CM_COUNT_CONNECTIONS] = TOTAL_CONNECTIONS,
        [CM_COUNT_MESSAGES] = TOTAL_MESSAGES,
        [CM_COUNT_RECIPIENTS] = TOTAL_RECIPIENTS};
    add(tally, totals[what], n);
}

int64_t
cm_tally_get(const struct cm_tally *tally, size_t cell)
{
    return atomic_load_explicit(&tally->cells[cell], memory_order_relaxed);
}

bool
cm_tally_any(const struct cm_tally *tally)
{
    bool any = false;
    for (size_t i = 0; i < CM_TALLY_CELLS && !any; i++)
        any = cm_tally_get(tally, i) != tally->taken[i];
    return any;
}

bool
cm_tally_take(struct cm_tally *tally, int64_t amounts_r[CM_TALLY_CELLS])
{
    bool any = false;
    for (size_t i = 0; i < CM_TALLY_CELLS; i++) {
        int64_t now = cm_tally_get(tally, i);
        amounts_r[i] = now - tally->taken[i];
        tally->taken[i] = now;
        any = any || amounts_r[i] != 0;
    }
    return any;
}

void
cm_tally_name(size_t cell, char *out, size_t cap)
{
    if (cell < TOTAL_COUNT) {
        snprintf(out, cap, "%s", total_names[cell]);
        return;
    }
    cell -= TOTAL_COUNT;
    size_t row = cell / CM_INCIDENT_OUTCOMES;
    snprintf(out, cap, "faults.%s.%s.%s",
             cm_fault_name((enum cm_fault_kind)(row / CM_STAGE_COUNT)),
             cm_stage_name((enum cm_stage)(row % CM_STAGE_COUNT)),
             cm_incident_outcome_name(
                 (enum cm_incident_outcome)(cell % CM_INCIDENT_OUTCOMES)));
}

bool
cm_tally_parse_fault(const char *name, enum cm_fault_kind *kind_r,
                     enum cm_stage *stage_r,
                     enum cm_incident_outcome *outcome_r)
{
    char kind[16], stage[16], outcome[16];
    int end = 0;
    return sscanf(name, "faults.%15[a-z].%15[a-z].%15[a-z]%n", kind, stage,
                  outcome, &end) == 3 &&
           name[end] == '\0' && cm_fault_parse_kind(kind, kind_r) == CM_OK &&
           cm_stage_parse(stage, stage_r) == CM_OK &&
           cm_incident_parse_outcome(outcome, outcome_r) == CM_OK;
}
