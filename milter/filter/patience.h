/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PATIENCE_H
#define CM_PATIENCE_H

#include "milter/model/mta.h"
#include "milter/model/stage.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * How long a mail server waits for a held reply before it turns away from the
 * filter. Postfix begins its wait anew with each progress packet, at every
 * stage, so there is no bound. Sendmail takes them at the end of a message
 * only, and has an absolute timeout there; elsewhere a packet is an error to
 * it, and a late reply makes it leave the filter out for the rest of the
 * session. A server that is neither is treated as Sendmail. (Postfix 3.7.11,
 * Sendmail 8.17.1.9.)
 */
struct cm_patience {
    int64_t reply_ms, message_ms; /* longest delay that such a server bears */
    char reply_why[128], message_why[128];
};

/*
 * cm_patience_init - from what the server's own settings say.
 *
 * reply_s    Sendmail's T=R of this filter, seconds, 2..
 * message_s  its T=E, seconds, 2..
 *
 * A delay is kept a second shorter: the reply has its way to go.
 */
void cm_patience_init(struct cm_patience *patience, int64_t reply_s,
                      int64_t message_s);

/* cm_patience_exceeded - why a delay is too long for this server at this stage,
 * NULL when it is not. The text names the limit and the setting, and lives as
 * long as patience. Pure. */
const char *cm_patience_exceeded(const struct cm_patience *patience,
                                 enum cm_mta mta, enum cm_stage stage,
                                 int64_t delay_ms);

/* cm_patience_renews - does this server take progress packets here? Pure. */
bool cm_patience_renews(enum cm_mta mta, enum cm_stage stage);

#endif
