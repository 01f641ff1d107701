/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/incident.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/model/reply.h"
#include "milter/model/rule.h"

#include <stdio.h>

/* The commands that make up one mail. */
#define CM_STAGES_OF_MAIL                                                      \
    (CM_STAGE_BIT(CM_STAGE_MAIL) | CM_STAGE_BIT(CM_STAGE_RCPT) |               \
     CM_STAGE_BIT(CM_STAGE_DATA) | CM_STAGE_BIT(CM_STAGE_MESSAGE))

static void
copy(char *to, size_t cap, const char *from)
{
    snprintf(to, cap, "%s", from);
}

/* What the kind alone does not tell. */
static const char *
variant_of(const struct cm_fault *fault)
{
    if (fault->kind == CM_FAULT_BLACKHOLE)
        return fault->u.blackhole.webhooks ? "webhooks" : "";
    if (fault->kind != CM_FAULT_DROP)
        return "";
    bool lost = fault->u.drop.outcome == CM_DROP_LOST;
    if (fault->u.drop.how == CM_DROP_RST)
        return lost ? "rst lost" : "rst ackLost";
    return lost ? "fin lost" : "fin ackLost";
}

/* Has the MTA the message once the fate is carried out? Before MAIL there is
 * none, and what comes after a delayed RCPT nobody knows yet. */
static enum cm_incident_committed
committed_after(const struct cm_fate *fate)
{
    if (fate->fault->kind == CM_FAULT_DROP)
        return fate->fault->u.drop.outcome == CM_DROP_LOST ? CM_COMMITTED_NO
                                                           : CM_COMMITTED_YES;
    if (fate->reply)
        return CM_STAGE_BIT(fate->stage) & CM_STAGES_OF_MAIL
                   ? CM_COMMITTED_NO
                   : CM_COMMITTED_UNKNOWN;
    return fate->stage == CM_STAGE_MESSAGE ? CM_COMMITTED_YES
                                           : CM_COMMITTED_UNKNOWN;
}

/* What the client reads. The relay can but say no: the words are Sendmail's. */
static void
print_reply(struct cm_incident *in, const struct cm_session *session,
            const struct cm_fate *fate)
{
    if (session->mta == CM_MTA_SENDMAIL && fate->stage == CM_STAGE_AUTH &&
        fate->reply->code == 535)
        copy(in->reply, sizeof in->reply, CM_MTA_SENDMAIL_NO);
    else
        cm_reply_print(fate->reply, in->reply, sizeof in->reply);
}

void
cm_incident_make(struct cm_incident *incident_r,
                 const struct cm_session *session, const struct cm_fate *fate,
                 const char *queue_id)
{
    struct cm_incident *in = incident_r;
    *in = (struct cm_incident){
        .time_ms = cm_clock_wall_ms(),
        .kind = fate->fault->kind,
        .stage = fate->stage,
        .probability_ppb = fate->rule->probability_ppb,
        .occurrence = fate->occurrence,
        .committed = committed_after(fate),
        .delay_asked_ms = -1,
        .delay_measured_ms = -1,
    };
    if (in->kind == CM_FAULT_LATENCY)
        in->delay_asked_ms = fate->delay_ms;
    copy(in->variant, sizeof in->variant, variant_of(fate->fault));
    copy(in->inbox, sizeof in->inbox, fate->recipient);
    if (session->msg.open && session->msg.sender_known)
        copy(in->sender, sizeof in->sender,
             session->msg.sender.len > 0 ? session->msg.sender.text : "<>");
    cm_rule_print_name(fate->rule, in->rule, sizeof in->rule);
    copy(in->client, sizeof in->client, session->client_text);
    copy(in->queue_id, sizeof in->queue_id, queue_id ? queue_id : "");
    copy(in->detail, sizeof in->detail, fate->detail);
    if (fate->reply)
        print_reply(in, session, fate);
}

static void
count(struct cm_filter *filter, enum cm_incident_outcome outcome)
{
    switch (outcome) {
    case CM_INCIDENT_APPLIED:
        cm_filter_count(filter, CM_FILTER_FAULTS);
        break;
    case CM_INCIDENT_UNAVAILABLE:
        cm_filter_count(filter, CM_FILTER_UNAVAILABLE);
        break;
    case CM_INCIDENT_SHED:
        cm_filter_count(filter, CM_FILTER_SHED);
        break;
    case CM_INCIDENT_SHADOW:
        break;
    }
}

/* All that came from outside is quoted: a rule's text cannot forge a member. */
static void
log_incident(const struct cm_incident *in)
{
    char inbox[sizeof in->inbox * 4], sender[sizeof in->sender * 4];
    char reply[sizeof in->reply * 4], detail[sizeof in->detail * 4];
    char delay[64] = "";
    if (in->delay_asked_ms >= 0)
        snprintf(delay, sizeof delay, " asked_ms=%lld measured_ms=%lld",
                 (long long)in->delay_asked_ms,
                 (long long)in->delay_measured_ms);
    cm_log_info("fault=%s outcome=%s rule=%s stage=%s inbox=\"%s\" "
                "sender=\"%s\" client=%s qid=%s others=%u reply=\"%s\" "
                "detail=\"%s\"%s",
                cm_fault_name(in->kind), cm_incident_outcome_name(in->outcome),
                in->rule, cm_stage_name(in->stage),
                cm_log_quote(inbox, sizeof inbox, in->inbox),
                cm_log_quote(sender, sizeof sender, in->sender), in->client,
                in->queue_id[0] ? in->queue_id : "-", in->others,
                cm_log_quote(reply, sizeof reply, in->reply),
                cm_log_quote(detail, sizeof detail, in->detail), delay);
}

void
cm_incident_close(struct cm_filter *filter, struct cm_incident *in,
                  enum cm_incident_outcome outcome, const char *detail)
{
    in->outcome = outcome;
    if (detail)
        copy(in->detail, sizeof in->detail, detail);
    if (outcome != CM_INCIDENT_APPLIED)
        in->committed = CM_COMMITTED_UNKNOWN;
    if (outcome == CM_INCIDENT_UNAVAILABLE || outcome == CM_INCIDENT_SHED)
        in->reply[0] = '\0'; /* nothing was sent */
    count(filter, outcome);
    cm_journal_record(filter->journal, in);
    if (cm_log_enabled(CM_LOG_INFO))
        log_incident(in);
}
