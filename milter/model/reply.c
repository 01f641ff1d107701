/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reply lives in one block of memory: the struct, both arrays of line
 * pointers, then the bytes. One allocation can fail, one free ends it, and a
 * rule set with many replies stays close together.
 *
 * Checking is parted from building because validators want every fault of a
 * document at once, while a builder stops at the first.
 */
#include "milter/model/reply.h"
#include "milter/model/ascii.h"
#include "milter/model/coin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_REPLY_DEFAULT_TEXT "Service unavailable"

const char *
cm_reply_check_code(long long code)
{
    return code >= 400 && code <= 599 ? NULL : "must be between 400 and 599";
}

/* One to three digits without leading zeros (RFC 3463 section 2). */
static size_t
number_length(const char *s)
{
    size_t n = 0;
    while (n < 4 && cm_ascii_is_digit(s[n]))
        n++;
    bool leading_zero = n > 1 && s[0] == '0';
    return n > 3 || leading_zero ? 0 : n;
}

/* The length of "class.subject.detail" at s, 0 when there is none. */
static size_t
enhanced_length(const char *s)
{
    if (!cm_ascii_is_digit(s[0]) || s[1] != '.')
        return 0;
    size_t subject = number_length(s + 2);
    if (subject == 0 || s[2 + subject] != '.')
        return 0;
    size_t detail = number_length(s + 3 + subject);
    return detail == 0 ? 0 : 3 + subject + detail;
}

const char *
cm_reply_check_enhanced(int code, const char *enhanced)
{
    if (!enhanced || *enhanced == '\0')
        return NULL;
    size_t len = enhanced_length(enhanced);
    if (len == 0 || enhanced[len] != '\0')
        return "must be an enhanced status code such as 4.7.1";
    if (enhanced[0] - '0' != code / 100)
        return "must be of the same class as the code";
    return NULL;
}

const char *
cm_reply_check_line(const char *line, size_t len)
{
    if (len == 0)
        return "must not be empty";
    if (len > CM_REPLY_LINE_BYTES_MAX)
        return "must not be longer than 480 characters";
    for (size_t i = 0; i < len; i++) {
        if (!cm_ascii_is_print(line[i]))
            return "must be printable ASCII without line breaks";
    }
    return NULL;
}

const char *
cm_reply_check_lines(size_t nlines, const char *enhanced)
{
    if (nlines < 1 || nlines > CM_REPLY_LINES_MAX)
        return "must have 1 to 32 lines";
    if (nlines > 1 && (!enhanced || !*enhanced))
        return "must be one line where there is no enhanced status code";
    return NULL;
}

static enum cm_status
check(int code, const char *enhanced, const char *const *lines, size_t nlines,
      struct cm_err *err)
{
    const char *fault = cm_reply_check_code(code);
    if (fault)
        return cm_err_set(err, CM_EINVAL, "code %s", fault);
    fault = cm_reply_check_enhanced(code, enhanced);
    if (fault)
        return cm_err_set(err, CM_EINVAL, "enhanced %s", fault);
    fault = cm_reply_check_lines(nlines, enhanced);
    if (fault)
        return cm_err_set(err, CM_EINVAL, "text %s", fault);
    for (size_t i = 0; i < nlines; i++) {
        fault = cm_reply_check_line(lines[i], strlen(lines[i]));
        if (fault)
            return cm_err_set(err, CM_EINVAL, "line %zu %s", i + 1, fault);
    }
    return CM_OK;
}

static size_t
count_percents(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == '%';
    return n;
}

static char *
append(char *at, const char *line, bool double_percent)
{
    for (; *line; line++) {
        *at++ = *line;
        if (*line == '%' && double_percent)
            *at++ = '%';
    }
    *at++ = '\0';
    return at;
}

enum cm_status
cm_reply_new(struct cm_reply **reply_r, int code, const char *enhanced,
             const char *const *lines, size_t nlines, struct cm_err *err)
{
    enum cm_status status = check(code, enhanced, lines, nlines, err);
    if (status != CM_OK)
        return status;

    size_t bytes = 0;
    for (size_t i = 0; i < nlines; i++)
        bytes += 2 * (strlen(lines[i]) + 1) + count_percents(lines[i]);
    struct cm_reply *reply =
        malloc(sizeof *reply + 2 * nlines * sizeof(char *) + bytes);
    if (!reply)
        return cm_err_set(err, CM_ENOMEM, "out of memory");

    reply->code = code;
    snprintf(reply->enhanced, sizeof reply->enhanced, "%s",
             enhanced ? enhanced : "");
    reply->nlines = nlines;
    reply->lines = (char **)(reply + 1);
    reply->wire = reply->lines + nlines;
    char *at = (char *)(reply->wire + nlines);
    for (size_t i = 0; i < nlines; i++) {
        reply->lines[i] = at;
        at = append(at, lines[i], false);
        reply->wire[i] = at;
        at = append(at, lines[i], true);
    }
    *reply_r = reply;
    return CM_OK;
}

