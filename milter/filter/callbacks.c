/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What libmilter calls. Each callback fetches its session, notes what the MTA
 * tells, and hands over to the verdict; what it returns when it knows nothing
 * is SMFIS_CONTINUE.
 */
#include "milter/filter/callbacks.h"
#include "milter/clock.h"
#include "milter/filter/attendance.h"
#include "milter/filter/deed.h"
#include "milter/filter/hold.h"
#include "milter/filter/peer.h"
#include "milter/filter/session.h"
#include "milter/filter/ticket.h"
#include "milter/filter/verdict.h"
#include "milter/log.h"
#include "milter/store/journal.h"
#include "milter/store/sync.h"

#include <libmilter/mfapi.h>
#include <stdio.h>
#include <string.h>

static struct cm_filter *the_filter;

/* Replaces the list that the MTA has for CONNECT, so it repeats what we read of
 * that; the last two are the MTA's end of the client's connection. */
static const char connect_macros[] =
    "j _ v {daemon_name} {daemon_addr} {daemon_port}";

/* The session of this callback, ready for a new hold; NULL: continue. */
static struct cm_session *
enter(SMFICTX *ctx)
{
    int fd = cm_hold_enter();
    struct cm_session *session = smfi_getpriv(ctx);
    if (session && session->fd != fd)
        session->fd = -1; /* not the connection we know: never hold on it */
    return session;
}

/* Recipients and whole messages are what is decided for every mail, so their
 * verdicts are timed: reading the clock at each command as well would cost a
 * clean mail more than deciding it does. */
static sfsistat
timed(const struct cm_session *session, int64_t began_ns, sfsistat verdict)
{
    cm_histogram_add(&session->filter->metrics.decision,
                     cm_clock_mono_ns() - began_ns);
    return verdict;
}

static void
copy(char *to, size_t cap, const char *from)
{
    snprintf(to, cap, "%s", from ? from : "");
}

/* Could any fault meet this session's mail now? */
static bool
is_live(const struct cm_session *session)
{
    return !session->local && cm_filter_is_live(session->filter);
}

/* A session for a connection that has none yet; NULL: no memory, and its mail
 * meets no chaos. */
static struct cm_session *
begin_session(SMFICTX *ctx, int fd)
{
    struct cm_session *session = cm_session_new(the_filter, fd);
    if (!session || smfi_setpriv(ctx, session) != MI_SUCCESS) {
        cm_session_free(&session);
        cm_filter_count(the_filter, CM_FILTER_NO_MEMORY);
        return NULL;
    }
    cm_journal_count(the_filter->journal, CM_COUNT_CONNECTIONS, 1);
    return session;
}

static sfsistat
on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps,
             unsigned long f2, unsigned long f3, unsigned long *actions_r,
             unsigned long *steps_r, unsigned long *f2_r, unsigned long *f3_r)
{
    (void)f2;
    (void)f3;
    int fd = cm_hold_enter();
    struct cm_session *session = begin_session(ctx, fd);
    struct cm_terms terms;
    *actions_r = actions;
    *steps_r = steps;
    cm_terms_agree(&terms, the_filter, actions_r, steps_r);
    if (session)
        session->terms = terms;
    if (actions & SMFIF_SETSYMLIST)
        (void)smfi_setsymlist(ctx, SMFIM_CONNECT, (char *)connect_macros);
    *f2_r = *f3_r = 0;
    cm_hold_watch(fd);
    return SMFIS_CONTINUE;
}

static void
note_client(struct cm_session *session, SMFICTX *ctx, const _SOCK_ADDR *addr)
{
    struct cm_err err;
    cm_client_from_sockaddr(&session->client, addr);
    cm_client_print(&session->client, session->client_text,
                    sizeof session->client_text);
    session->tuple_known =
        cm_tuple_make(&session->tuple, &session->client,
                      smfi_getsymval(ctx, (char *)"{daemon_addr}"),
                      smfi_getsymval(ctx, (char *)"{daemon_port}"),
                      &err) == CM_OK;
    if (!session->tuple_known)
        copy(session->tuple_why, sizeof session->tuple_why, err.msg);
}

