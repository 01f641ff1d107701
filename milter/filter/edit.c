/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an MTA lets a milter change at the end of a message, and only there. The
 * changes of all fates are made together, in the order of one table. Recipients
 * go before others come, because an MTA deletes every recipient of a name, also
 * one that was just added: two inboxes whose mail is given to each other would
 * lose one. The body is written once, after all mutations of it: libmilter
 * appends what is written twice.
 *
 * libmilter only passes a change on, and the MTA does not answer to it: that it
 * was taken is all that can be known here.
 */
#include "milter/filter/edit.h"
#include "milter/filter/deed.h"
#include "milter/filter/mutate.h"

#include <libmilter/mfapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sessions of libmilter, as our headers name them. */
typedef struct smfi_str *milter;

struct editing {
    struct cm_session *session;
    milter ctx;
    unsigned others; /* of each recipient's message */
    struct cm_mutate_body body;
    bool body_changed;
    int verdict;
};

/* One fate's part in it; what is not closed by it waits for a later row. */
typedef void edit(struct editing *e, struct cm_fate *fate);
static edit take_out, take_away, put_elsewhere, put_twice, hold, mutate;

static const struct {
    enum cm_fault_kind kind;
    edit *act;
} edits[] = {
    {CM_FAULT_BLACKHOLE, take_out},
    {CM_FAULT_MISDELIVER, take_away},
    {CM_FAULT_MISDELIVER, put_elsewhere},
    {CM_FAULT_DUPLICATE, put_twice},
    {CM_FAULT_MUTATE, mutate},
    {CM_FAULT_QUARANTINE, hold},
};
#define EDITS_N (sizeof edits / sizeof edits[0])

static void
close_fate(struct editing *e, struct cm_fate *fate,
           enum cm_incident_outcome outcome, const char *detail)
{
    bool touched =
        outcome == CM_INCIDENT_APPLIED && cm_fate_touches_others(fate);
    cm_deed_record(e->session, e->ctx, fate, outcome, touched ? e->others : 0,
                   detail);
    fate->closed = true;
}

/* why: NULL when it was done. */
static void
finish(struct editing *e, struct cm_fate *fate, const char *why,
       const char *detail)
{
    if (why)
        close_fate(e, fate, CM_INCIDENT_UNAVAILABLE, why);
    else
        close_fate(e, fate, CM_INCIDENT_APPLIED, detail);
}

/* --- recipients --- */

/* The recipient as the MTA knows it, to be freed: Postfix matches byte for byte
 * what RCPT gave, but keeps no source route. NULL: no memory. */
static char *
without_route(const char *typed)
{
    const char *colon =
        strncmp(typed, "<@", 2) == 0 ? strchr(typed, ':') : NULL;
    if (!colon)
        return strdup(typed);
    char *direct = strdup(colon);
    if (direct)
        direct[0] = '<';
    return direct;
}

typedef int change_rcpt(milter ctx, char *rcpt); /* smfi_addrcpt, _delrcpt */

static bool
change(struct editing *e, const struct cm_fate *fate, change_rcpt *how)
{
    char *rcpt = without_route(fate->typed);
    bool ok = rcpt && how(e->ctx, rcpt) == MI_SUCCESS;
    free(rcpt);
    return ok;
}

static void
take_out(struct editing *e, struct cm_fate *fate)
{
    bool gone = e->verdict == SMFIS_DISCARD || change(e, fate, smfi_delrcpt);
    finish(e, fate, gone ? NULL : "the MTA does not let recipients be deleted",
           NULL);
}

static void
take_away(struct editing *e, struct cm_fate *fate)
{
    if (!change(e, fate, smfi_delrcpt))
        finish(e, fate, "the MTA does not let recipients be deleted", NULL);
}

static void
put_elsewhere(struct editing *e, struct cm_fate *fate)
{
    char to[CM_ADDRESS_MAX_BYTES + 3], detail[CM_INCIDENT_TEXT];
    snprintf(to, sizeof to, "<%s>", fate->fault->u.misdeliver_to);
    snprintf(detail, sizeof detail, "to %s", fate->fault->u.misdeliver_to);
    if (smfi_addrcpt(e->ctx, to) == MI_SUCCESS) {
        finish(e, fate, NULL, detail);
    } else if (change(e, fate, smfi_addrcpt)) {
        finish(e, fate, "the MTA does not let recipients be added", NULL);
    } else {
        finish(e, fate, "the recipient could be put neither there nor back",
               NULL);
        e->verdict = SMFIS_TEMPFAIL;
    }
}

static void
put_twice(struct editing *e, struct cm_fate *fate)
{
    bool twice = change(e, fate, smfi_addrcpt);
    finish(e, fate, twice ? NULL : "the MTA does not let recipients be added",
           NULL);
}

/* --- the message --- */

static void
hold(struct editing *e, struct cm_fate *fate)
{
    char *reason = fate->fault->u.quarantine_reason;
    bool held = smfi_quarantine(e->ctx, reason) == MI_SUCCESS;
    finish(e, fate, held ? NULL : "the MTA does not let messages be held",
           reason);
}

