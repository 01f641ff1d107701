/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EDIT_H
#define CM_EDIT_H

#include "milter/filter/session.h"

struct smfi_str; /* libmilter's session, SMFICTX */

/*
 * cm_edit_message - at the end of a message that is not refused: all that its
 * fates change in where it goes. Each is recorded, done or not.
 *
 * Returns SMFIS_DISCARD when no recipient is left, else SMFIS_CONTINUE.
 */
int cm_edit_message(struct cm_session *session, struct smfi_str *ctx);

#endif
