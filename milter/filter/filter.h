/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FILTER_H
#define CM_FILTER_H

#include "milter/filter/metrics.h"
#include "milter/filter/patience.h"
#include "milter/filter/seen.h"
#include "milter/model/fault.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct cm_address;
struct cm_attendance;
struct cm_buf;
struct cm_dropper;
struct cm_halt_watch;
struct cm_hook;
struct cm_reply;
struct cm_journal;
struct cm_protect;
struct cm_relay;
struct cm_replica;
struct cm_stateful;
struct cm_sync;

/*
 * What the filter counts about itself; each has its name in filter.c and stands
 * in the heartbeat under "counters".
 */
enum cm_filter_count {
    CM_FILTER_SESSIONS,        /* since start */
    CM_FILTER_SESSIONS_OPEN,   /* now */
    CM_FILTER_MESSAGES,        /* that reached their end */
    CM_FILTER_FAULTS,          /* applied */
    CM_FILTER_UNAVAILABLE,     /* due, but could not be done */
    CM_FILTER_SHED,            /* delays not given: too many held */
    CM_FILTER_INVALID_ADDRESS, /* no valid address, so no chaos */
    CM_FILTER_PROTECTED,       /* a protected recipient, so no chaos */
    CM_FILTER_LOCAL,           /* local submission, so no chaos */
    CM_FILTER_STATE_FAILED,    /* Redis had no answer in time, so no fault */
    CM_FILTER_NO_MEMORY,       /* so no chaos */
    CM_FILTER_HEADERS_LOST,    /* over a ceiling, so no fault by a header */
    CM_FILTER_REPLY_REFUSED,   /* libmilter would not take a reply */
    CM_FILTER_HOOK_LOOKUPS,    /* questions to the command hook */
    CM_FILTER_HOOK_LATE,       /* not decided in time, so no fault */
    CM_FILTER_HOOK_MALFORMED,  /* no question at all: the peer was left */
    CM_FILTER_RELAY_QUESTIONS, /* to the saslauthd relay */
    CM_FILTER_RELAY_LATE,      /* not decided in time, so no fault */
    CM_FILTER_RELAY_UNREACHED, /* saslauthd was not there, or did not answer */
    CM_FILTER_COUNT_MAX
};

/*
 * The one filter of the process: its settings and the rooms it works with, all
 * borrowed from main, which outlives every session.
 */
struct cm_filter {
    bool armed;
    unsigned address_flags;
    const char *recipient_delimiter;
    struct cm_replica *replica;
    struct cm_sync *sync;
    struct cm_halt_watch *halt;
    struct cm_stateful *stateful;
    struct cm_journal *journal;
    struct cm_dropper *dropper; /* NULL: nothing can be cut */
    struct cm_hook *hook;       /* NULL: AUTH and the like are never hurt */
    struct cm_relay *relay;     /* NULL: nor is AUTH on Sendmail */
    struct cm_attendance *attendance; /* for these two; NULL without them */
    struct cm_reply
        *drop_instead; /* owned by main: answered when a drop is due
                          and cannot be done; NULL: the mail passes */
    uint64_t seed;     /* of all unseeded coins; logged at start */

    struct cm_patience patience; /* how long the MTA bears a delay */
    struct cm_seen seen;         /* the MTAs that it serves */

    pthread_rwlock_t protect_lock;
    struct cm_protect *protect; /* owned; replaced on reload */

    atomic_ullong questions; /* opened so far; see question.h */
    atomic_llong counts[CM_FILTER_COUNT_MAX];
    struct cm_metrics metrics;
};

void cm_filter_count(struct cm_filter *filter, enum cm_filter_count what);

/* cm_filter_is_live - could any fault meet anything now? Thread-safe. */
bool cm_filter_is_live(const struct cm_filter *filter);

/* cm_filter_protect - put a new list of protected recipients in force; takes
 * ownership. Thread-safe. */
void cm_filter_protect(struct cm_filter *filter, struct cm_protect *protect);

/* cm_filter_protects - may no rule touch this recipient, with its sub-address
 * or without? Thread-safe. */
bool cm_filter_protects(struct cm_filter *filter,
                        const struct cm_address *recipient);

/* cm_filter_halted - must nothing be hurt now, whatever the rules say and
 * whatever was decided before? To be asked where a fault would begin and again
 * right before it acts. */
bool cm_filter_halted(const struct cm_filter *filter);

/* cm_filter_unavailable - why this fault cannot be done by this process, NULL
 * when it can, or when only a try will tell. The text lives as long as the
 * filter. */
const char *cm_filter_unavailable(const struct cm_filter *filter,
                                  const struct cm_fault *fault);

/* cm_filter_report - the filter's members of the heartbeat (see store/sync.h);
 * arg is the struct cm_filter. */
void cm_filter_report(void *arg, struct cm_buf *json);

#endif
