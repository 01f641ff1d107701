/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DEED_H
#define CM_DEED_H

#include "milter/filter/session.h"
#include "milter/store/journal.h"

struct smfi_str; /* libmilter's session, SMFICTX */

/*
 * One fate carried out, and what became of it recorded. What several fates of
 * one message do together is in edit.h (what is delivered) and delay.h (when
 * the reply goes out).
 */

/* Of several fates that meet one reply, those with a lower turn come first. */
enum cm_deed_turn {
    CM_DEED_CUT,     /* the connection goes before the reply does */
    CM_DEED_REFUSAL, /* nothing else of the message can be done then */
    CM_DEED_EDIT,    /* where the message goes, and what it says */
    CM_DEED_DELAY
};
enum cm_deed_turn cm_deed_turn(const struct cm_fate *fate);

/*
 * cm_deed_do - carry out one fate that cuts or refuses, or at a stage before
 * the end of the message any that can act there.
 *
 * others  further recipients that it touches too
 *
 * Returns the SMFIS_ value for the MTA. SMFIS_CONTINUE when it could not be
 * done, which is recorded too.
 */
int cm_deed_do(struct cm_session *session, struct smfi_str *ctx,
               const struct cm_fate *fate, unsigned others);

/* cm_deed_redeem - answer the command that the hook let a ticket be put in
 * place of; frees it. Returns as cm_deed_do. */
struct cm_ticket;
int cm_deed_redeem(struct cm_session *session, struct smfi_str *ctx,
                   struct cm_ticket *ticket);

/* cm_deed_record - how a fate ended. detail may be NULL: the fate's stays. */
void cm_deed_record(struct cm_session *session, struct smfi_str *ctx,
                    const struct cm_fate *fate,
                    enum cm_incident_outcome outcome, unsigned others,
                    const char *detail);

/* cm_deed_queue_id - the MTA's name for the message, NULL before it has one. */
const char *cm_deed_queue_id(struct smfi_str *ctx);

#endif
