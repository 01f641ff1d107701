/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_KEYS_H
#define CM_API_KEYS_H

#include "admin/router.h"

/*
 * /api/v1/keys: API keys beside those of the settings, each with its scopes.
 * POST answers the key itself, this once; only its SHA-256 is kept. Whoever
 * wants to manage keys needs all scopes, so that nobody can give himself more.
 */
cm_route_fn cm_api_key_list;
cm_route_fn cm_api_key_create;
cm_route_fn cm_api_key_revoke;

#endif
