/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_VERDICT_H
#define CM_VERDICT_H

#include "milter/filter/session.h"

struct smfi_str; /* libmilter's session, SMFICTX */

/*
 * From decisions to what the MTA is told. Each function is the rest of one
 * callback: it asks the model, acts, records, and returns an SMFIS_ value. In
 * any doubt the answer is SMFIS_CONTINUE.
 */

/* cm_verdict_command - rules at connect, HELO and MAIL, where no recipient is
 * known yet. */
int cm_verdict_command(struct cm_session *session, struct smfi_str *ctx,
                       enum cm_stage stage);

/* cm_verdict_judged - the same for a command whose rules the hook has asked
 * already: what effects add to the reply. */
int cm_verdict_judged(struct cm_session *session, struct smfi_str *ctx,
                      enum cm_stage stage);

/* cm_verdict_rcpt - one recipient, as typed: its inbox's configuration and the
 * rules at RCPT. What acts later is kept with the session. */
int cm_verdict_rcpt(struct cm_session *session, struct smfi_str *ctx,
                    const char *typed);

/* cm_verdict_late - DATA or the end of the message: what was kept for this
 * stage, and the rules at it. */
int cm_verdict_late(struct cm_session *session, struct smfi_str *ctx,
                    enum cm_stage stage);

#endif
