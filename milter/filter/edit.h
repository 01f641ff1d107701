/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EDIT_H
#define CM_EDIT_H

#include "milter/filter/session.h"

struct smfi_str; /* libmilter's session, SMFICTX */

/*
 * cm_edit_message - at the end of a message that is not refused: all that its
 * fates change in it, and in where it goes. Each is recorded, done or not.
 *
 * Returns SMFIS_CONTINUE; SMFIS_DISCARD when no recipient is left;
 * SMFIS_TEMPFAIL when the message would be lost otherwise: a recipient was
 * taken out, and could be put neither elsewhere nor back.
 */
int cm_edit_message(struct cm_session *session, struct smfi_str *ctx);

#endif
