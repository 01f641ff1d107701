/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ENTRY_H
#define CM_ENTRY_H

#include <stdint.h>

struct cm_incident;

/*
 * One entry of the stream of events <prefix>:ev, as the journal writes it and
 * the chronicle reads it. All fields are texts and always there:
 *
 *   time                    wall clock, ms since the epoch
 *   host                    host_id of the filter
 *   n                       number of the incident in that process, from 1. An
 *                           entry whose acknowledgement was lost is sent again:
 *                           time, host and n are its identity
 *   kind, outcome, stage    by name: greylist, applied, rcpt
 *   variant                 of the fault: "rst lost", "fin ackLost", "webhooks"
 *   inbox                   the recipient, canonical; "" before there is one
 *   sender                  "<>" for the null sender, "" when not known
 *   rule, client, qid, reply, detail
 *   probability             of the rule, in parts per billion
 *   occurrence              which mail of rule, sender and recipient the seeded
 *                           coin was tossed for, from 1; 0: no such coin
 *   committed               did the MTA take the message over: "yes", "no", ""
 *   asked, measured         ms, or -1
 *   others                  further recipients of the message it touched
 */
enum cm_entry_field {
    CM_ENTRY_TIME,
    CM_ENTRY_HOST,
    CM_ENTRY_N,
    CM_ENTRY_KIND,
    CM_ENTRY_OUTCOME,
    CM_ENTRY_STAGE,
    CM_ENTRY_VARIANT,
    CM_ENTRY_INBOX,
    CM_ENTRY_SENDER,
    CM_ENTRY_RULE,
    CM_ENTRY_CLIENT,
    CM_ENTRY_QID,
    CM_ENTRY_REPLY,
    CM_ENTRY_DETAIL,
    CM_ENTRY_PROBABILITY,
    CM_ENTRY_OCCURRENCE,
    CM_ENTRY_COMMITTED,
    CM_ENTRY_ASKED,
    CM_ENTRY_MEASURED,
    CM_ENTRY_OTHERS,
    CM_ENTRY_FIELDS
};

const char *cm_entry_field_name(enum cm_entry_field field); /* static */

/* An incident as texts; those that are its own are borrowed from it. */
struct cm_entry_texts {
    const char *at[CM_ENTRY_FIELDS];
    char numbers[CM_ENTRY_FIELDS][24];
};

/* cm_entry_print - incident and host are borrowed by texts_r. */
void cm_entry_print(struct cm_entry_texts *texts_r,
                    const struct cm_incident *incident, const char *host,
                    uint64_t n);

#endif
