/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_LOCALSTACK_H
#define CM_API_LOCALSTACK_H

#include "admin/router.h"

/*
 * LocalStack's chaos API, below /chaos and /_localstack/chaos. /faults is an
 * ordered list of rules: POST replaces it, PATCH adds what is not there yet (in
 * front with ?position=first), DELETE removes what equals a given rule; each
 * answers the whole list, with the rules as they were given (?view=full: and
 * with their ids). /effects is one document.
 */
cm_route_fn cm_api_faults_get;
cm_route_fn cm_api_faults_replace;
cm_route_fn cm_api_faults_add;
cm_route_fn cm_api_faults_remove;
cm_route_fn cm_api_effects_get;
cm_route_fn cm_api_effects_set;

#endif
