/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an MTA lets a milter change at the end of a message, and only there.
 */
#include "milter/filter/edit.h"
#include "milter/filter/deed.h"

#include <libmilter/mfapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sessions of libmilter, as our headers name them. */
typedef struct smfi_str *milter;

/* Postfix matches byte for byte what RCPT gave, but keeps no source route. */
static bool
delete_rcpt(milter ctx, const char *typed)
{
    const char *colon;
    if (strncmp(typed, "<@", 2) != 0 || !(colon = strchr(typed, ':')))
        return smfi_delrcpt(ctx, (char *)typed) == MI_SUCCESS;
    size_t len = strlen(colon);
    char *direct = malloc(len + 1);
    if (!direct)
        return false;
    snprintf(direct, len + 1, "<%s", colon + 1);
    bool ok = smfi_delrcpt(ctx, direct) == MI_SUCCESS;
    free(direct);
    return ok;
}

static bool
is_blackhole(const struct cm_fate *fate)
{
    return fate->stage == CM_STAGE_MESSAGE &&
           fate->fault->kind == CM_FAULT_BLACKHOLE;
}

/* Takes each blackholed recipient out of the message. When none is left the
 * whole message is discarded, for an MTA wants at least one. */
int
cm_edit_message(struct cm_session *session, milter ctx)
{
    struct cm_message *msg = &session->msg;
    size_t n = 0;
    for (size_t i = 0; i < msg->nfates; i++)
        n += is_blackhole(&msg->fates[i]);
    if (n == 0)
        return SMFIS_CONTINUE;
    bool all = n == msg->accepted;
    for (size_t i = 0; i < msg->nfates; i++) {
        const struct cm_fate *fate = &msg->fates[i];
        if (!is_blackhole(fate))
            continue;
        bool gone = all || delete_rcpt(ctx, fate->typed);
        cm_deed_record(session, ctx, fate,
                       gone ? CM_INCIDENT_APPLIED : CM_INCIDENT_UNAVAILABLE, 0,
                       gone ? NULL
                            : "the MTA does not let recipients be deleted");
    }
    return all ? SMFIS_DISCARD : SMFIS_CONTINUE;
}
