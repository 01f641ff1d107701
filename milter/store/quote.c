/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * jansson would do it by way of an object and an allocation per string; events
 * and heartbeats are made all the time, so it is done here byte by byte.
 */
#include "milter/store/quote.h"
#include "milter/buf.h"

/* Bytes of the UTF-8 sequence at s (RFC 3629), 0 when it is not one. */
static size_t
utf8_len(const unsigned char *s, size_t left)
{
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] >= 0x80 && (s[0] < 0xc2 || s[0] > 0xf4))
        return 0;
    if (len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0; /* overlong, surrogate, beyond U+10FFFF */
    return len;
}

void
cm_quote_json(struct cm_buf *buf, const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    cm_buf_puts(buf, "\"");
    for (size_t i = 0; i < len;) {
        size_t n = utf8_len(s + i, len - i);
        if (n == 0)
            cm_buf_puts(buf, "?");
        else if (s[i] == '"' || s[i] == '\\')
            cm_buf_printf(buf, "\\%c", s[i]);
        else if (s[i] < 0x20 || s[i] == 0x7f)
            cm_buf_printf(buf, "\\u%04x", s[i]);
        else
            cm_buf_add(buf, s + i, n);
        i += n ? n : 1;
    }
    cm_buf_puts(buf, "\"");
}
