/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CUT_H
#define CM_CUT_H

#include "milter/filter/session.h"
#include "milter/model/fault.h"

/*
 * cm_cut - cut the TCP connection of the session's client, as the client sees
 * it by a reset or by the end of the file. true: it happened, and the kernel
 * said so. false: it did not, or that is not known; why (cap bytes) says which.
 * Blocks for the dropper's deadline at most.
 */
bool cm_cut(struct cm_session *session, enum cm_drop_how how, char *why,
            size_t cap);

#endif
