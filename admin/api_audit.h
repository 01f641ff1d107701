/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_AUDIT_H
#define CM_API_AUDIT_H

#include "admin/router.h"

/*
 * GET /api/v1/audit: who changed what, when, before and after; the newest
 * first. ?limit= (1..1000, 100); ?from= the `next` of an answer; ?key= one
 * document, "rule:r7" or "inbox:a@example.com"; ?of=inboxes for the changes of
 * inboxes, which are kept apart (implied by such a key).
 */
cm_route_fn cm_api_audit;

#endif