void
cm_reply_free(struct cm_reply **reply)
{
    free(*reply);
    *reply = NULL;
}

enum cm_status
cm_reply_parse_step(struct cm_reply **reply_r, const char *text,
                    struct cm_err *err)
{
    int code = 0;
    size_t digits = 0;
    for (; digits < 4 && cm_ascii_is_digit(text[digits]); digits++)
        code = code * 10 + (text[digits] - '0');
    const char *rest = text + digits;
    if (digits != 3 || (*rest != ' ' && *rest != '\0'))
        return cm_err_set(err, CM_EINVAL,
                          "a reply must begin with three digits and a space");

    char enhanced[12] = "";
    bool bare = *rest == '\0';
    if (bare) {
        snprintf(enhanced, sizeof enhanced, "%s",
                 cm_reply_default_enhanced(code));
    } else {
        rest++;
        size_t len = enhanced_length(rest);
        if (len > 0 && (rest[len] == ' ' || rest[len] == '\0')) {
            memcpy(enhanced, rest, len);
            enhanced[len] = '\0';
            bare = rest[len] == '\0';
            rest += bare ? len : len + 1;
        }
    }
    const char *line = bare ? CM_REPLY_DEFAULT_TEXT : rest;
    return cm_reply_new(reply_r, code, enhanced, &line, 1, err);
}

const char *
cm_reply_default_enhanced(int code)
{
    return code < 500 ? "4.3.0" : "5.3.0";
}

const char *
cm_reply_default_text(void)
{
    return CM_REPLY_DEFAULT_TEXT;
}

bool
cm_reply_is_temporary(const struct cm_reply *reply)
{
    return reply->code < 500;
}

bool
cm_reply_ends_session(const struct cm_reply *reply)
{
    return reply->code == 421 || reply->code == 521;
}

void
cm_reply_print(const struct cm_reply *reply, char *out, size_t cap)
{
    const char *gap = *reply->enhanced ? " " : "";
    snprintf(out, cap, "%d%s%s %s", reply->code, gap, reply->enhanced,
             reply->lines[0]);
}

/* Replies that are always there. None of the texts holds a `%`, so the lines
 * and their wire form are the same. */
#define LINES(text) ((char *[]){(char[]){text}})
#define STOCK(c, e, text)                                                      \
    {                                                                          \
        .code = c, .enhanced = e, .nlines = 1, .lines = LINES(text),           \
        .wire = LINES(text)                                                    \
    }

static const struct cm_reply stock[] = {
    STOCK(421, "4.7.0", "Service temporarily unavailable"),
    STOCK(450, "4.2.1", "Mailbox busy, try again later"),
    STOCK(451, "4.3.0", "Temporary processing error"),
    STOCK(452, "4.3.1", "Insufficient storage"),
    STOCK(550, "5.1.1", "Mailbox not found"),
    STOCK(551, "5.1.6", "User not local"),
    STOCK(552, "5.3.4", "Message size exceeds limit"),
    STOCK(553, "5.1.3", "Mailbox name invalid"),
    STOCK(554, "5.0.0", "Transaction failed"),
};
#define NSTOCK     (sizeof stock / sizeof stock[0])
#define NTEMPORARY 4 /* the first of them */

static const struct cm_reply greylist =
    STOCK(451, "4.7.1", "Greylisting in operation, try again later");

const struct cm_reply *
cm_reply_draw(unsigned types, unsigned long long draw)
{
    unsigned lists = types & (CM_REPLY_TEMPORARY | CM_REPLY_PERMANENT);
    size_t first = lists == CM_REPLY_PERMANENT ? NTEMPORARY : 0;
    size_t end = lists & CM_REPLY_PERMANENT ? NSTOCK : NTEMPORARY;
    if (types & CM_REPLY_KEEPS_SESSION && cm_reply_ends_session(&stock[first]))
        first++; /* 421 is the first of them all, and the only one */
    return &stock[cm_coin_between(draw, (int64_t)first, (int64_t)end - 1)];
}

const struct cm_reply *
cm_reply_greylist(void)
{
    return &greylist;
}
