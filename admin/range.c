/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/range.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "0123456789";

/* The number at *at, which then is behind it; -1: there is none. */
static int64_t
take_number(const char **at, int *len_r)
{
    size_t len = strspn(*at, digits);
    if (len == 0 || len > CM_RANGE_DIGITS_MAX)
        return -1;
    int64_t number = strtoll(*at, NULL, 10);
    *at += len;
    *len_r = (int)len;
    return number;
}

enum cm_status
cm_range_parse(struct cm_range_pattern *range_r, const char *pattern,
               struct cm_err *err)
{
    const char *open = strchr(pattern, '{');
    const char *at = open ? open + 1 : pattern;
    int first_len = 0, last_len = 0;
    int64_t first = take_number(&at, &first_len);
    bool dots = first >= 0 && strncmp(at, "..", 2) == 0;
    if (dots)
        at += 2;
    int64_t last = dots ? take_number(&at, &last_len) : -1;
    if (!open || last < 0 || *at != '}' || strpbrk(at + 1, "{}"))
        return cm_err_set(err, CM_EINVAL,
                          "must hold one range of numbers with at most %d "
                          "digits, such as load-{0001..1000}@example.com",
                          CM_RANGE_DIGITS_MAX);
    if (last < first)
        return cm_err_set(err, CM_EINVAL,
                          "must hold a range that ascends: %" PRId64
                          " is above %" PRId64,
                          first, last);
    *range_r = (struct cm_range_pattern){
        .head = pattern,
        .head_len = (int)(open - pattern),
        .tail = at + 1,
        .width = open[1] == '0' ? first_len : 1,
        .first = first,
        .last = last,
    };
    return CM_OK;
}

bool
cm_range_print(const struct cm_range_pattern *range, int64_t number, char *out,
               size_t cap)
{
    int n = snprintf(out, cap, "%.*s%0*" PRId64 "%s", range->head_len,
                     range->head, range->width, number, range->tail);
    return n >= 0 && (size_t)n < cap;
}
