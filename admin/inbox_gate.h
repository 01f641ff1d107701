/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_INBOX_GATE_H
#define CM_INBOX_GATE_H

#include "milter/err.h"

struct cm_address;
struct cm_api;

/*
 * cm_gate_inbox - may this inbox be configured? Its address must be one, with a
 * local part and a domain that is allowed, and with admin.inboxes "explicit" it
 * must have been made by POST /api/inboxes.
 *
 * addr_r  out on CM_OK: the canonical form
 *
 * CM_OK; CM_EINVAL, CM_NOTFOUND (it was not made): err says why; else the
 * store's failure.
 */
enum cm_status cm_gate_inbox(const struct cm_api *api, const char *text,
                             struct cm_address *addr_r,
                             struct cm_err *err) CM_MUST_CHECK;

#endif
