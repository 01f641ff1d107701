/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ATTEMPT_H
#define CM_ATTEMPT_H

#include "milter/filter/session.h"

#include <stdint.h>

/*
 * Which attempt to deliver it is, for rules with such a condition. Counted in
 * Redis by client, sender and recipient, once for a recipient of a message, and
 * only where a rule asks for it.
 */

/* cm_attempt_count - the number for the recipient of this event at RCPT, 1 for
 * the first attempt; 0: nobody asks, or it cannot be told. Waits for Redis up
 * to the deadline of stateful faults. */
int64_t cm_attempt_count(struct cm_session *session,
                         const struct cm_event *event);

/* cm_attempt_end - the message was accepted, and the client is told so: the
 * next mail to its recipients begins at 1. */
void cm_attempt_end(struct cm_session *session);

#endif
