/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ABILITY_H
#define CM_ABILITY_H

#include "milter/model/mta.h"

#include <stddef.h>

/* What can be had of each fault from each mail server, told to people and
 * programs: README.md and GET /api/v1/status show this table. cm_mta_cannot is
 * what the filter goes by; t/unit/test_ability holds the three together. */
struct cm_ability {
    const char *name; /* "error.connect": for programs */
    const char *what; /* "an error at CONNECT": for people */
    const char *test; /* the lab tests that hold the row: "test_mtas.Greeting",
                         or several with a comma and a blank between */
    /* "yes", "yes: with this", "partly: but that" or "no: why not"; NULL for
     * CM_MTA_UNKNOWN. */
    const char *can[CM_MTA_COUNT];
};

/* cm_abilities - the table, of *n_r rows. Static. */
const struct cm_ability *cm_abilities(size_t *n_r);

#endif
