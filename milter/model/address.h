/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ADDRESS_H
#define CM_ADDRESS_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The one canonical form of an envelope address, made here and nowhere else, so
 * that what HTTP writes, Redis holds and SMTP asks for are the same bytes:
 *
 * - domain: lower-case A-label (IDNA 2008, RFC 5891), one trailing dot gone; an
 *   address literal `[...]` verbatim in lower case
 *
 * - local part: quotes resolved where they are not needed (RFC 5321 4.1.2:
 *   "a"@x is a@x), kept where they are; lower case unless CM_ADDRESS_KEEP_CASE;
 *   NFC when it holds UTF-8 (RFC 6532)
 *
 * - dropped: one pair of angle brackets, a source route (RFC 5321 C)
 *
 * What no SMTP server could take (control bytes, NUL, comments, invalid UTF-8,
 * a local part over 64 bytes, a domain over 255 or with an empty label) is
 * CM_EINVAL, and meets no chaos. Underscores and hyphens anywhere in a label
 * are taken, because MTAs take them; so are dots anywhere in a local part. The
 * canonical form of a canonical form is itself.
 */
#define CM_ADDRESS_LOCAL_MAX  64 /* bytes: RFC 5321 4.5.3.1.1 */
#define CM_ADDRESS_DOMAIN_MAX 255
#define CM_ADDRESS_MAX_BYTES  (CM_ADDRESS_LOCAL_MAX + 1 + CM_ADDRESS_DOMAIN_MAX)

enum cm_address_flag {
    CM_ADDRESS_KEEP_CASE = 1 << 0 /* local parts differ by case */
};

struct cm_address {
    uint16_t len;        /* bytes in text; 0 is the null sender <> */
    uint16_t domain_off; /* start of the domain in text; len if it has none */
    char text[CM_ADDRESS_MAX_BYTES + 1]; /* canonical, NUL-terminated */
};

/*
 * cm_address_parse - make the canonical form of len bytes at s.
 *
 * s       as typed in MAIL or RCPT, in a URL after decoding, or in a document;
 *         may hold NUL (which makes it invalid); "<>" and "": the null sender
 *
 * flags   0 or CM_ADDRESS_KEEP_CASE
 *
 * addr_r  out; written only on CM_OK
 *
 * Returns CM_OK, CM_EINVAL (err says what is wrong with it), CM_ENOMEM.
 * Thread-safe; allocates only for addresses that are not ASCII.
 * Source: RFC 5321 4.1.2, RFC 6531, RFC 5891.
 */
enum cm_status cm_address_parse(struct cm_address *addr_r, const char *s,
                                size_t len, unsigned flags,
                                struct cm_err *err) CM_MUST_CHECK;

/* The two halves on their own, for what is not a whole address: the domain of
 * a rule, or the parts of a pattern. out_r is written only on CM_OK and is
 * NUL-terminated. A domain may also be a literal. */
enum cm_status cm_address_parse_domain(char out_r[CM_ADDRESS_DOMAIN_MAX + 1],
                                       const char *s, size_t len,
                                       struct cm_err *err) CM_MUST_CHECK;
/* cm_address_fold_local - NFC and case alone; s is UTF-8 of 0..64 bytes. */
enum cm_status cm_address_fold_local(char out_r[CM_ADDRESS_LOCAL_MAX + 1],
                                     const char *s, size_t len, unsigned flags,
                                     struct cm_err *err) CM_MUST_CHECK;

/* cm_address_domain - the domain, "" when there is none. Borrowed. */
const char *cm_address_domain(const struct cm_address *addr);

/*
 * cm_address_strip_tag - the address without its sub-address (user+tag@d ->
 * user@d). delimiters lists the bytes that may part the two ("+", "+-"); the
 * first one found that is not the local part's first byte counts (Postfix's
 * recipient_delimiter). A quoted local part has no sub-address.
 *
 * Returns false, and leaves out_r alone, when there is nothing to strip.
 */
bool cm_address_strip_tag(const struct cm_address *addr, const char *delimiters,
                          struct cm_address *out_r);

#endif
