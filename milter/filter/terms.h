/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TERMS_H
#define CM_TERMS_H

#include "milter/model/fault.h"

#include <stdbool.h>

struct cm_filter;

/*
 * What an MTA and the filter agreed on when their connection began: which
 * events are told, which changes may be asked for. It holds for the whole
 * session, whatever rules come or go meanwhile.
 */
struct cm_terms {
    unsigned long actions; /* granted: SMFIF_ bits */
    bool headers, body;    /* are told */
    bool skip;             /* the rest of a body may be declined */
};

/* All that the filter may ever ask for. */
unsigned long cm_terms_actions(void);

/* cm_terms_assume - where no negotiation was seen: every change may be tried,
 * for libmilter refuses what was not granted; neither headers nor bodies are
 * told. */
void cm_terms_assume(struct cm_terms *terms_r);

/*
 * cm_terms_agree - choose from what the MTA offers: all changes, and those
 * events that the rules in force want. CONNECT, MAIL, RCPT, DATA and the end of
 * a message are always among them, so that an inbox configured now meets the
 * sessions that are open already.
 *
 * actions  SMFIF_ bits: in, offered; out, asked for
 * steps    SMFIP_ bits: in, what the MTA can leave out; out, what it shall
 */
void cm_terms_agree(struct cm_terms *terms_r, const struct cm_filter *filter,
                    unsigned long *actions, unsigned long *steps);

/* cm_terms_lack - what these terms lack for a fault, as a sentence, NULL when
 * nothing. Static. */
const char *cm_terms_lack(const struct cm_terms *terms,
                          const struct cm_fault *fault);

#endif
