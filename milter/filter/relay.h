/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RELAY_H
#define CM_RELAY_H

#include "milter/err.h"

#include <stddef.h>

struct cm_filter;
struct cm_server_opts;

/*
 * The saslauthd relay, for faults at AUTH on Sendmail, which has no command
 * hook: a socket that speaks as saslauthd does (saslauthd.h). A question is
 * handed on to the real saslauthd, byte for byte, and so is its answer; one
 * that is to be late, later; and one that is to be refused is answered with no,
 * without asking, whereupon Sendmail says 535 5.7.0 to its client.
 *
 * Where saslauthd cannot be reached or does not answer, the connection is
 * closed, and Sendmail says what it would say without us.
 */
struct cm_relay;

/* cm_relay_open - make the socket, with the rights that takes. opts: borrowed
 * for the call; after their deadline a question passes. saslauthd: path of the
 * real one's socket. CM_OK; CM_ECONFLICT: another process listens there, or
 * something else has that name; CM_EINVAL, CM_EIO, CM_ENOMEM. */
enum cm_status cm_relay_open(struct cm_relay **relay_r,
                             const struct cm_server_opts *opts,
                             const char *saslauthd,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_relay_start - begin to relay, for a filter that outlives it. CM_OK,
 * CM_ENOMEM, CM_EIO. */
enum cm_status cm_relay_start(struct cm_relay *relay, struct cm_filter *filter,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_relay_retire - the filter is about to end, or cannot start: from now on
 * every question passes at once, also those that are held, and new ones find
 * the real saslauthd where they found us: the socket's name becomes a symbolic
 * link to it, since Sendmail would refuse every login where nobody answers. */
void cm_relay_retire(struct cm_relay *relay);

/* cm_relay_release - everything is halted (cm_filter_halted): let every
 * question go on that is held. Any thread; does not wait. */
void cm_relay_release(struct cm_relay *relay);

/* cm_relay_free - end all of it; NULL inside is fine. */
void cm_relay_free(struct cm_relay **relay);

/* cm_relay_why_not - why no rule at stage auth can act on Sendmail now, NULL
 * when it can. relay may be NULL. Static text, thread-safe. */
const char *cm_relay_why_not(const struct cm_relay *relay);

/* cm_relay_open_count - questions that are with us or with saslauthd now;
 * cm_relay_held - those of them that are held. relay may be NULL. Thread-safe.
 */
size_t cm_relay_open_count(const struct cm_relay *relay);
size_t cm_relay_held(const struct cm_relay *relay);

#endif
