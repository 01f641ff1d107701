/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EVENT_JSON_H
#define CM_EVENT_JSON_H

struct cm_buf;
struct cm_record;

/*
 * cm_event_print - append one event as a JSON object on one line. Members that
 * are not known are null, never left out:
 *
 *   id, time (RFC 3339), host, n, queueId, client, sender, recipient, stage,
 *   rule, fault {kind, and for some how, outcome, triggerWebhooks}, outcome,
 *   coin {probability, occurrence}, reply, delay {askedMs, measuredMs},
 *   committed, others, detail
 */
void cm_event_print(struct cm_buf *buf, const struct cm_record *record);

/*
 * cm_event_console_text - append the line that VaultSandbox's console shows for
 * it, e.g. "[CHAOS] random_error: 452 4.3.1 Insufficient storage
 * (inbox=a@example.com)". Raw text, to be quoted.
 */
void cm_event_console_text(struct cm_buf *buf, const struct cm_record *record);

#endif
