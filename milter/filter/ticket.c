/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/ticket.h"
#include "milter/clock.h"
#include "milter/filter/filter.h"
#include "milter/filter/incident.h"
#include "milter/model/ruleset.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum cm_status
cm_ticket_new(struct cm_ticket **ticket_r, struct cm_ruleset *rules,
              const struct cm_reply *reply, const struct cm_incident *incident)
{
    uint64_t nonce[2];
    if (getrandom(nonce, sizeof nonce, GRND_NONBLOCK) != (ssize_t)sizeof nonce)
        return CM_EIO;
    struct cm_ticket *ticket = calloc(1, sizeof *ticket);
    if (!ticket)
        return CM_ENOMEM;
    snprintf(ticket->word, sizeof ticket->word,
             CM_TICKET_PREFIX "%016llx%016llx", (unsigned long long)nonce[0],
             (unsigned long long)nonce[1]);
    ticket->issued_ms = cm_clock_mono_ms();
    ticket->rules = cm_ruleset_ref(rules);
    ticket->reply = reply;
    ticket->incident = *incident;
    *ticket_r = ticket;
    return CM_OK;
}

void
cm_ticket_free(struct cm_ticket **ticket)
{
    if (!*ticket)
        return;
    cm_ruleset_release(&(*ticket)->rules);
    free(*ticket);
    *ticket = NULL;
}

void
cm_ticket_void(struct cm_filter *filter, struct cm_ticket **ticket,
               const char *why)
{
    if (!*ticket)
        return;
    cm_incident_close(filter, &(*ticket)->incident, CM_INCIDENT_UNAVAILABLE,
                      why);
    cm_ticket_free(ticket);
}
