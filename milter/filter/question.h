/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_QUESTION_H
#define CM_QUESTION_H

#include "milter/filter/attendance.h"
#include "milter/filter/saslauthd.h"
#include "milter/filter/smtp_command.h"
#include "milter/model/mta.h"
#include "milter/store/incident.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_filter;
struct cm_reply;
struct cm_ruleset;

/*
 * One question that the mail server asks the command hook, or the saslauthd
 * relay, and what the rules say to it. It stands on its own, so that any thread
 * may judge it: whose session it is about has been copied, and the rules are
 * held.
 */
struct cm_question {
    struct cm_filter *filter; /* borrowed */
    struct cm_ruleset *rules; /* reference */
    bool keywords;            /* not a command: which EHLO keywords to hide */
    struct cm_smtp_command command;
    char user_at_realm[sizeof((struct cm_saslauthd_who *)0)->login_at_realm];
    enum cm_mta mta;       /* that asks */
    struct cm_guest guest; /* process alone when no session is known */
    const char *mute;      /* why no refusal can reach the client; NULL: it
                              can. Static text */
    uint64_t number;       /* of the question: its coin */
};

enum cm_ruling_kind {
    CM_RULING_PASS,   /* the command as it is */
    CM_RULING_DELAY,  /* the same, later */
    CM_RULING_REFUSE, /* by the hook another word, which comes back to us; by
                         the relay a no */
    CM_RULING_HIDE    /* these keywords */
};

struct cm_ruling {
    enum cm_ruling_kind kind;
    const struct cm_reply *reply; /* REFUSE; lives as long as the rules */
    const char *keywords;         /* HIDE; the same */
    struct cm_incident incident;  /* unless PASS: all but how it ends */
};

/* cm_question_open - take the rules in force. false: none can act at that
 * command, so there is no question (and nothing to fini). */
bool cm_question_open(struct cm_question *question, struct cm_filter *filter,
                      const struct cm_smtp_command *command);
void cm_question_fini(struct cm_question *question);

/* cm_question_open_keywords - the same for the question which EHLO keywords to
 * hide from a client, whose address is len bytes of text. */
bool cm_question_open_keywords(struct cm_question *question,
                               struct cm_filter *filter, const char *addr,
                               size_t len);

/* cm_question_open_login - the same for the question whether to let somebody
 * in, which Sendmail asks the relay. */
bool cm_question_open_login(struct cm_question *question,
                            struct cm_filter *filter,
                            const struct cm_saslauthd_who *who);

/* cm_question_may_wait - might judging it ask Redis? */
bool cm_question_may_wait(const struct cm_question *question);

/* cm_question_judge - what is to be done. What cannot be done, or is only
 * watched for (shadow mode), has been recorded and is CM_RULING_PASS. */
void cm_question_judge(struct cm_question *question,
                       struct cm_ruling *ruling_r);

#endif
