/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of one milter connection and of the mail in hand. A session without
 * chaos costs one allocation; lists grow only for recipients that have
 * something coming to them, so 50,000 clean recipients take no memory at all.
 */
#include "milter/filter/session.h"
#include "milter/clock.h"
#include "milter/log.h"
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
    cm_terms_assume(&session->terms);
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
    session->msg.body_wanted = -1;
    cm_content_init(&session->msg.content);
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
    cm_content_fini(&msg->content);
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

struct cm_rcpt *
cm_session_keep_rcpt(struct cm_session *session, const char *typed,
                     const struct cm_address *rcpt)
{
    struct cm_message *msg = &session->msg;
    struct cm_rcpt kept = {.typed = strdup(typed),
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
        return NULL;
    }
    msg->rcpts[msg->nrcpts] = kept;
    return &msg->rcpts[msg->nrcpts++];
}

/* Once for a message: no rule that names a header will meet it. */
static void
note_lost_headers(struct cm_session *session)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    cm_filter_count(session->filter, CM_FILTER_HEADERS_LOST);
    if (cm_log_gate_open(&gate, &held_back))
        cm_log_info("headers are not kept, so no fault by them: why=\"%s\" "
                    "held_back=%lu",
                    session->msg.content.headers_lost, held_back);
}

void
cm_session_header(struct cm_session *session, const char *name,
                  const char *value)
{
    struct cm_content *content = &session->msg.content;
    bool lost_before = content->headers_lost != NULL;
    cm_content_header(content, name, value,
                      name &&
                          cm_ruleset_wants_header(session->msg.rules, name));
    if (content->headers_lost && !lost_before)
        note_lost_headers(session);
}

/* How much of the body could a rule need that may meet one of these recipients?
 * What a rule for other inboxes needs is not kept. */
static int64_t
body_wanted(const struct cm_session *session)
{
    const struct cm_message *msg = &session->msg;
    int64_t most = cm_ruleset_body_bytes(msg->rules), wanted = 0;
    for (size_t i = 0; i < msg->nrcpts && wanted < most; i++) {
        struct cm_address full, base;
        struct cm_event event;
        if (msg->rcpts[i].decided)
            continue;
        cm_session_event(session, CM_STAGE_MESSAGE, &event);
        cm_session_event_rcpt(session, &msg->rcpts[i], &full, &base, &event);
        int64_t bytes = cm_ruleset_body_needed(msg->rules, &event);
        if (bytes > wanted)
            wanted = bytes;
    }
    return wanted;
}

bool
cm_session_body(struct cm_session *session, const unsigned char *chunk,
                size_t len)
{
    struct cm_message *msg = &session->msg;
    if (msg->body_wanted < 0)
        msg->body_wanted = body_wanted(session);
    bool failed_before = msg->content.no_memory;
    bool more = cm_content_body(&msg->content, chunk, len, msg->body_wanted);
    if (msg->content.no_memory && !failed_before)
        cm_filter_count(session->filter, CM_FILTER_NO_MEMORY);
    return more || cm_ruleset_wants_size(msg->rules);
}

/* What a rule with conditions on the content may look at. */
static void
add_content(const struct cm_session *session, struct cm_event *event)
{
    const struct cm_content *content = &session->msg.content;
    const struct cm_terms *terms = &session->terms;
    if (event->stage != CM_STAGE_MESSAGE) {
        event->size_bytes = content->declared_bytes;
        return;
    }
    event->headers = content->headers;
    event->nheaders = content->nheaders;
    event->headers_known = terms->headers && !content->headers_lost;
    if (terms->headers && terms->body && !content->body_skipped &&
        !content->bytes_lost)
        event->size_bytes = content->bytes;
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
    if (msg->open)
        add_content(session, event_r);
}

void
cm_session_event_rcpt(const struct cm_session *session,
                      const struct cm_rcpt *rcpt, struct cm_address *full_r,
                      struct cm_address *base_r, struct cm_event *event)
{
    full_r->len = rcpt->len;
    full_r->domain_off = rcpt->domain_off;
    memcpy(full_r->text, rcpt->canonical, rcpt->len + 1u);
    event->recipient = full_r;
    event->attempt = rcpt->attempt;
    if (cm_address_strip_tag(full_r, session->filter->recipient_delimiter,
                             base_r))
        event->recipient_base = base_r;
}
