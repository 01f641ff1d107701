/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HOOK_H
#define CM_HOOK_H

#include "milter/err.h"

#include <stddef.h>

struct cm_filter;
struct cm_server_opts;

/*
 * The command hook: Postfix asks it about every command of an SMTP client
 * before it obeys (smtpd_command_filter), and so AUTH, STARTTLS and others meet
 * faults, of which the milter protocol tells nothing or too late. It is a
 * socketmap server with two maps:
 *
 *   command   key: the command. Found: another command to obey in its place
 *   ehlo      key: the client's address. Found: EHLO keywords to hide from it
 *             (smtpd_discard_ehlo_keyword_address_maps); asked once a session,
 *             at its beginning
 *
 * A command that is to be answered late is answered late here. One that is to
 * be refused is replaced by a word (ticket.h), whose reply is given in the
 * milter session. All others are not found, and Postfix obeys them as ever.
 */
struct cm_hook;

/* cm_hook_open - make the socket, with the rights that takes. opts: borrowed
 * for the call; after their deadline a command passes. CM_OK; CM_ECONFLICT:
 * another process listens there; CM_EINVAL, CM_EIO, CM_ENOMEM. */
enum cm_status cm_hook_open(struct cm_hook **hook_r,
                            const struct cm_server_opts *opts,
                            struct cm_err *err) CM_MUST_CHECK;

/* cm_hook_start - begin to answer, for a filter that outlives the hook. CM_OK,
 * CM_ENOMEM, CM_EIO. */
enum cm_status cm_hook_start(struct cm_hook *hook, struct cm_filter *filter,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_hook_quiet - the filter is about to end: from now on every command passes
 * at once, also those that are held. Commands are answered as long as the
 * process lives, for without an answer Postfix ends the session. */
void cm_hook_quiet(struct cm_hook *hook);

/* cm_hook_release - everything is halted (cm_filter_halted): let every command
 * go that is held. Any thread, also before cm_hook_start; does not wait. */
void cm_hook_release(struct cm_hook *hook);

/* cm_hook_remove - take the socket's name away. */
void cm_hook_remove(struct cm_hook *hook);

/* cm_hook_free - end all of it; NULL inside is fine. */
void cm_hook_free(struct cm_hook **hook);

/* cm_hook_why_not - why no rule at the hook's stages can act now, NULL when it
 * can; cm_hook_why_not_hide - the same for hiding keywords. hook may be NULL.
 * Static text, thread-safe. */
const char *cm_hook_why_not(const struct cm_hook *hook);
const char *cm_hook_why_not_hide(const struct cm_hook *hook);

/* cm_hook_held - commands that are held now. Thread-safe. */
size_t cm_hook_held(const struct cm_hook *hook);

#endif
