/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_STORE_INCIDENT_H
#define CM_STORE_INCIDENT_H

#include "milter/err.h"
#include "milter/model/fault.h"
#include "milter/model/rule.h"
#include "milter/model/stage.h"

#include <stdint.h>

/* What became of the fault. */
enum cm_incident_outcome {
    CM_INCIDENT_APPLIED,     /* the fault happened */
    CM_INCIDENT_UNAVAILABLE, /* it was due and could not be done; nothing was */
    CM_INCIDENT_SHADOW,      /* shadow mode: it would have happened */
    CM_INCIDENT_SHED         /* held back by a cap of our own */
};
#define CM_INCIDENT_OUTCOMES (CM_INCIDENT_SHED + 1)
const char *cm_incident_outcome_name(enum cm_incident_outcome outcome);
/* cm_incident_parse_outcome - by that name. CM_OK or CM_NOTFOUND. */
enum cm_status
cm_incident_parse_outcome(const char *name,
                          enum cm_incident_outcome *outcome_r) CM_MUST_CHECK;

/* Did the MTA take the message over for this recipient (RFC 1047), as far as a
 * filter can know: another one may still have refused it. */
enum cm_incident_committed {
    CM_COMMITTED_UNKNOWN,
    CM_COMMITTED_YES,
    CM_COMMITTED_NO
};

/* One mail, or one command before there is a mail, that met a fault: what is
 * remembered of it. Owns all it holds, so that it outlives the session. */
#define CM_INCIDENT_TEXT 128
struct cm_incident {
    int64_t time_ms; /* wall clock */
    enum cm_fault_kind kind;
    enum cm_incident_outcome outcome;
    enum cm_stage stage;
    char variant[24]; /* of the fault, e.g. "rst lost"; see entry.h */
    char inbox[321];
    char sender[321];              /* "<>": the null sender; "": not known */
    char rule[CM_RULE_NAME_BYTES]; /* "inbox:greylist", "r7" */
    char client[46];
    char queue_id[64];             /* "" when not known yet */
    char reply[CM_INCIDENT_TEXT];  /* as sent: "451 4.7.1 ..."; "" if none */
    char detail[CM_INCIDENT_TEXT]; /* "attempt 1/2", why it was unavailable; ""
                                    */
    uint32_t probability_ppb;      /* of the rule's coin */
    uint64_t occurrence; /* the seeded coin was tossed for; 0: none was */
    enum cm_incident_committed committed;
    int64_t delay_asked_ms, delay_measured_ms; /* latency; -1 otherwise */
    unsigned others; /* further recipients of the same message it touched */
};

#endif
