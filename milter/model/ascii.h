/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ASCII_H
#define CM_ASCII_H

#include <stdbool.h>

/*
 * Letters, digits and case as the mail standards mean them: ASCII, whatever the
 * locale says. <ctype.h> and strcasecmp() ask the locale, where a Turkish one
 * folds `I` to a dotless i, and an 8-bit one calls more bytes letters.
 */
static inline bool
cm_ascii_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool
cm_ascii_is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool
cm_ascii_is_print(char c)
{
    return c >= 0x20 && c <= 0x7e;
}

static inline char
cm_ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static inline char
cm_ascii_upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
}

/* cm_ascii_compare - as strcmp(), but without case. */
static inline int
cm_ascii_compare(const char *a, const char *b)
{
    while (*a && cm_ascii_lower(*a) == cm_ascii_lower(*b))
        a++, b++;
    return (unsigned char)cm_ascii_lower(*a) -
           (unsigned char)cm_ascii_lower(*b);
}

/* cm_ascii_equal - the same text but for case? */
static inline bool
cm_ascii_equal(const char *a, const char *b)
{
    return cm_ascii_compare(a, b) == 0;
}

/* cm_ascii_is_header_name - RFC 5322 3.6.8: printable, no space, no colon. */
static inline bool
cm_ascii_is_header_name(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++) {
        if (!cm_ascii_is_print(*s) || *s == ' ' || *s == ':')
            return false;
    }
    return true;
}

/* cm_ascii_make_printable - every other byte of s becomes '?'. */
static inline void
cm_ascii_make_printable(char *s)
{
    for (; *s; s++) {
        if (!cm_ascii_is_print(*s))
            *s = '?';
    }
}

#endif
