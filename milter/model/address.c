/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parsing takes the address apart (brackets, route, local part, domain), makes
 * each half canonical in a buffer of fixed size, and puts them together again.
 * ASCII, which is nearly all mail, stays in a loop over bytes without locale or
 * allocation; only other bytes wake libunistring (NFC and lower case of the
 * local part) and libidn2 (the domain, non-transitional, so that a sharp s is
 * not two).
 *
 * The grammar is the one MTAs live by rather than RFC 5321's to the letter, but
 * never wider: in doubt an address is invalid, and an invalid one is left
 * alone. Obsolete syntax (`a."b c"@x`, `a\@b@x`, comments) is invalid.
 *
 * Folding comes before quoting, since NFC can make an ASCII special out of a
 * byte above it (U+037E becomes `;`).
 */
#include "milter/model/address.h"
#include "milter/model/ascii.h"

#include <errno.h>
#include <idn2.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <uninorm.h>
#include <unistr.h>

#define CM_ADDRESS_LABEL_MAX 63 /* RFC 1035 2.3.4 */

/* A stretch of the input. */
struct span {
    const char *s;
    size_t len;
};

/* A half of the address on its way to the canonical form. */
struct local {
    char text[CM_ADDRESS_LOCAL_MAX + 1];
    size_t len;
};

static enum cm_status
invalid(struct cm_err *err, const char *why)
{
    return cm_err_set(err, CM_EINVAL, "%s", why);
}

static bool
is_ascii(struct span in)
{
    for (size_t i = 0; i < in.len; i++) {
        if ((unsigned char)in.s[i] >= 0x80)
            return false;
    }
    return true;
}

/* Bytes that an unquoted local part may hold: RFC 5321's atext, the dot, and
 * all of UTF-8 beyond ASCII (RFC 6531). */
static bool
is_atom_byte(char c)
{
    return cm_ascii_is_letter(c) || cm_ascii_is_digit(c) ||
           (unsigned char)c >= 0x80 || (c && strchr("!#$%&'*+-/=?^_`{|}~.", c));
}

static bool
is_domain_byte(char c)
{
    return cm_ascii_is_letter(c) || cm_ascii_is_digit(c) || c == '-' ||
           c == '_' || c == '.';
}

/* No control characters, neither ASCII's nor the C1 set, and valid UTF-8 (no
 * overlong forms, no surrogates). */
static enum cm_status
check_bytes(struct span in, struct cm_err *err)
{
    bool ascii = true;
    for (size_t i = 0; i < in.len; i++) {
        unsigned char c = (unsigned char)in.s[i];
        bool c1 = c == 0xc2 && i + 1 < in.len &&
                  ((unsigned char)in.s[i + 1] & 0xe0) == 0x80;
        if (c < 0x20 || c == 0x7f || c1)
            return invalid(err, "address holds a control character");
        ascii = ascii && c < 0x80;
    }
    if (!ascii && u8_check((const uint8_t *)in.s, in.len) != NULL)
        return invalid(err, "address is not valid UTF-8");
    return CM_OK;
}

/* One pair of angle brackets off; false when they do not match. */
static bool
strip_brackets(struct span *in)
{
    if (in->len == 0 || in->s[0] != '<')
        return true;
    if (in->len < 2 || in->s[in->len - 1] != '>')
        return false;
    in->s++;
    in->len -= 2;
    return true;
}

/* The length of a domain or literal at the start of a source route. */
static size_t
route_hop_length(struct span in)
{
    size_t n = 0;
    if (in.len > 0 && in.s[0] == '[') {
        const char *end = memchr(in.s, ']', in.len);
        return end ? (size_t)(end - in.s) + 1 : 0;
    }
    while (n < in.len &&
           (is_domain_byte(in.s[n]) || (unsigned char)in.s[n] >= 0x80))
        n++;
    return n;
}

/* "@a,@b:" off the front; false when it begins like a route and is none, or
 * leads to nobody. */
static bool
strip_route(struct span *in)
{
    if (in->len == 0 || in->s[0] != '@')
        return true;
    struct span at = *in;
    for (;;) {
        if (at.len == 0 || at.s[0] != '@')
            return false;
        at.s++, at.len--;
        size_t hop = route_hop_length(at);
        if (hop == 0 || hop == at.len)
            return false;
        char after = at.s[hop];
        at.s += hop + 1, at.len -= hop + 1;
        if (after == ':')
            break;
        if (after != ',')
            return false;
    }
    *in = at;
    return at.len > 0;
}

/* The length of the local part as typed: up to the closing quote, or to the
 * first byte that cannot be part of an atom. 0: a quote is not closed. */
static size_t
local_length(struct span in)
{
    size_t n = 0;
    if (in.len == 0 || in.s[0] != '"') {
        while (n < in.len && is_atom_byte(in.s[n]))
            n++;
        return n;
    }
    for (n = 1; n < in.len; n++) {
        if (in.s[n] == '"')
            return n + 1;
        if (in.s[n] == '\\')
            n++;
    }
    return 0;
}

