/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Time of day without the C library: strptime() knows no fractions and no
 * offsets, timegm() is no standard, and all of them look at the locale or the
 * time zone. The two conversions between days and dates are Howard Hinnant's,
 * which count years from March so that the leap day comes last.
 *
 * A time without an offset is refused: it would name another moment on another
 * host.
 */
#include "milter/model/rfc3339.h"
#include "milter/model/ascii.h"

#include <stdbool.h>
#include <stdio.h>

#define MS_PER_SECOND 1000
#define MS_PER_MINUTE (60 * MS_PER_SECOND)
#define MS_PER_DAY    ((int64_t)24 * 60 * MS_PER_MINUTE)
#define MS_LAST       (2932897 * MS_PER_DAY - 1) /* 9999-12-31T23:59:59.999Z */

struct date {
    int year, month, day;
};

/* Days from 1970-01-01 to a date from that day on. */
static int64_t
days_from_date(struct date date)
{
    int year = date.month <= 2 ? date.year - 1 : date.year;
    int era = year / 400;
    int year_of_era = year - era * 400;
    int month_from_march = date.month > 2 ? date.month - 3 : date.month + 9;
    int day_of_year = (153 * month_from_march + 2) / 5 + date.day - 1;
    int day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int64_t)era * 146097 + day_of_era - 719468;
}

static struct date
date_from_days(int64_t days)
{
    int from_march_0000 = (int)days + 719468;
    int era = from_march_0000 / 146097;
    int day_of_era = from_march_0000 - era * 146097;
    int year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
                       day_of_era / 146096) /
                      365;
    int day_of_year =
        day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int month_from_march = (5 * day_of_year + 2) / 153;
    int month =
        month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    return (struct date){
        .year = year_of_era + era * 400 + (month <= 2),
        .month = month,
        .day = day_of_year - (153 * month_from_march + 2) / 5 + 1,
    };
}

static int
days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Exactly n digits off the front, a number in [min, max]. */
static bool
take_number(const char **at, int n, int min, int max, int *number_r)
{
    int number = 0;
    for (int i = 0; i < n; i++, (*at)++) {
        if (!cm_ascii_is_digit(**at))
            return false;
        number = number * 10 + (**at - '0');
    }
    *number_r = number;
    return number >= min && number <= max;
}

static bool
take_byte(const char **at, char byte)
{
    if (cm_ascii_lower(**at) != byte)
        return false;
    (*at)++;
    return true;
}

static bool
take_date(const char **at, int64_t *ms)
{
    struct date date;
    if (!take_number(at, 4, 1970, 9999, &date.year) || !take_byte(at, '-') ||
        !take_number(at, 2, 1, 12, &date.month) || !take_byte(at, '-') ||
        !take_number(at, 2, 1, days_in_month(date.year, date.month), &date.day))
        return false;
    *ms += days_from_date(date) * MS_PER_DAY;
    return true;
}

static bool
take_clock(const char **at, int64_t *ms)
{
    int hour, minute, second;
    if (!take_number(at, 2, 0, 23, &hour) || !take_byte(at, ':') ||
        !take_number(at, 2, 0, 59, &minute) || !take_byte(at, ':') ||
        !take_number(at, 2, 0, 60, &second))
        return false;
    *ms += (int64_t)(hour * 60 + minute) * MS_PER_MINUTE +
           (int64_t)second * MS_PER_SECOND;
    return true;
}

static bool
take_fraction(const char **at, int64_t *ms)
{
    if (!take_byte(at, '.'))
        return true;
    if (!cm_ascii_is_digit(**at))
        return false;
    for (int unit = 100; cm_ascii_is_digit(**at); unit /= 10, (*at)++)
        *ms += (**at - '0') * unit;
    return true;
}

static bool
take_offset(const char **at, int64_t *ms)
{
    int hours, minutes;
    if (take_byte(at, 'z'))
        return true;
    int sign = take_byte(at, '+') ? -1 : 1;
    if (sign == 1 && !take_byte(at, '-'))
        return false;
    if (!take_number(at, 2, 0, 23, &hours) || !take_byte(at, ':') ||
        !take_number(at, 2, 0, 59, &minutes))
        return false;
    *ms += (int64_t)sign * (hours * 60 + minutes) * MS_PER_MINUTE;
    return true;
}

enum cm_status
cm_time_parse(const char *text, int64_t *ms_r)
{
    const char *at = text;
    int64_t ms = 0;
    if (!take_date(&at, &ms) || !(take_byte(&at, 't') || take_byte(&at, ' ')) ||
        !take_clock(&at, &ms) || !take_fraction(&at, &ms) ||
        !take_offset(&at, &ms) || *at != '\0')
        return CM_EINVAL;
    if (ms < 0 || ms > MS_LAST)
        return CM_EINVAL;
    *ms_r = ms;
    return CM_OK;
}

void
cm_time_print(int64_t ms, char *out, size_t cap)
{
    ms = ms < 0 ? 0 : ms > MS_LAST ? MS_LAST : ms;
    struct date date = date_from_days(ms / MS_PER_DAY);
    int of_day = (int)(ms % MS_PER_DAY);
    int seconds = of_day / MS_PER_SECOND;
    snprintf(out, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", date.year,
             date.month, date.day, seconds / 3600, seconds / 60 % 60,
             seconds % 60, of_day % MS_PER_SECOND);
}
