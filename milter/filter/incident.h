/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FILTER_INCIDENT_H
#define CM_FILTER_INCIDENT_H

#include "milter/filter/session.h"
#include "milter/store/journal.h"

/*
 * From a fate to the record of what became of it: one incident for the journal
 * and one line for the log, made in one place, so that both say the same.
 */

/* cm_incident_make - everything but how it ended. queue_id may be NULL. */
void cm_incident_make(struct cm_incident *incident_r,
                      const struct cm_session *session,
                      const struct cm_fate *fate, const char *queue_id);

/* cm_incident_close - how it ended: count it, log it, hand it to the journal.
 * detail may be NULL: the fate's stays. */
void cm_incident_close(struct cm_filter *filter, struct cm_incident *incident,
                       enum cm_incident_outcome outcome, const char *detail);

#endif