/* The text that a quoted local part stands for. */
static void
unquote(struct span in, struct local *out)
{
    out->len = 0;
    for (size_t i = 1; i + 1 < in.len; i++) {
        if (in.s[i] == '\\')
            i++;
        out->text[out->len++] = in.s[i];
    }
}

/* Puts the text in quotes again if it needs them. false: too long. */
static bool
quote(const struct local *in, struct local *out)
{
    bool plain = in->len > 0;
    for (size_t i = 0; i < in->len; i++)
        plain = plain && is_atom_byte(in->text[i]);
    if (plain) {
        *out = *in;
        return true;
    }
    size_t n = 0;
    char text[2 * CM_ADDRESS_LOCAL_MAX + 2];
    text[n++] = '"';
    for (size_t i = 0; i < in->len; i++) {
        if (in->text[i] == '"' || in->text[i] == '\\')
            text[n++] = '\\';
        text[n++] = in->text[i];
    }
    text[n++] = '"';
    if (n > CM_ADDRESS_LOCAL_MAX)
        return false;
    memcpy(out->text, text, n);
    out->len = n;
    return true;
}

/* Lower case and NFC in one go, as Unicode wants it (a final sigma is another
 * letter, a dotted capital I keeps its dot); language-neutral. */
static enum cm_status
fold_unicode(struct local *local, unsigned flags, struct cm_err *err)
{
    uint8_t room[4 * CM_ADDRESS_LOCAL_MAX];
    size_t len = sizeof room;
    const uint8_t *text = (const uint8_t *)local->text;
    uint8_t *folded =
        flags & CM_ADDRESS_KEEP_CASE
            ? u8_normalize(UNINORM_NFC, text, local->len, room, &len)
            : u8_tolower(text, local->len, NULL, UNINORM_NFC, room, &len);
    if (!folded)
        return errno == ENOMEM ? cm_err_set(err, CM_ENOMEM, "out of memory")
                               : invalid(err, "address cannot be normalized");
    enum cm_status status = CM_OK;
    if (len > CM_ADDRESS_LOCAL_MAX) {
        status = invalid(err, "local part is longer than 64 bytes");
    } else {
        memcpy(local->text, folded, len);
        local->len = len;
    }
    if (folded != room)
        free(folded);
    return status;
}

static enum cm_status
fold(struct local *local, unsigned flags, struct cm_err *err)
{
    if (!is_ascii((struct span){local->text, local->len}))
        return fold_unicode(local, flags, err);
    for (size_t i = 0; i < local->len && !(flags & CM_ADDRESS_KEEP_CASE); i++)
        local->text[i] = cm_ascii_lower(local->text[i]);
    return CM_OK;
}

static enum cm_status
parse_local(struct local *out, struct span in, unsigned flags,
            struct cm_err *err)
{
    struct local local = {.len = in.len};
    if (in.len > CM_ADDRESS_LOCAL_MAX)
        return invalid(err, "local part is longer than 64 bytes");
    if (in.len == 0)
        return invalid(err, "local part is empty or not well formed");
    if (in.s[0] == '"')
        unquote(in, &local);
    else
        memcpy(local.text, in.s, in.len);
    enum cm_status status = fold(&local, flags, err);
    if (status == CM_OK && !quote(&local, out))
        status = invalid(err, "local part is longer than 64 bytes");
    return status;
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]": RFC 5321's dtext between brackets. */
static enum cm_status
copy_literal(char *out, struct span in, struct cm_err *err)
{
    if (in.len > CM_ADDRESS_DOMAIN_MAX)
        return invalid(err, "domain is longer than 255 bytes");
    if (in.len < 3 || in.s[in.len - 1] != ']')
        return invalid(err, "address literal is not well formed");
    for (size_t i = 0; i < in.len; i++) {
        char c = in.s[i];
        bool inside = i > 0 && i + 1 < in.len;
        if (inside && (!cm_ascii_is_print(c) || strchr(" []\\", c)))
            return invalid(err, "address literal is not well formed");
        out[i] = cm_ascii_lower(c);
    }
    out[in.len] = '\0';
    return CM_OK;
}

static enum cm_status
copy_labels(char *out, struct span in, struct cm_err *err)
{
    if (in.len > 0 && in.s[in.len - 1] == '.')
        in.len--;
    if (in.len > CM_ADDRESS_DOMAIN_MAX)
        return invalid(err, "domain is longer than 255 bytes");
    size_t label = 0;
    for (size_t i = 0; i < in.len; i++) {
        if (!is_domain_byte(in.s[i]))
            return invalid(err, "domain holds a character that it must not");
        if (in.s[i] == '.' && label == 0)
            return invalid(err, "domain has an empty label");
        label = in.s[i] == '.' ? 0 : label + 1;
        if (label > CM_ADDRESS_LABEL_MAX)
            return invalid(err, "domain has a label longer than 63 bytes");
        out[i] = cm_ascii_lower(in.s[i]);
    }
    if (label == 0)
        return invalid(err, "domain is empty or has an empty label");
    out[in.len] = '\0';
    return CM_OK;
}

