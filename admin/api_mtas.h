/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_MTAS_H
#define CM_API_MTAS_H

struct json_t;

/*
 * cm_mtas_json - {"postfix": {"seen": [..], "abilities": {..}}, "sendmail": ..}
 *
 * hosts  borrowed: the heartbeats as they stand in the status; what live ones
 *        say under "mtas" becomes "seen"
 *
 * A new reference, NULL when out of memory. What each fault can be had is the
 * table of milter/model/ability.h.
 */
struct json_t *cm_mtas_json(const struct json_t *hosts);

#endif
