/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_GLOB_H
#define CM_GLOB_H

#include <stdbool.h>

/*
 * cm_glob_match - does text match the pattern whole? `*` stands for any run of
 * bytes, also an empty one, `?` for one byte; everything else for itself. No
 * classes and no escapes: an address may hold any of those bytes (our choice).
 *
 * Time is at most pattern length x text length, whatever the pattern; no
 * memory. Byte-wise: both sides are already canonical.
 */
bool cm_glob_match(const char *pattern, const char *text);

/* cm_glob_match_nocase - the same, with the text's ASCII letters taken as lower
 * case: for a pattern that is lower case and a text as it came. */
bool cm_glob_match_nocase(const char *pattern, const char *text);

/* cm_glob_is_pattern - does s hold a `*` or a `?`? */
bool cm_glob_is_pattern(const char *s);

#endif
