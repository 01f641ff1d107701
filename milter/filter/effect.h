/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EFFECT_H
#define CM_EFFECT_H

#include "milter/filter/session.h"

struct smfi_str; /* libmilter's session, SMFICTX */

/*
 * cm_effect_delay - the end of every callback whose reply is no refusal: hold
 * it for the latency fates that were decided, and for what the effects add at
 * this stage. Nothing happens when there is neither.
 *
 * rules      in force for this reply; may be NULL
 * slow, n    0.. latency fates of this stage, without a hindrance; borrowed
 * recipient, typed  "" when the reply is not to RCPT
 * others     further recipients that the reply answers
 *
 * An effect that would make the reply later than the mail server waits, or that
 * would touch a protected recipient, is recorded as unavailable.
 */
void cm_effect_delay(struct cm_session *session, struct smfi_str *ctx,
                     const struct cm_ruleset *rules, enum cm_stage stage,
                     const struct cm_fate *const *slow, size_t n,
                     const char *recipient, const char *typed, unsigned others);

#endif
