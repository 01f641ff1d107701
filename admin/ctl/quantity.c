/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers are read by strtod and strtoll, which take more than a person would
 * write (blanks, signs, "inf", hexadecimals): so the first character must be a
 * digit and what follows the number a unit that is known.
 */
#include "admin/ctl/quantity.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_QUANTITY_MAX_MS ((double)366 * 24 * 3600 * 1000)

static const struct {
    const char *name;
    double ms;
} units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000.0}, {"d", 86400000.0}};

/* A plain decimal number at text; *rest_r is what follows it. */
static bool
read_number(const char *text, double *n_r, const char **rest_r)
{
    size_t len = strspn(text, "0123456789.");
    char digits[32], *end;
    if (text[0] < '0' || text[0] > '9' || len >= sizeof digits)
        return false;
    memcpy(digits, text, len);
    digits[len] = '\0';
    *n_r = strtod(digits, &end);
    *rest_r = text + len;
    return *end == '\0';
}

enum cm_status
cm_quantity_duration(const char *text, int64_t *ms_r, struct cm_err *err)
{
    const char *unit;
    double n;
    if (read_number(text, &n, &unit)) {
        if (n == 0 && !*unit)
            unit = "ms";
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            if (strcmp(unit, units[i].name) == 0 &&
                n * units[i].ms <= CM_QUANTITY_MAX_MS) {
                *ms_r = llround(n * units[i].ms);
                return CM_OK;
            }
        }
    }
    return cm_err_set(err, CM_EINVAL,
                      "'%s' is not a time of at most 366 days such as 250ms, "
                      "1.5s, 15m, 2h or 7d",
                      text);
}

/* "a..b" parted; false when there are no two dots, or no room. */
static bool
part(const char *text, char first[64], const char **second_r)
{
    const char *dots = strstr(text, "..");
    if (!dots || (size_t)(dots - text) >= 64)
        return false;
    memcpy(first, text, (size_t)(dots - text));
    first[dots - text] = '\0';
    *second_r = dots + 2;
    return true;
}

enum cm_status
cm_quantity_span(const char *text, int64_t *min_ms_r, int64_t *max_ms_r,
                 struct cm_err *err)
{
    char first[64];
    const char *second = text;
    int64_t min_ms, max_ms;
    if (!part(text, first, &second))
        snprintf(first, sizeof first, "%s", text);
    enum cm_status status = cm_quantity_duration(first, &min_ms, err);
    if (status == CM_OK)
        status = cm_quantity_duration(second, &max_ms, err);
    if (status == CM_OK && min_ms > max_ms)
        status = cm_err_set(err, CM_EINVAL, "'%s' ends before it begins", text);
    if (status == CM_OK) {
        *min_ms_r = min_ms;
        *max_ms_r = max_ms;
    }
    return status;
}

enum cm_status
cm_quantity_share(const char *text, double *share_r, struct cm_err *err)
{
    const char *unit;
    double n;
    if (read_number(text, &n, &unit)) {
        if (strcmp(unit, "%") == 0 && n <= 100) {
            *share_r = n / 100;
            return CM_OK;
        }
        if (!*unit && n <= 1) {
            *share_r = n;
            return CM_OK;
        }
    }
    return cm_err_set(err, CM_EINVAL,
                      "'%s' is not a probability such as 30%% or 0.3", text);
}

enum cm_status
cm_quantity_count(const char *text, int64_t min, int64_t max, int64_t *n_r,
                  struct cm_err *err)
{
    char *end = NULL;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n < min || n > max)
        return cm_err_set(err, CM_EINVAL,
                          "'%s' is not a number from %lld to "
                          "%lld",
                          text, (long long)min, (long long)max);
    *n_r = n;
    return CM_OK;
}

enum cm_status
cm_quantity_bounds(const char *text, int64_t *gte_r, int64_t *lte_r,
                   struct cm_err *err)
{
    char first[64];
    const char *second = text;
    int64_t gte = *gte_r, lte = *lte_r;
    enum cm_status status = CM_OK;
    if (!part(text, first, &second))
        snprintf(first, sizeof first, "%s", text);
    if (*first)
        status = cm_quantity_count(first, 0, INT64_MAX, &gte, err);
    if (status == CM_OK && *second)
        status = cm_quantity_count(second, 0, INT64_MAX, &lte, err);
    if (status == CM_OK && ((!*first && !*second) || gte > lte))
        status =
            cm_err_set(err, CM_EINVAL,
                       "'%s' is not a range such as 3, 2..5, 2.. or ..5", text);
    if (status == CM_OK) {
        *gte_r = gte;
        *lte_r = lte;
    }
    return status;
}
