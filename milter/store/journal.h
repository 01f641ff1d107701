/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_JOURNAL_H
#define CM_JOURNAL_H

#include "milter/err.h"
#include "milter/store/incident.h"
#include "milter/store/link.h"

#include <stddef.h>
#include <stdint.h>

/*
 * What happened, on its way to Redis. The mail path puts an incident into a
 * bounded ring and goes on; one thread sends them pipelined: XADD to the stream
 * <prefix>:ev (MAXLEN ~) and HINCRBY on the hash <prefix>:st:totals. While
 * Redis is away the totals are kept and added later; events beyond the ring are
 * dropped and counted.
 *
 * The fields of a stream entry are in entry.h, the totals in tally.h.
 *
 * Totals are added exactly once, also when an acknowledgement is lost: each
 * batch has a token, and the script that adds it keeps the last one of each
 * host for a day (<prefix>:st:flush:<host_id>).
 */
struct cm_journal;

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

/* cm_journal_tally - all that was counted since the start; borrowed. */
struct cm_tally;
const struct cm_tally *cm_journal_tally(const struct cm_journal *journal);

/* cm_journal_dropped - events dropped since start. Any thread. */
uint64_t cm_journal_dropped(const struct cm_journal *journal);

#endif
