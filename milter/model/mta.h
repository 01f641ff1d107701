/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MTA_H
#define CM_MTA_H

#include "milter/model/fault.h"
#include "milter/model/stage.h"

#include <stdbool.h>

/* The mail servers that the filter knows, and what cannot be had from each.
 * Every line here was seen on Postfix 3.7 and Sendmail 8.17 and is held by a
 * test in t/lab. */
enum cm_mta {
    CM_MTA_UNKNOWN, /* hurt as Postfix is, but trusted with less */
    CM_MTA_POSTFIX,
    CM_MTA_SENDMAIL,
    CM_MTA_COUNT
};

/* All that Sendmail says to AUTH when saslauthd says no. */
#define CM_MTA_SENDMAIL_NO "535 5.7.0 authentication failed"

const char *cm_mta_name(enum cm_mta mta); /* "postfix", ... static */

/* cm_mta_of - from the macro {v}, "Postfix 3.7.11" or "8.17.1.9/Debian"; NULL
 * is CM_MTA_UNKNOWN. */
enum cm_mta cm_mta_of(const char *version);

/* cm_mta_commands_only_temporary - does this version, as above, send a filter's
 * 4xx reply to a command that it does not know, but its own 500 in place of a
 * 5xx? Postfix does since 3.10. */
bool cm_mta_commands_only_temporary(const char *version);

/* cm_mta_cannot - why this mail server cannot do this fault at this stage, NULL
 * when it can. Static text. Pure. */
const char *cm_mta_cannot(enum cm_mta mta, const struct cm_fault *fault,
                          enum cm_stage stage);

#endif
