/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_REPLY_H
#define CM_REPLY_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * An SMTP reply that a fault will send: checked once, when the rule is written
 * or read, and immutable afterwards. What libmilter refuses or the MTAs mangle
 * (measured on libmilter 8.17.1, Postfix 3.7, Sendmail 8.17) cannot be built:
 * a code outside 400..599, an enhanced code of another class (RFC 3463 2),
 * bytes outside 0x20..0x7E, more than 32 lines or 480 bytes in one, several
 * lines without an enhanced code.
 */
#define CM_REPLY_LINES_MAX      32
#define CM_REPLY_LINE_BYTES_MAX 480

struct cm_reply {
    int code;          /* 400..599 */
    char enhanced[12]; /* "4.7.1", or "" for none */
    size_t nlines;     /* 1..32 */
    char **lines;      /* as the SMTP client will see them */
    char **wire;       /* the same with every % doubled, for smfi_setmlreply */
};

/*
 * cm_reply_new - a reply owning copies of its texts.
 *
 * enhanced  NULL or "" for a reply without an enhanced status code
 * lines     nlines strings, 1..32, none empty; without an enhanced status code
 *           one alone: libmilter cannot say more
 *
 * Returns CM_OK; CM_EINVAL (err names what is wrong: code, enhanced or the line
 * by number); CM_ENOMEM. Source: RFC 5321 4.2, RFC 3463, smfi_setmlreply(3).
 */
enum cm_status cm_reply_new(struct cm_reply **reply_r, int code,
                            const char *enhanced, const char *const *lines,
                            size_t nlines, struct cm_err *err) CM_MUST_CHECK;
void cm_reply_free(struct cm_reply **reply);

/* The three checks one by one, for validators that report every fault at once.
 * Each returns NULL when fine, else a static sentence without a subject, such
 * as "must be between 400 and 599". */
const char *cm_reply_check_code(long long code);
const char *cm_reply_check_enhanced(int code, const char *enhanced);
const char *cm_reply_check_line(const char *line, size_t len);

/* cm_reply_check_lines - of how many there are; enhanced may be NULL. */
const char *cm_reply_check_lines(size_t nlines, const char *enhanced);

/* cm_reply_parse_step - "451 4.7.1 text" or "421 text" as one line of reply. A
 * bare "451" gets the default enhanced code and text, "451 4.7.1" the text. */
enum cm_status cm_reply_parse_step(struct cm_reply **reply_r, const char *text,
                                   struct cm_err *err) CM_MUST_CHECK;

/* cm_reply_default_enhanced - "4.3.0" or "5.3.0", to fit the code. Static. */
const char *cm_reply_default_enhanced(int code);

/* cm_reply_default_text - what is said when a rule does not. Static. */
const char *cm_reply_default_text(void);

/* cm_reply_is_temporary - 4xx: the client may try again (RFC 5321 4.2.1). */
bool cm_reply_is_temporary(const struct cm_reply *reply);

/* cm_reply_ends_session - 421 and 521: the MTA closes the connection after it
 * (RFC 5321 3.8, RFC 7504; Postfix does on both, Sendmail on 421). */
bool cm_reply_ends_session(const struct cm_reply *reply);

/* cm_reply_print - "451 4.7.1 first line" into out, cut to cap with its NUL. */
void cm_reply_print(const struct cm_reply *reply, char *out, size_t cap);

/*
 * The replies that VaultSandbox draws random errors from, and its greylist
 * reply (observed on its gateway 0.9.1). Static, never freed.
 */
enum cm_reply_types {
    CM_REPLY_TEMPORARY = 1 << 0,
    CM_REPLY_PERMANENT = 1 << 1,
    CM_REPLY_KEEPS_SESSION = 1 << 2 /* none that ends it: no 421 */
};

/* cm_reply_draw - one of the lists named by types, each with the same chance;
 * draw is a uniform 64-bit number. types 0 counts as CM_REPLY_TEMPORARY. */
const struct cm_reply *cm_reply_draw(unsigned types, unsigned long long draw);
const struct cm_reply *cm_reply_greylist(void);

#endif
