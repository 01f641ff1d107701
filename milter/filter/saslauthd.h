/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SASLAUTHD_H
#define CM_SASLAUTHD_H

#include <stddef.h>

/*
 * The wire of saslauthd, which the Cyrus SASL library asks whether a password
 * is right: login, password, service and realm, each as a 16-bit length in
 * network order and so many bytes; the answer is one such field that begins
 * with OK or NO. A connection carries one question. Pure: bytes in, bytes out.
 * Source: lib/checkpw.c and saslauthd/ipc_unix.c of Cyrus SASL 2.1.28, and what
 * Sendmail 8.17 sent.
 */

/* The library asks nothing longer; saslauthd takes 256 bytes a field. */
#define CM_SASLAUTHD_QUESTION_MAX 8192
/* The longest answer that the length can tell, with it. */
#define CM_SASLAUTHD_ANSWER_MAX (2 + 65535)

enum cm_saslauthd_state {
    CM_SASLAUTHD_MORE, /* a question may follow */
    CM_SASLAUTHD_WHOLE,
    CM_SASLAUTHD_LONG /* longer than any that the library asks */
};

/*
 * cm_saslauthd_measure - is there a whole question? len: up to
 * CM_SASLAUTHD_QUESTION_MAX.
 */
enum cm_saslauthd_state cm_saslauthd_measure(const char *data, size_t len);

/* Who asks to be let in: never the password. */
#define CM_SASLAUTHD_TEXT 256
struct cm_saslauthd_who {
    char login[CM_SASLAUTHD_TEXT]; /* "": not known */
    /* "login@realm", "" without a realm: the library parts a login at its last
     * "@". */
    char login_at_realm[2 * CM_SASLAUTHD_TEXT];
};

/* cm_saslauthd_read - of a whole question. A login with a NUL, or one that
 * does not fit, is not known. */
void cm_saslauthd_read(struct cm_saslauthd_who *who_r, const char *data,
                       size_t len);

/* cm_saslauthd_refusal - the answer "NO chaosmilter", static; its length. */
const char *cm_saslauthd_refusal(size_t *len_r);

#endif