/* So that the hook finds the session whose commands it is asked about. */
static void
attend(struct cm_session *session)
{
    struct cm_guest guest = {.process = cm_peer_process(session->fd),
                             .session = session->number,
                             .client = session->client,
                             .tuple_known = session->tuple_known,
                             .tuple = session->tuple,
                             .only_temporary = session->only_temporary};
    if (cm_attendance_enter(session->filter->attendance, &guest) == CM_OK)
        session->process = guest.process;
}

static sfsistat
on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *addr)
{
    struct cm_session *session = enter(ctx);
    (void)host;
    /* An MTA may use one connection for one SMTP session after another, without
     * negotiating again. */
    if (!session)
        session = begin_session(ctx, cm_hold_enter());
    if (!session)
        return SMFIS_CONTINUE;
    const char *version = smfi_getsymval(ctx, (char *)"v");
    session->mta = cm_seen_note(&session->filter->seen, version);
    session->only_temporary = cm_mta_commands_only_temporary(version);
    note_client(session, ctx, addr);
    if (session->filter->attendance)
        attend(session);
    /* Mail handed in by sendmail(1) comes with port 0 or without an address. A
     * refusal there is a configuration error to Postfix, and the mail is stuck.
     */
    session->local = session->client.port == 0;
    if (session->local)
        cm_filter_count(session->filter, CM_FILTER_LOCAL);
    if (!is_live(session))
        return SMFIS_CONTINUE;
    return cm_verdict_command(session, ctx, CM_STAGE_CONNECT);
}

/* Has the hook judged this session's commands already? */
static bool
is_hooked(const struct cm_session *session)
{
    return session->process > 0 &&
           cm_attendance_is_met(session->filter->attendance, session->process,
                                session->number);
}

static sfsistat
on_helo(SMFICTX *ctx, char *helo)
{
    struct cm_session *session = enter(ctx);
    if (!session)
        return SMFIS_CONTINUE;
    copy(session->helo, sizeof session->helo, helo);
    if (!is_live(session))
        return SMFIS_CONTINUE;
    return is_hooked(session) ? cm_verdict_judged(session, ctx, CM_STAGE_HELO)
                              : cm_verdict_command(session, ctx, CM_STAGE_HELO);
}

static sfsistat
on_mail(SMFICTX *ctx, char **argv)
{
    struct cm_session *session = enter(ctx);
    if (!session)
        return SMFIS_CONTINUE;
    cm_session_reset(session);
    copy(session->user, sizeof session->user,
         smfi_getsymval(ctx, (char *)"{auth_authen}"));
    if (!is_live(session))
        return SMFIS_CONTINUE;
    cm_session_begin(session);
    cm_content_declare(&session->msg.content, (const char *const *)argv + 1);
    session->msg.sender_known =
        cm_address_parse(&session->msg.sender, argv[0], strlen(argv[0]),
                         session->filter->address_flags, NULL) == CM_OK;
    if (!session->msg.sender_known)
        cm_filter_count(session->filter, CM_FILTER_INVALID_ADDRESS);
    return cm_verdict_command(session, ctx, CM_STAGE_MAIL);
}

static sfsistat
on_rcpt(SMFICTX *ctx, char **argv)
{
    struct cm_session *session = enter(ctx);
    if (!session)
        return SMFIS_CONTINUE;
    cm_journal_count(session->filter->journal, CM_COUNT_RECIPIENTS, 1);
    if (!session->msg.open)
        return SMFIS_CONTINUE;
    int64_t began_ns = cm_clock_mono_ns();
    return timed(session, began_ns, cm_verdict_rcpt(session, ctx, argv[0]));
}

