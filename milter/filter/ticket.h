/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TICKET_H
#define CM_TICKET_H

#include "milter/err.h"
#include "milter/store/incident.h"

#include <stdint.h>

struct cm_filter;
struct cm_reply;
struct cm_ruleset;

/*
 * A refusal on its way round. The hook cannot answer a command itself; it has
 * the command replaced by a word that no mail server knows, which comes back to
 * us as an unknown command in the milter session of the same client. The ticket
 * is that word and what stands behind it: good for one session, once, and for
 * as long as a mail server may take between the two.
 */
#define CM_TICKET_PREFIX "XCHAOS-"
#define CM_TICKET_WORD_BYTES                                                   \
    sizeof CM_TICKET_PREFIX "0123456789abcdef0123456789abcdef"
#define CM_TICKET_LIFE_MS 10000

struct cm_ticket {
    char word[CM_TICKET_WORD_BYTES];
    int64_t issued_ms;            /* of cm_clock_mono_ms */
    struct cm_ruleset *rules;     /* reference: reply lives there */
    const struct cm_reply *reply; /* borrowed from rules, or static */
    struct cm_incident incident;  /* all but how it ends */
};

/* cm_ticket_new - with a fresh word. rules, reply and incident as above; takes
 * a reference of its own. CM_OK, CM_ENOMEM, CM_EIO (no randomness). */
enum cm_status cm_ticket_new(struct cm_ticket **ticket_r,
                             struct cm_ruleset *rules,
                             const struct cm_reply *reply,
                             const struct cm_incident *incident) CM_MUST_CHECK;
void cm_ticket_free(struct cm_ticket **ticket);

/* cm_ticket_void - it came to nothing: record that, and free it. NULL inside is
 * fine. */
void cm_ticket_void(struct cm_filter *filter, struct cm_ticket **ticket,
                    const char *why);

#endif
