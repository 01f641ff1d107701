/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of one milter connection and of the mail in hand. A session without
 * chaos costs one allocation; lists grow only for recipients that have
 * something coming to them, so 50,000 clean recipients take no memory at all.
 */
#include "milter/filter/session.h"
#include "milter/clock.h"
#include "milter/model/inbox.h"
#include "milter/model/ruleset.h"
#include "milter/store/replica.h"

#include <stdlib.h>
#include <string.h>

struct cm_session *
cm_session_new(struct cm_filter *filter, int fd)
{
    struct cm_session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    session->filter = filter;
    session->fd = fd;
    session->number =
        (uint64_t)atomic_fetch_add(&filter->counts[CM_FILTER_SESSIONS], 1) + 1;
    atomic_fetch_add(&filter->counts[CM_FILTER_SESSIONS_OPEN], 1);
    cm_coin_init(&session->coin, filter->seed, session->number);
    cm_client_print(&session->client, session->client_text,
                    sizeof session->client_text);
    return session;
}

void
cm_session_free(struct cm_session **session)
{
    if (!*session)
        return;
    cm_session_reset(*session);
    atomic_fetch_sub(&(*session)->filter->counts[CM_FILTER_SESSIONS_OPEN], 1);
    free(*session);
    *session = NULL;
}

void
cm_session_begin(struct cm_session *session)
{
    cm_session_reset(session);
    session->msg.open = true;
    session->msg.view = cm_replica_view(session->filter->replica);
    if (session->msg.view)
        session->msg.rules = cm_view_rules(session->msg.view);
}

void
cm_session_reset(struct cm_session *session)
{
    struct cm_message *msg = &session->msg;
    for (size_t i = 0; i < msg->nfates; i++) {
        cm_inbox_release(&msg->fates[i].inbox);
        free((char *)msg->fates[i].recipient);
        free((char *)msg->fates[i].typed);
    }
    for (size_t i = 0; i < msg->nrcpts; i++) {
        free(msg->rcpts[i].typed);
        free(msg->rcpts[i].canonical);
    }
    free(msg->fates);
    free(msg->rcpts);
    cm_ruleset_release(&msg->rules);
    cm_view_release(&msg->view);
    memset(msg, 0, sizeof *msg);
}

/* Makes room for one more element; false when the list is full or memory is. */
static bool
grow(void **list, size_t n, size_t *cap, size_t size)
{
    if (n >= CM_SESSION_LIST_MAX)
        return false;
    if (n < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 4;
    void *bigger = realloc(*list, more * size);
    if (!bigger)
        return false;
    *list = bigger;
    *cap = more;
    return true;
}

enum cm_status
cm_session_defer(struct cm_session *session, const struct cm_fate *fate)
{
    struct cm_message *msg = &session->msg;
    struct cm_inbox *inbox = fate->inbox;
    char *recipient = strdup(fate->recipient);
    char *typed = strdup(fate->typed);
    void *list = msg->fates;
    bool ok = recipient && typed &&
              grow(&list, msg->nfates, &msg->fates_cap, sizeof *msg->fates);
    msg->fates = list;
    if (!ok) {
        free(recipient);
        free(typed);
        cm_inbox_release(&inbox);
        return CM_ENOMEM;
    }
    struct cm_fate *kept = &msg->fates[msg->nfates++];
    *kept = *fate;
    kept->recipient = recipient;
    kept->typed = typed;
    return CM_OK;
}

enum cm_status
cm_session_keep_rcpt(struct cm_session *session, const char *typed,
                     const struct cm_address *rcpt, bool decided)
{
    struct cm_message *msg = &session->msg;
    struct cm_rcpt kept = {.decided = decided,
                           .typed = strdup(typed),
                           .canonical = strdup(rcpt->text),
                           .len = rcpt->len,
                           .domain_off = rcpt->domain_off};
    void *list = msg->rcpts;
    bool ok = kept.typed && kept.canonical &&
              grow(&list, msg->nrcpts, &msg->rcpts_cap, sizeof *msg->rcpts);
    msg->rcpts = list;
    if (!ok) {
        free(kept.typed);
        free(kept.canonical);
        return CM_ENOMEM;
    }
    msg->rcpts[msg->nrcpts++] = kept;
    return CM_OK;
}

void
cm_session_event(const struct cm_session *session, enum cm_stage stage,
                 struct cm_event *event_r)
{
    const struct cm_message *msg = &session->msg;
    *event_r = (struct cm_event){
        .stage = stage,
        .now_ms = cm_clock_wall_ms(),
        .client = &session->client,
        .helo = session->helo[0] ? session->helo : NULL,
        .user = session->user[0] ? session->user : NULL,
        .sender = msg->open && msg->sender_known ? &msg->sender : NULL,
        .size_bytes = -1,
    };
}