static sfsistat
on_data(SMFICTX *ctx)
{
    struct cm_session *session = enter(ctx);
    if (!session || !session->msg.open)
        return SMFIS_CONTINUE;
    return cm_verdict_late(session, ctx, CM_STAGE_DATA);
}

static sfsistat
on_header(SMFICTX *ctx, char *name, char *value)
{
    struct cm_session *session = enter(ctx);
    if (session && session->msg.open)
        cm_session_header(session, name, value);
    return SMFIS_CONTINUE;
}

/* A gigabyte of body is declined where the MTA lets us, else passed over. */
static sfsistat
on_body(SMFICTX *ctx, unsigned char *chunk, size_t len)
{
    struct cm_session *session = enter(ctx);
    bool more =
        session && session->msg.open && cm_session_body(session, chunk, len);
    if (more || !session || !session->terms.skip)
        return SMFIS_CONTINUE;
    session->msg.content.body_skipped = true;
    return SMFIS_SKIP;
}

static sfsistat
on_eom(SMFICTX *ctx)
{
    struct cm_session *session = enter(ctx);
    sfsistat verdict = SMFIS_CONTINUE;
    if (!session)
        return SMFIS_CONTINUE;
    cm_filter_count(session->filter, CM_FILTER_MESSAGES);
    cm_journal_count(session->filter->journal, CM_COUNT_MESSAGES, 1);
    int64_t began_ns = cm_clock_mono_ns();
    if (session->msg.open)
        verdict = timed(session, began_ns,
                        cm_verdict_late(session, ctx, CM_STAGE_MESSAGE));
    cm_session_reset(session);
    return verdict;
}

/* A command that the mail server does not know: a client's, or what the hook
 * has put in the place of one. */
static sfsistat
on_unknown(SMFICTX *ctx, const char *word)
{
    struct cm_session *session = enter(ctx);
    struct cm_ticket *ticket;
    if (!session || session->process <= 0)
        return SMFIS_CONTINUE;
    ticket = cm_attendance_redeem(session->filter->attendance, session->process,
                                  session->number, word);
    return ticket ? cm_deed_redeem(session, ctx, ticket) : SMFIS_CONTINUE;
}

static sfsistat
on_abort(SMFICTX *ctx)
{
    struct cm_session *session = enter(ctx);
    if (session)
        cm_session_reset(session);
    return SMFIS_CONTINUE;
}

static void
take_leave(struct cm_session *session)
{
    struct cm_ticket *left;
    if (session->process <= 0)
        return;
    left = cm_attendance_leave(session->filter->attendance, session->process,
                               session->number);
    cm_ticket_void(session->filter, &left, "the session has ended");
}

static sfsistat
on_close(SMFICTX *ctx)
{
    struct cm_session *session = enter(ctx);
    smfi_setpriv(ctx, NULL);
    if (session)
        take_leave(session);
    cm_session_free(&session);
    return SMFIS_CONTINUE;
}

enum cm_status
cm_callbacks_register(struct cm_filter *filter, struct cm_err *err)
{
    struct smfiDesc desc = {
        .xxfi_name = (char *)"chaosmilter",
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = cm_terms_actions(),
        .xxfi_connect = on_connect,
        .xxfi_helo = on_helo,
        .xxfi_envfrom = on_mail,
        .xxfi_envrcpt = on_rcpt,
        .xxfi_header = on_header,
        .xxfi_body = on_body,
        .xxfi_eom = on_eom,
        .xxfi_abort = on_abort,
        .xxfi_close = on_close,
        .xxfi_unknown = on_unknown,
        .xxfi_data = on_data,
        .xxfi_negotiate = on_negotiate,
    };
    the_filter = filter;
    if (smfi_register(desc) != MI_SUCCESS)
        return cm_err_set(err, CM_EIO, "libmilter refused our callbacks");
    return CM_OK;
}
