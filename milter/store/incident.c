/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/incident.h"

#include <string.h>

static const char *const outcome_names[CM_INCIDENT_OUTCOMES] = {
    [CM_INCIDENT_APPLIED] = "applied",
    [CM_INCIDENT_UNAVAILABLE] = "unavailable",
    [CM_INCIDENT_SHADOW] = "shadow",
    [CM_INCIDENT_SHED] = "shed",
};

const char *
cm_incident_outcome_name(enum cm_incident_outcome outcome)
{
    return outcome_names[outcome];
}

enum cm_status
cm_incident_parse_outcome(const char *name, enum cm_incident_outcome *outcome_r)
{
    for (int i = 0; i < CM_INCIDENT_OUTCOMES; i++) {
        if (strcmp(outcome_names[i], name) == 0) {
            *outcome_r = (enum cm_incident_outcome)i;
            return CM_OK;
        }
    }
    return CM_NOTFOUND;
}
