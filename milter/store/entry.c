/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The names of the fields stand in one table that writer and reader share, so a
 * field cannot be written under one name and looked for under another.
 */
#include "milter/store/entry.h"
#include "milter/store/incident.h"

#include <inttypes.h>
#include <stdio.h>

const char *
cm_entry_field_name(enum cm_entry_field field)
{
    static const char *const names[CM_ENTRY_FIELDS] = {
        [CM_ENTRY_TIME] = "time",
        [CM_ENTRY_HOST] = "host",
        [CM_ENTRY_N] = "n",
        [CM_ENTRY_KIND] = "kind",
        [CM_ENTRY_OUTCOME] = "outcome",
        [CM_ENTRY_STAGE] = "stage",
        [CM_ENTRY_VARIANT] = "variant",
        [CM_ENTRY_INBOX] = "inbox",
        [CM_ENTRY_SENDER] = "sender",
        [CM_ENTRY_RULE] = "rule",
        [CM_ENTRY_CLIENT] = "client",
        [CM_ENTRY_QID] = "qid",
        [CM_ENTRY_REPLY] = "reply",
        [CM_ENTRY_DETAIL] = "detail",
        [CM_ENTRY_PROBABILITY] = "probability",
        [CM_ENTRY_OCCURRENCE] = "occurrence",
        [CM_ENTRY_COMMITTED] = "committed",
        [CM_ENTRY_ASKED] = "asked",
        [CM_ENTRY_MEASURED] = "measured",
        [CM_ENTRY_OTHERS] = "others",
    };
    return names[field];
}

static void
print_number(struct cm_entry_texts *texts, enum cm_entry_field field, int64_t n)
{
    snprintf(texts->numbers[field], sizeof texts->numbers[field], "%" PRId64,
             n);
    texts->at[field] = texts->numbers[field];
}

static const char *
committed_name(enum cm_incident_committed committed)
{
    switch (committed) {
    case CM_COMMITTED_UNKNOWN:
        break;
    case CM_COMMITTED_YES:
        return "yes";
    case CM_COMMITTED_NO:
        return "no";
    }
    return "";
}

void
cm_entry_print(struct cm_entry_texts *texts_r, const struct cm_incident *in,
               const char *host, uint64_t n)
{
    const char **at = texts_r->at;
    print_number(texts_r, CM_ENTRY_TIME, in->time_ms);
    at[CM_ENTRY_HOST] = host;
    print_number(texts_r, CM_ENTRY_N, (int64_t)n);
    at[CM_ENTRY_KIND] = cm_fault_name(in->kind);
    at[CM_ENTRY_OUTCOME] = cm_incident_outcome_name(in->outcome);
    at[CM_ENTRY_STAGE] = cm_stage_name(in->stage);
    at[CM_ENTRY_VARIANT] = in->variant;
    at[CM_ENTRY_INBOX] = in->inbox;
    at[CM_ENTRY_SENDER] = in->sender;
    at[CM_ENTRY_RULE] = in->rule;
    at[CM_ENTRY_CLIENT] = in->client;
    at[CM_ENTRY_QID] = in->queue_id;
    at[CM_ENTRY_REPLY] = in->reply;
    at[CM_ENTRY_DETAIL] = in->detail;
    print_number(texts_r, CM_ENTRY_PROBABILITY, in->probability_ppb);
    print_number(texts_r, CM_ENTRY_OCCURRENCE, (int64_t)in->occurrence);
    at[CM_ENTRY_COMMITTED] = committed_name(in->committed);
    print_number(texts_r, CM_ENTRY_ASKED, in->delay_asked_ms);
    print_number(texts_r, CM_ENTRY_MEASURED, in->delay_measured_ms);
    print_number(texts_r, CM_ENTRY_OTHERS, in->others);
}
