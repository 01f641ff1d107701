/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_JOURNAL_H
#define CM_JOURNAL_H

#include "milter/err.h"
#include "milter/model/rule.h"
#include "milter/model/stage.h"
#include "milter/store/link.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * What happened, on its way to Redis. The mail path puts an incident into a
 * bounded ring and goes on; one thread sends them pipelined: XADD to the stream
 * <prefix>:ev (MAXLEN ~) and HINCRBY on the hash <prefix>:st:totals. While
 * Redis is away the totals are kept and added later; events beyond the ring are
 * dropped and counted.
 *
 * Fields of a stream entry, all texts, all always there:
 *   time      wall clock, ms since the epoch
 *   host      host_id of the filter
 *   n         number of the incident in that process, from 1. An entry whose
 *             acknowledgement was lost is sent again: host and n are its
 *             identity
 *   kind, outcome, stage          by name: greylist, applied, rcpt
 *   inbox, sender, rule, client, qid, reply, detail
 *   asked, measured               ms, or -1
 *   others                        recipients
 *
 * Totals are added exactly once, also when an acknowledgement is lost: each
 * batch has a token, and the script that adds it keeps the last one of each
 * host for a day (<prefix>:st:flush:<host_id>).
 *
 * Totals (fields of the hash): chaos.events_total, chaos.latency_injected_ms,
 * chaos.errors_returned_total, chaos.connections_dropped_total,
 * chaos.greylist_rejections_total, chaos.blackhole_total, connections.total,
 * email.received_total, email.recipients_total.
 */
struct cm_journal;

enum cm_incident_outcome {
    CM_INCIDENT_APPLIED,     /* the fault happened */
    CM_INCIDENT_UNAVAILABLE, /* it was due and could not be done; nothing was */
    CM_INCIDENT_SHADOW,      /* shadow mode: it would have happened */
    CM_INCIDENT_SHED         /* held back by a cap of our own */
};
const char *cm_incident_outcome_name(enum cm_incident_outcome outcome);

#define CM_INCIDENT_TEXT 128
struct cm_incident {
    int64_t time_ms; /* wall clock */
    enum cm_fault_kind kind;
    enum cm_incident_outcome outcome;
    enum cm_stage stage;
    char inbox[321], sender[321];
    char rule[CM_RULE_NAME_BYTES]; /* "inbox:greylist", "r7" */
    char client[46];
    char queue_id[64];             /* "" when not known yet */
    char reply[CM_INCIDENT_TEXT];  /* as sent: "451 4.7.1 ..."; "" if none */
    char detail[CM_INCIDENT_TEXT]; /* "attempt 1/2", why it was unavailable; ""
                                    */
    int64_t delay_asked_ms, delay_measured_ms; /* latency; -1 otherwise */
    unsigned others; /* further recipients of the same message it touched */
};

struct cm_journal_opts {
    struct cm_link_opts link; /* deep-copied */
    const char *prefix;
    const char *host_id;
    int64_t stream_max; /* MAXLEN ~ of the event stream */
    size_t ring;        /* events kept while Redis is away, e.g. 4096 */
};

enum cm_status cm_journal_start(struct cm_journal **journal_r,
                                const struct cm_journal_opts *opts,
                                struct cm_err *err) CM_MUST_CHECK;
/* cm_journal_stop - end the thread, after at most 200 ms of sending what is
 * left. The journal stays valid: callbacks still on their way may record (and
 * are not heard). cm_journal_free - for a stopped journal that nobody uses;
 * NULL-safe. */
void cm_journal_stop(struct cm_journal *journal);
void cm_journal_free(struct cm_journal **journal);

/* cm_journal_record - copy one incident; never waits for Redis. Any thread. */
void cm_journal_record(struct cm_journal *journal,
                       const struct cm_incident *incident);

enum cm_count {
    CM_COUNT_CONNECTIONS,
    CM_COUNT_MESSAGES,
    CM_COUNT_RECIPIENTS,
    CM_COUNT_MAX
};
/* cm_journal_count - add to a total; one atomic add. Any thread. */
void cm_journal_count(struct cm_journal *journal, enum cm_count what,
                      int64_t n);

/* cm_journal_dropped - events dropped since start. Any thread. */
uint64_t cm_journal_dropped(const struct cm_journal *journal);

#endif
