/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A delay that would outlast the server's patience is not done at all: a
 * shorter one would be a fault that nobody asked for, and the one asked for
 * would end with the filter cut out and the mail passing without it. The bounds
 * are settings, because nothing in the protocol tells them; asking Sendmail's
 * configuration was rejected, for the filter may not read it and it may be on
 * another host.
 */
#include "milter/filter/patience.h"

#include <stdio.h>

#define CM_PATIENCE_MARGIN_MS 1000

void
cm_patience_init(struct cm_patience *patience, int64_t reply_s,
                 int64_t message_s)
{
    patience->reply_ms = reply_s * 1000 - CM_PATIENCE_MARGIN_MS;
    patience->message_ms = message_s * 1000 - CM_PATIENCE_MARGIN_MS;
    snprintf(patience->reply_why, sizeof patience->reply_why,
             "beyond the %lld s that the mail server waits for a reply: "
             "milter.sendmail_reply_timeout_s",
             (long long)reply_s);
    snprintf(patience->message_why, sizeof patience->message_why,
             "beyond the %lld s that the mail server waits after a message: "
             "milter.sendmail_message_timeout_s",
             (long long)message_s);
}

const char *
cm_patience_exceeded(const struct cm_patience *patience, enum cm_mta mta,
                     enum cm_stage stage, int64_t delay_ms)
{
    /* AUTH is not asked by the milter protocol, and for long. */
    if (mta == CM_MTA_POSTFIX || stage == CM_STAGE_AUTH)
        return NULL;
    if (stage == CM_STAGE_MESSAGE)
        return delay_ms > patience->message_ms ? patience->message_why : NULL;
    return delay_ms > patience->reply_ms ? patience->reply_why : NULL;
}

bool
cm_patience_renews(enum cm_mta mta, enum cm_stage stage)
{
    return mta == CM_MTA_POSTFIX || stage == CM_STAGE_MESSAGE;
}
