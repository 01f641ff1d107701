/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_RANGE_H
#define CM_RANGE_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A pattern that stands for many texts: "load-{0001..1000}@example.com" is
 * load-0001@example.com to load-1000@example.com. One range, ascending; with a
 * leading zero all numbers have the width of the first, as a shell does it.
 */
#define CM_RANGE_DIGITS_MAX 9

struct cm_range_pattern {
    const char *head, *tail; /* borrowed from the pattern */
    int head_len;
    int width; /* digits, at least; 1: no leading zeros */
    int64_t first, last;
};

/* cm_range_parse - CM_OK; CM_EINVAL: err says what is wrong with it. pattern is
 * borrowed. */
enum cm_status cm_range_parse(struct cm_range_pattern *range_r,
                              const char *pattern,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_range_print - the text for one number; false: it does not fit. */
bool cm_range_print(const struct cm_range_pattern *range, int64_t number,
                    char *out, size_t cap);

#endif
