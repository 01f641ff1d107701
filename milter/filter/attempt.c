/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The count is kept with the recipient for DATA and the end of the message, and
 * for a RCPT that is given twice: also a refused recipient stays on the list.
 */
#include "milter/filter/attempt.h"
#include "milter/log.h"
#include "milter/model/ruleset.h"
#include "milter/store/stateful.h"

#include <string.h>

static void
note_no_answer(struct cm_session *session, const struct cm_err *err)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    char why[sizeof err->msg * 4];
    cm_filter_count(session->filter, CM_FILTER_STATE_FAILED);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_warn("no answer from Redis, so which attempt it is is not "
                    "known: why=\"%s\" held_back=%lu",
                    cm_log_quote(why, sizeof why, err->msg), held_back);
}

static int64_t
counted_before(const struct cm_message *msg, const struct cm_address *recipient)
{
    for (size_t i = 0; i < msg->nrcpts; i++)
        if (msg->rcpts[i].attempt > 0 &&
            strcmp(msg->rcpts[i].canonical, recipient->text) == 0)
            return msg->rcpts[i].attempt;
    return 0;
}

int64_t
cm_attempt_count(struct cm_session *session, const struct cm_event *event)
{
    const struct cm_message *msg = &session->msg;
    struct cm_err err;
    if (!event->sender || msg->nrcpts >= CM_SESSION_LIST_MAX ||
        !cm_ruleset_asks_attempt(msg->rules, event))
        return 0;
    int64_t n = counted_before(msg, event->recipient);
    if (n == 0 &&
        cm_stateful_attempt(session->filter->stateful, session->client_text,
                            event->sender->text, event->recipient->text, &n,
                            &err) != CM_OK) {
        note_no_answer(session, &err);
        n = 0;
    }
    return n;
}

void
cm_attempt_end(struct cm_session *session)
{
    const struct cm_message *msg = &session->msg;
    struct cm_err err;
    for (size_t i = 0; i < msg->nrcpts; i++) {
        const struct cm_rcpt *rcpt = &msg->rcpts[i];
        if (rcpt->attempt > 0 && !rcpt->refused &&
            cm_stateful_attempt_done(session->filter->stateful,
                                     session->client_text, msg->sender.text,
                                     rcpt->canonical, &err) != CM_OK)
            note_no_answer(session, &err);
    }
}
