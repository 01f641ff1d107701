/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SESSION_H
#define CM_SESSION_H

#include "milter/filter/content.h"
#include "milter/filter/fate.h"
#include "milter/filter/filter.h"
#include "milter/filter/terms.h"
#include "milter/filter/tuple.h"
#include "milter/model/address.h"
#include "milter/model/coin.h"
#include "milter/model/event.h"
#include "milter/model/mta.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct cm_rule;
struct cm_ruleset;
struct cm_view;

/* A recipient, kept only while a rule of the list acts at DATA or at the end of
 * the message, or asks how often it was tried. */
struct cm_rcpt {
    bool decided; /* its inbox's rules, or one at RCPT, had their say */
    bool refused;
    int64_t attempt; /* 1 is the first; 0: not known */
    char *typed;
    char *canonical;
    uint16_t len, domain_off;
};

/* Both lists end at this many entries; further recipients meet no chaos. */
#define CM_SESSION_LIST_MAX 10000

/* What is known of the mail in hand; reset at MAIL, after the end of the
 * message and on abort. */
struct cm_message {
    bool open;
    struct cm_view *view;     /* reference */
    struct cm_ruleset *rules; /* reference, or NULL */
    bool sender_known;        /* sender is a valid address */
    struct cm_address sender;
    bool cut;              /* the client's connection is gone, by our hand */
    bool guarded;          /* a protected recipient is among the accepted */
    size_t accepted;       /* recipients answered with "continue" */
    struct cm_fate *fates; /* deferred; at most one for each recipient */
    size_t nfates, fates_cap;
    const struct cm_rule *ended_by; /* the fate that refused or cut; borrowed */
    struct cm_rcpt *rcpts;
    size_t nrcpts, rcpts_cap;
    struct cm_content content;
    int64_t body_wanted; /* bytes of it; -1: not looked at yet */
};

/* One milter connection: one SMTP session of the MTA's client. Callbacks of one
 * session never overlap, but may run on different threads over time. */
struct cm_session {
    struct cm_filter *filter; /* borrowed */
    int fd;                   /* of the milter connection, -1 when not known */
    pid_t process; /* of the MTA, where attendance.h knows the session
                      by it, else 0 */
    uint64_t number;
    enum cm_mta mta;
    struct cm_terms terms;
    bool local; /* not SMTP: sendmail(1) and the like */
    bool tuple_known;
    struct cm_tuple tuple; /* the client's TCP connection to the MTA */
    char tuple_why[256];   /* why it is not known */
    struct cm_client client;
    char client_text[46];
    const char *mute;    /* why no reply of ours can reach the client, NULL when
                            it can; static text */
    bool hooked;         /* it stands in for one at the command hook */
    bool only_temporary; /* at the hook's commands no reply of class 5 can */
    char helo[256];      /* "" when not known */
    char user[256];      /* authenticated login, "" when none */
    struct cm_coin coin;
    struct cm_message msg;
};

/* cm_session_new - NULL when out of memory. */
struct cm_session *cm_session_new(struct cm_filter *filter, int fd);
void cm_session_free(struct cm_session **session);

/* cm_session_begin - a new mail: take the rules in force. cm_session_reset - it
 * is over, however it ended. */
void cm_session_begin(struct cm_session *session);
void cm_session_reset(struct cm_session *session);

/* cm_session_defer - keep a fate until its stage; copies its texts and takes
 * over its inbox reference, also on failure. CM_OK, CM_ENOMEM (also when the
 * list is full). */
enum cm_status cm_session_defer(struct cm_session *session,
                                const struct cm_fate *fate) CM_MUST_CHECK;

/* cm_session_keep_rcpt - remember a recipient, to be filled in by the caller
 * before the next is kept. NULL: no memory, or the list is full. */
struct cm_rcpt *cm_session_keep_rcpt(struct cm_session *session,
                                     const char *typed,
                                     const struct cm_address *rcpt);

/* cm_session_header, cm_session_body - the MTA tells one header, a part of the
 * body: what a rule in force wants of it is kept. cm_session_body returns false
 * when nothing more of the body is wanted. */
void cm_session_header(struct cm_session *session, const char *name,
                       const char *value);
bool cm_session_body(struct cm_session *session, const unsigned char *chunk,
                     size_t len);

/* cm_session_event - an event of this session at a stage, without a recipient.
 * Borrows from the session. */
void cm_session_event(const struct cm_session *session, enum cm_stage stage,
                      struct cm_event *event_r);

/* cm_session_event_rcpt - make the event one of this recipient. full_r and
 * base_r are the caller's room for its address; the event borrows them. */
void cm_session_event_rcpt(const struct cm_session *session,
                           const struct cm_rcpt *rcpt,
                           struct cm_address *full_r, struct cm_address *base_r,
                           struct cm_event *event);

#endif