static void
add_header(struct editing *e, struct cm_fate *fate)
{
    const struct cm_fault_mutate *m = &fate->fault->u.mutate;
    char detail[CM_INCIDENT_TEXT];
    bool added = smfi_addheader(e->ctx, m->name, m->value) == MI_SUCCESS;
    snprintf(detail, sizeof detail, "added %s", m->name);
    finish(e, fate, added ? NULL : "the MTA does not let headers be added",
           detail);
}

/* Every occurrence, from the last to the first: each keeps its number until it
 * goes. */
static void
drop_header(struct editing *e, struct cm_fate *fate)
{
    const struct cm_fault_mutate *m = &fate->fault->u.mutate;
    const struct cm_content *content = &e->session->msg.content;
    const char *why = content->headers_lost;
    char detail[CM_INCIDENT_TEXT];
    int n = cm_content_count(content, m->name);
    if (!why && n == 0)
        why = "the message has no such header";
    for (int i = n; i > 0 && !why; i--)
        if (smfi_chgheader(e->ctx, m->name, i, NULL) != MI_SUCCESS)
            why = "the MTA does not let headers be deleted";
    snprintf(detail, sizeof detail, "dropped %d of %.64s", n, m->name);
    finish(e, fate, why, detail);
}

/* Changes the body in memory; the fate is closed when it was written. */
static void
change_body(struct editing *e, struct cm_fate *fate)
{
    const struct cm_fault_mutate *m = &fate->fault->u.mutate;
    bool flips = m->how == CM_MUTATE_FLIP_BITS;
    const char *why = flips ? cm_mutate_flip(&e->body, m->n, fate->draw)
                            : cm_mutate_truncate(&e->body, m->n);
    if (why) {
        finish(e, fate, why, NULL);
        return;
    }
    e->body_changed = true;
    snprintf(fate->detail, sizeof fate->detail,
             flips ? "%lld bits flipped" : "cut to %lld bytes",
             (long long)m->n);
}

static void
mutate(struct editing *e, struct cm_fate *fate)
{
    switch (fate->fault->u.mutate.how) {
    case CM_MUTATE_TRUNCATE_BODY:
    case CM_MUTATE_FLIP_BITS:
        change_body(e, fate);
        break;
    case CM_MUTATE_DROP_HEADER:
        drop_header(e, fate);
        break;
    case CM_MUTATE_ADD_HEADER:
        add_header(e, fate);
        break;
    }
}

static const char *
write_body(struct editing *e)
{
    const struct cm_mutate_body *body = &e->body;
    return smfi_replacebody(e->ctx, body->data, (int)body->len) == MI_SUCCESS
               ? NULL
               : "the MTA does not let bodies be replaced";
}

/* --- all together --- */

static bool
is_edit(const struct cm_fate *fate)
{
    return fate->stage == CM_STAGE_MESSAGE && !fate->closed &&
           cm_deed_turn(fate) == CM_DEED_EDIT;
}

/* Records what is hindered. Returns how many recipients are to be taken out, an
 * MTA wanting at least one: without any the message is discarded. */
static size_t
sort_out(struct editing *e)
{
    struct cm_message *msg = &e->session->msg;
    size_t taken_out = 0;
    for (size_t i = 0; i < msg->nfates; i++) {
        struct cm_fate *fate = &msg->fates[i];
        if (!is_edit(fate))
            continue;
        const char *why = cm_fate_hindrance(e->session, fate);
        if (why)
            finish(e, fate, why, NULL);
        else
            taken_out += fate->fault->kind == CM_FAULT_BLACKHOLE;
    }
    return taken_out;
}

/* Those that only the body waits for. */
static void
close_rest(struct editing *e)
{
    struct cm_message *msg = &e->session->msg;
    const char *why = e->body_changed ? write_body(e) : NULL;
    for (size_t i = 0; i < msg->nfates; i++)
        if (is_edit(&msg->fates[i]))
            finish(e, &msg->fates[i], why, NULL);
}

int
cm_edit_message(struct cm_session *session, milter ctx)
{
    struct cm_message *msg = &session->msg;
    struct editing e = {
        .session = session,
        .ctx = ctx,
        .others = msg->accepted > 0 ? (unsigned)msg->accepted - 1 : 0,
        .verdict = SMFIS_CONTINUE,
    };
    size_t taken_out = sort_out(&e);
    if (taken_out > 0 && taken_out == msg->accepted)
        e.verdict = SMFIS_DISCARD;
    cm_mutate_begin(&e.body, &msg->content);
    for (size_t row = 0; row < EDITS_N; row++)
        for (size_t i = 0; i < msg->nfates; i++)
            if (is_edit(&msg->fates[i]) &&
                msg->fates[i].fault->kind == edits[row].kind)
                edits[row].act(&e, &msg->fates[i]);
    close_rest(&e);
    return e.verdict;
}
