/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DELIBERATE_H
#define CM_DELIBERATE_H

#include "milter/filter/session.h"
#include "milter/model/decide.h"

/*
 * cm_deliberate - walk on to the next fault that is really to act: asks Redis
 * what the model cannot know (occurrence of a seeded mail, greylist, tokens of
 * a throttle, step of a sequence, hits left), records what only would have
 * happened (shadow mode: it counts as if live, but takes no hit), and passes
 * over what Redis gave no answer to: no answer, no fault.
 *
 * walk        started by cm_decide_start; goes on where it stopped
 * inbox       the configuration the walk runs over, or NULL; borrowed
 * inbox_name  the canonical address it was found under, "" when there is none
 * recipient, typed  "" when the stage knows no recipient; borrowed by the fate
 * fate_r      out; fate_r->inbox is a new reference when the fault is the
 * inbox's
 *
 * Returns false when nothing (more) acts. May wait for Redis up to the deadline
 * of stateful faults, for rules that have a state, and for those alone.
 */
bool cm_deliberate(struct cm_session *session, struct cm_walk *walk,
                   struct cm_inbox *inbox, const char *inbox_name,
                   const char *recipient, const char *typed,
                   struct cm_fate *fate_r);

#endif
