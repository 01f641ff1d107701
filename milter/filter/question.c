/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rules are walked as for any other event (deliberate.h), by a session that
 * stands in for the real one: that belongs to libmilter's threads, and may end
 * while we think. Each question has a coin of its own, for the same reason; its
 * numbers lie beyond those of sessions.
 */
#include "milter/filter/question.h"
#include "milter/filter/deliberate.h"
#include "milter/filter/incident.h"
#include "milter/model/ruleset.h"
#include "milter/store/replica.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define FIRST_COIN (UINT64_C(1) << 63)

bool
cm_question_open(struct cm_question *question, struct cm_filter *filter,
                 const struct cm_smtp_command *command)
{
    struct cm_view *view = cm_replica_view(filter->replica);
    struct cm_ruleset *rules = view ? cm_view_rules(view) : NULL;
    cm_view_release(&view);
    if (!(cm_ruleset_stages(rules) & CM_STAGE_BIT(command->stage))) {
        cm_ruleset_release(&rules);
        return false;
    }
    *question =
        (struct cm_question){.filter = filter,
                             .rules = rules,
                             .command = *command,
                             .mta = CM_MTA_POSTFIX,
                             .number = atomic_fetch_add(&filter->questions, 1)};
    return true;
}

/* What is no address is not known, and no rule for an address matches. */
static void
read_client(struct cm_client *client_r, const char *addr, size_t len)
{
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    cm_client_from_sockaddr(client_r, NULL);
    if (len >= sizeof text)
        return;
    memcpy(text, addr, len);
    text[len] = '\0';
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        cm_client_from_sockaddr(client_r, (const struct sockaddr *)&in);
    else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
        cm_client_from_sockaddr(client_r, (const struct sockaddr *)&in6);
}

bool
cm_question_open_keywords(struct cm_question *question,
                          struct cm_filter *filter, const char *addr,
                          size_t len)
{
    const struct cm_smtp_command greeting = {.stage = CM_STAGE_HELO};
    if (!cm_question_open(question, filter, &greeting))
        return false;
    question->keywords = true;
    read_client(&question->guest.client, addr, len);
    return true;
}

bool
cm_question_open_login(struct cm_question *question, struct cm_filter *filter,
                       const struct cm_saslauthd_who *who)
{
    struct cm_smtp_command auth = {.stage = CM_STAGE_AUTH};
    snprintf(auth.user, sizeof auth.user, "%s", who->login);
    if (!cm_question_open(question, filter, &auth))
        return false;
    question->mta = CM_MTA_SENDMAIL;
    snprintf(question->user_at_realm, sizeof question->user_at_realm, "%s",
             who->login_at_realm);
    return true;
}

void
cm_question_fini(struct cm_question *question)
{
    cm_ruleset_release(&question->rules);
}

static const char *
known(const char *text)
{
    return text[0] ? text : NULL;
}

static void
stand_in(struct cm_session *session, const struct cm_question *question)
{
    const struct cm_guest *guest = &question->guest;
    *session = (struct cm_session){.filter = question->filter,
                                   .fd = -1,
                                   .mta = question->mta,
                                   .client = guest->client,
                                   .mute = question->mute,
                                   .hooked = question->mta == CM_MTA_POSTFIX,
                                   .only_temporary = guest->only_temporary};
    cm_client_print(&session->client, session->client_text,
                    sizeof session->client_text);
    cm_coin_init(&session->coin, question->filter->seed,
                 FIRST_COIN + question->number);
}

static void
describe(const struct cm_question *question, const struct cm_session *session,
         struct cm_event *event_r)
{
    const struct cm_smtp_command *command = &question->command;
    cm_session_event(session, command->stage, event_r);
    event_r->mechanism = known(command->mechanism);
    event_r->user = known(command->user);
    event_r->user_at_realm = known(question->user_at_realm);
    event_r->helo = known(command->helo);
    event_r->keywords = question->keywords;
}

bool
cm_question_may_wait(const struct cm_question *question)
{
    struct cm_session session;
    struct cm_event event;
    stand_in(&session, question);
    describe(question, &session, &event);
    size_t end = cm_ruleset_count(question->rules);
    for (size_t i = cm_ruleset_next(question->rules, &event, 0); i < end;
         i = cm_ruleset_next(question->rules, &event, i + 1)) {
        const struct cm_rule *rule = cm_ruleset_at(question->rules, i);
        if (rule->seeded || rule->max_hits > 0)
            return true;
    }
    return false;
}

/* With the process of the mail server, whose log tells the rest. */
static void
print_detail(const struct cm_question *question, const struct cm_fault *fault,
             char *out, size_t cap)
{
    const char *what = question->command.mechanism;
    if (fault->kind == CM_FAULT_HIDE)
        what = fault->u.hide;
    snprintf(out, cap, "%s%s%s[%ld]", what, what[0] ? ", " : "",
             question->mta == CM_MTA_POSTFIX ? "smtpd" : "sendmail",
             (long)question->guest.process);
}

void
cm_question_judge(struct cm_question *question, struct cm_ruling *ruling_r)
{
    struct cm_session session;
    struct cm_event event;
    struct cm_walk walk;
    struct cm_fate fate;
    struct cm_incident *incident = &ruling_r->incident;
    ruling_r->kind = CM_RULING_PASS;
    stand_in(&session, question);
    describe(question, &session, &event);
    cm_decide_start(&walk, NULL, question->rules, &event, &session.coin);
    if (!cm_deliberate(&session, &walk, NULL, "", "", "", &fate))
        return;
    cm_incident_make(incident, &session, &fate, NULL);
    print_detail(question, fate.fault, incident->detail,
                 sizeof incident->detail);
    const char *why = cm_fate_hindrance(&session, &fate);
    if (why) {
        cm_incident_close(question->filter, incident, CM_INCIDENT_UNAVAILABLE,
                          why);
    } else if (fate.reply) {
        ruling_r->kind = CM_RULING_REFUSE;
        ruling_r->reply = fate.reply;
    } else if (fate.fault->kind == CM_FAULT_LATENCY) {
        ruling_r->kind = CM_RULING_DELAY;
    } else if (fate.fault->kind == CM_FAULT_HIDE) {
        ruling_r->kind = CM_RULING_HIDE;
        ruling_r->keywords = fate.fault->u.hide;
    }
}
