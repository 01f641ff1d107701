/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A mail server is told by the version it gives as {v}: Postfix names itself,
 * Sendmail gives a bare number. Asking an operator for it was rejected: a
 * setting can be wrong, and one filter may serve both.
 */
#include "milter/model/mta.h"
#include "milter/model/reply.h"

#include <stdio.h>
#include <string.h>

static const char *const names[CM_MTA_COUNT] = {
    [CM_MTA_UNKNOWN] = "unknown",
    [CM_MTA_POSTFIX] = "postfix",
    [CM_MTA_SENDMAIL] = "sendmail",
};

const char *
cm_mta_name(enum cm_mta mta)
{
    return (unsigned)mta < CM_MTA_COUNT ? names[mta] : names[CM_MTA_UNKNOWN];
}

enum cm_mta
cm_mta_of(const char *version)
{
    if (!version)
        return CM_MTA_UNKNOWN;
    if (strncmp(version, "Postfix", 7) == 0)
        return CM_MTA_POSTFIX;
    return strncmp(version, "8.", 2) == 0 ? CM_MTA_SENDMAIL : CM_MTA_UNKNOWN;
}

bool
cm_mta_commands_only_temporary(const char *version)
{
    int major = 0, minor = 0;
    if (cm_mta_of(version) != CM_MTA_POSTFIX ||
        sscanf(version, "Postfix %4d.%4d", &major, &minor) != 2)
        return false;
    return major > 3 || (major == 3 && minor >= 10);
}

/* All that a saslauthd can say is yes or no. */
static bool
is_no_to_auth(const struct cm_fault *fault)
{
    return fault->kind == CM_FAULT_ERROR && fault->u.error.reply &&
           fault->u.error.reply->code == 535;
}

static bool
is_closing(const struct cm_fault *fault)
{
    return fault->u.error.reply && fault->u.error.reply->code == 421;
}

const char *
cm_mta_cannot(enum cm_mta mta, const struct cm_fault *fault,
              enum cm_stage stage)
{
    if (mta != CM_MTA_SENDMAIL)
        return NULL;
    if (fault->kind == CM_FAULT_DUPLICATE)
        return "Sendmail delivers once to a recipient named twice";
    if (fault->kind == CM_FAULT_HIDE)
        return "Sendmail asks nobody which keywords to show";
    /* 451 4.3.2 at MAIL for every 4xx; 554 and then 550 5.0.0 for a 5xx. */
    if (fault->kind == CM_FAULT_ERROR && stage == CM_STAGE_CONNECT &&
        !is_closing(fault))
        return "Sendmail gives a code and a text of its own at connect";
    if (stage == CM_STAGE_AUTH && fault->kind != CM_FAULT_LATENCY &&
        !is_no_to_auth(fault))
        return "Sendmail answers AUTH with 535 5.7.0 alone";
    return NULL;
}
