/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TALLY_H
#define CM_TALLY_H

#include "milter/store/journal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the mail path has counted since the start: one cell for each total of
 * the hash <prefix>:st:totals. Adding is one atomic add and never waits; one
 * thread takes what has been added since it took before, for Redis. The names
 * of the cells, which are the fields of the hash:
 *
 *   chaos.events_total, chaos.latency_injected_ms, chaos.errors_returned_total,
 *   chaos.connections_dropped_total, chaos.greylist_rejections_total,
 *   chaos.blackhole_total         as VaultSandbox counts: what was applied
 *   connections.total, email.received_total, email.recipients_total
 *   faults.KIND.STAGE.OUTCOME     every incident, e.g.
 * faults.error.rcpt.applied
 */
#define CM_TALLY_TOTALS 9
#define CM_TALLY_CELLS                                                         \
    (CM_TALLY_TOTALS + CM_FAULT_COUNT * CM_STAGE_COUNT * CM_INCIDENT_OUTCOMES)
#define CM_TALLY_NAME_BYTES 48

struct cm_tally { /* zeroed to begin with */
    _Atomic int64_t cells[CM_TALLY_CELLS];
    int64_t taken[CM_TALLY_CELLS]; /* the taking thread's own */
};

/* cm_tally_incident, cm_tally_count - add; any thread. */
void cm_tally_incident(struct cm_tally *tally,
                       const struct cm_incident *incident);
void cm_tally_count(struct cm_tally *tally, enum cm_count what, int64_t n);

/* cm_tally_get - one cell since the start; any thread. */
int64_t cm_tally_get(const struct cm_tally *tally, size_t cell);

/* cm_tally_any - has anything gathered since it was taken? cm_tally_take - that
 * into amounts_r; false: all are 0. One thread alone. */
bool cm_tally_any(const struct cm_tally *tally);
bool cm_tally_take(struct cm_tally *tally, int64_t amounts_r[CM_TALLY_CELLS]);

/* cm_tally_name - of a cell; cap at least CM_TALLY_NAME_BYTES. */
void cm_tally_name(size_t cell, char *out, size_t cap);

/* cm_tally_parse_fault - the other way round for "faults.KIND.STAGE.OUTCOME";
 * false when the name is not one of those. */
bool cm_tally_parse_fault(const char *name, enum cm_fault_kind *kind_r,
                          enum cm_stage *stage_r,
                          enum cm_incident_outcome *outcome_r);

#endif
