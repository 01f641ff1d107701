/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FAULT_H
#define CM_FAULT_H

#include "milter/err.h"
#include "milter/model/coin.h"
#include "milter/model/stage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_reply;

/* What a rule does to a mail. Every kind is one row of the table in fault.c:
 * name, stages it may act at, the Redis state it needs. */
enum cm_fault_kind {
    CM_FAULT_ERROR,
    CM_FAULT_LATENCY,
    CM_FAULT_DROP,
    CM_FAULT_GREYLIST,
    CM_FAULT_BLACKHOLE,
    CM_FAULT_THROTTLE,
    CM_FAULT_SEQUENCE,
    CM_FAULT_QUARANTINE,
    CM_FAULT_DUPLICATE,
    CM_FAULT_MISDELIVER,
    CM_FAULT_MUTATE,
    CM_FAULT_HIDE,
    CM_FAULT_COUNT
};

/* The longest delay that can be asked for in milliseconds and the longest there
 * is, one second over what a client waits for the end of a message (RFC 5321
 * 4.5.3.2.6); the longest window, most tries. */
#define CM_FAULT_DELAY_MAX_MS  60000
#define CM_FAULT_LIMIT_MAX_MS  601000
#define CM_FAULT_WINDOW_MAX_MS ((int64_t)366 * 24 * 3600 * 1000)
#define CM_FAULT_ATTEMPTS_MAX  1000000

/* error: either one reply, or one drawn per event from VaultSandbox's lists. */
struct cm_fault_error {
    struct cm_reply *reply; /* owned; NULL when drawn */
    unsigned types;         /* enum cm_reply_types; 0 when reply is set */
};

enum cm_delay_kind { CM_DELAY_FIXED, CM_DELAY_UNIFORM, CM_DELAY_LOGNORMAL };
struct cm_fault_latency {
    enum cm_delay_kind kind;
    int64_t min_ms;   /* uniform */
    int64_t max_ms;   /* fixed and uniform: 0..CM_FAULT_LIMIT_MAX_MS */
    double median_ms; /* lognormal, > 0 */
    double sigma;     /* lognormal, >= 0; cut at CM_FAULT_DELAY_MAX_MS */
    unsigned stages;  /* CM_STAGE_BIT of the reply that a limit of RFC 5321 is
                         about; 0: of any */
};

enum cm_drop_how { CM_DROP_RST, CM_DROP_FIN };
enum cm_drop_outcome { CM_DROP_LOST, CM_DROP_ACK_LOST }; /* RFC 1047 */
struct cm_fault_drop {
    enum cm_drop_how how;
    enum cm_drop_outcome outcome;
};

enum cm_track { CM_TRACK_IP, CM_TRACK_SENDER, CM_TRACK_IP_SENDER };
struct cm_fault_greylist {
    int64_t window_ms; /* 0..CM_FAULT_WINDOW_MAX_MS after the first attempt */
    int64_t max_attempts; /* >= 1: attempt n passes when n >= this */
    int64_t min_delay_ms; /* an attempt sooner after the first never passes */
    enum cm_track track;
};

struct cm_fault_blackhole {
    bool webhooks;
};

enum cm_throttle_per {
    CM_THROTTLE_INBOX,
    CM_THROTTLE_DOMAIN,
    CM_THROTTLE_SENDER,
    CM_THROTTLE_CLIENT
};
struct cm_fault_throttle {
    double rate;   /* tokens per second, > 0 */
    int64_t burst; /* >= 1 */
    enum cm_throttle_per per;
    struct cm_reply *reply; /* owned; given while the bucket is empty */
};

enum cm_key_part {
    CM_KEY_CLIENT = 1 << 0,
    CM_KEY_SENDER = 1 << 1,
    CM_KEY_RECIPIENT = 1 << 2
};
#define CM_SEQUENCE_STEPS_MAX 64
struct cm_fault_sequence {
    struct cm_fault *steps; /* owned; one of kind CM_FAULT_COUNT is "ok" */
    size_t nsteps;          /* 1..CM_SEQUENCE_STEPS_MAX */
    unsigned key;           /* enum cm_key_part bits, not 0 */
    bool repeat; /* after the last step: begin again, else ok for ever */
    int64_t ttl_ms;
};

enum cm_mutate_how {
    CM_MUTATE_TRUNCATE_BODY,
    CM_MUTATE_DROP_HEADER,
    CM_MUTATE_ADD_HEADER,
    CM_MUTATE_FLIP_BITS
};
struct cm_fault_mutate {
    enum cm_mutate_how how;
    int64_t n;   /* truncateBody: bytes left; flipBits: how many */
    char *name;  /* owned; header name */
    char *value; /* owned; header value */
};

struct cm_fault {
    enum cm_fault_kind kind;
    union {
        struct cm_fault_error error;
        struct cm_fault_latency latency;
        struct cm_fault_drop drop;
        struct cm_fault_greylist greylist;
        struct cm_fault_blackhole blackhole;
        struct cm_fault_throttle throttle;
        struct cm_fault_sequence sequence;
        char *quarantine_reason; /* owned */
        char *misdeliver_to;     /* owned, canonical address */
        struct cm_fault_mutate mutate;
        char *hide; /* owned; EHLO keywords in capitals: "STARTTLS,SIZE" */
    } u;
};

/* cm_fault_fini - free what the fault owns; the struct itself is the caller's.
 * A zeroed fault may be passed. */
void cm_fault_fini(struct cm_fault *fault);

const char *cm_fault_name(enum cm_fault_kind kind); /* "error", ... static */
enum cm_status cm_fault_parse_kind(const char *name,
                                   enum cm_fault_kind *kind_r) CM_MUST_CHECK;

/* cm_fault_stages - CM_STAGE_BITs at which this fault may act; for a drop it
 * depends on the outcome (ackLost at the message only), for a latency that is
 * just under or over a limit of RFC 5321 on the limit, for a sequence on its
 * steps: 0 when no stage suits them all. */
unsigned cm_fault_stages(const struct cm_fault *fault);

/* cm_fault_default_stage - where the fault acts when nothing else is said. */
enum cm_stage cm_fault_default_stage(const struct cm_fault *fault);

/* cm_fault_step - what attempt n (>= 1) of a sequence meets: a step, borrowed,
 * or NULL for "ok". */
const struct cm_fault *cm_fault_step(const struct cm_fault_sequence *sequence,
                                     int64_t n);

/* cm_fault_delay - the delay of one event, 0..CM_FAULT_LIMIT_MAX_MS. The draws
 * are uniform; draw2 is used by lognormal only (Box-Muller needs two). */
int64_t cm_fault_delay(const struct cm_fault_latency *latency, uint64_t draw,
                       uint64_t draw2);

#endif
