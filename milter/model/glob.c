/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One loop that remembers only the last star: when the text stops fitting, that
 * star takes one byte more. Going back further than the last star never finds
 * a match that this misses, so the recursion of textbook matchers, and its
 * exponential time on `*a*a*a*b`, is not needed. fnmatch() was rejected for its
 * classes, escapes and locale.
 */
#include "milter/model/glob.h"
#include "milter/model/ascii.h"

#include <string.h>

static char
same(char c)
{
    return c;
}

static inline bool
match(const char *pattern, const char *text, char (*fold)(char))
{
    const char *after_star = NULL, *resume = NULL;

    while (*text) {
        if (*pattern == '*') {
            after_star = ++pattern;
            resume = text;
        } else if (*pattern == '?' || *pattern == fold(*text)) {
            pattern++;
            text++;
        } else if (after_star) {
            pattern = after_star;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

bool
cm_glob_match(const char *pattern, const char *text)
{
    return match(pattern, text, same);
}

bool
cm_glob_match_nocase(const char *pattern, const char *text)
{
    return match(pattern, text, cm_ascii_lower);
}

bool
cm_glob_is_pattern(const char *s)
{
    return strpbrk(s, "*?") != NULL;
}
