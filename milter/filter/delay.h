/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DELAY_H
#define CM_DELAY_H

#include "milter/filter/session.h"

/*
 * cm_delay_reply - hold the reply of the callback in hand for the longest of n
 * latency fates and for what the effects among them add to that, and record
 * each when the reply has gone, with the time that it was really held for it.
 * Must be the last thing the callback does.
 *
 * fates     1.. of one stage, kind latency, no cm_fate_hindrance, effects last;
 *           borrowed
 * queue_id  may be NULL
 * others    further recipients that the same reply answers
 *
 * When too many replies are held already, or memory is short, there is no
 * delay: recorded as shed.
 */
void cm_delay_reply(struct cm_session *session,
                    const struct cm_fate *const *fates, size_t n,
                    const char *queue_id, unsigned others);

#endif