/* A U-label domain as A-labels; then held to the same rules as any other. */
static enum cm_status
copy_international(char *out, struct span in, struct cm_err *err)
{
    uint8_t text[CM_ADDRESS_MAX_BYTES + 1], *ascii = NULL;
    if (in.len > CM_ADDRESS_MAX_BYTES)
        return invalid(err, "domain is longer than 255 bytes");
    memcpy(text, in.s, in.len);
    text[in.len] = '\0';
    int rc =
        idn2_lookup_u8(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (rc == IDN2_MALLOC)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    if (rc != IDN2_OK)
        return invalid(err, "domain is not a valid internationalized name");
    struct span labels = {(const char *)ascii, strlen((const char *)ascii)};
    enum cm_status status = copy_labels(out, labels, err);
    idn2_free(ascii);
    return status;
}

static enum cm_status
parse_domain(char *out, struct span in, struct cm_err *err)
{
    if (!is_ascii(in))
        return copy_international(out, in, err);
    if (in.len > 0 && in.s[0] == '[')
        return copy_literal(out, in, err);
    return copy_labels(out, in, err);
}

static void
join(struct cm_address *addr, const struct local *local, const char *domain)
{
    size_t len = local->len;
    memcpy(addr->text, local->text, len);
    if (*domain) {
        size_t domain_len = strlen(domain);
        addr->text[len++] = '@';
        addr->domain_off = (uint16_t)len;
        memcpy(addr->text + len, domain, domain_len);
        len += domain_len;
    } else {
        addr->domain_off = (uint16_t)len;
    }
    addr->text[len] = '\0';
    addr->len = (uint16_t)len;
}

enum cm_status
cm_address_parse(struct cm_address *addr_r, const char *s, size_t len,
                 unsigned flags, struct cm_err *err)
{
    struct span in = {s, len};
    struct local local = {.len = 0};
    char domain[CM_ADDRESS_DOMAIN_MAX + 1] = "";

    if (!strip_brackets(&in))
        return invalid(err, "angle brackets do not match");
    if (in.len == 0) {
        join(addr_r, &local, domain);
        return CM_OK;
    }
    if (!strip_route(&in))
        return invalid(err, "source route is not well formed");
    enum cm_status status = check_bytes(in, err);
    if (status != CM_OK)
        return status;

    struct span left = {in.s, local_length(in)};
    struct span right = {in.s + left.len, in.len - left.len};
    status = parse_local(&local, left, flags, err);
    if (status == CM_OK && right.len > 0) {
        if (right.s[0] != '@')
            return invalid(err, "local part holds a character that it must "
                                "not, or is not quoted");
        right.s++, right.len--;
        status = parse_domain(domain, right, err);
    }
    if (status == CM_OK)
        join(addr_r, &local, domain);
    return status;
}

enum cm_status
cm_address_parse_domain(char out_r[CM_ADDRESS_DOMAIN_MAX + 1], const char *s,
                        size_t len, struct cm_err *err)
{
    char domain[CM_ADDRESS_DOMAIN_MAX + 1];
    struct span in = {s, len};
    enum cm_status status = check_bytes(in, err);
    if (status == CM_OK)
        status = parse_domain(domain, in, err);
    if (status == CM_OK)
        memcpy(out_r, domain, sizeof domain);
    return status;
}

enum cm_status
cm_address_fold_local(char out_r[CM_ADDRESS_LOCAL_MAX + 1], const char *s,
                      size_t len, unsigned flags, struct cm_err *err)
{
    struct local local = {.len = len};
    if (len > CM_ADDRESS_LOCAL_MAX)
        return invalid(err, "local part is longer than 64 bytes");
    enum cm_status status = check_bytes((struct span){s, len}, err);
    if (status != CM_OK)
        return status;
    memcpy(local.text, s, len);
    status = fold(&local, flags, err);
    if (status == CM_OK) {
        memcpy(out_r, local.text, local.len);
        out_r[local.len] = '\0';
    }
    return status;
}

const char *
cm_address_domain(const struct cm_address *addr)
{
    return addr->text + addr->domain_off;
}

bool
cm_address_strip_tag(const struct cm_address *addr, const char *delimiters,
                     struct cm_address *out_r)
{
    bool has_domain = addr->domain_off < addr->len;
    size_t local = has_domain ? addr->domain_off - 1u : addr->len;
    if (local == 0 || addr->text[0] == '"')
        return false;
    size_t tag = 1;
    while (tag < local && !strchr(delimiters, addr->text[tag]))
        tag++;
    if (tag >= local)
        return false;

    size_t rest = addr->len - local; /* "@domain", or nothing */
    struct cm_address out;
    memcpy(out.text, addr->text, tag);
    memcpy(out.text + tag, addr->text + local, rest + 1);
    out.len = (uint16_t)(tag + rest);
    out.domain_off = (uint16_t)(has_domain ? tag + 1 : out.len);
    *out_r = out;
    return true;
}
