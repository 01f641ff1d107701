/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The line is taken apart at blanks, as Postfix does; quoting and other
 * subtleties of its parser are for its own commands, and a line that only it
 * would take for AUTH is passed on as it is.
 *
 * Base64 is decoded here and not by libcrypto, whose decoder keeps a copy of
 * what it was given in memory of its own.
 */
#include "milter/filter/smtp_command.h"
#include "milter/model/ascii.h"

#include <stdint.h>
#include <string.h>

/* A login of CM_SMTP_COMMAND_TEXT, one to act for, a password; more is not
 * looked at. */
#define RESPONSE_BYTES_MAX 2048

struct span {
    const char *at;
    size_t len;
};

static const struct {
    const char *verb;
    enum cm_stage stage;
} verbs[] = {
    {"EHLO", CM_STAGE_HELO},         {"HELO", CM_STAGE_HELO},
    {"STARTTLS", CM_STAGE_STARTTLS}, {"AUTH", CM_STAGE_AUTH},
    {"NOOP", CM_STAGE_NOOP},         {"RSET", CM_STAGE_RSET},
    {"VRFY", CM_STAGE_VRFY},         {"QUIT", CM_STAGE_QUIT},
};

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Takes the next word off the line; its length is 0 at the end. */
static struct span
next_word(struct span *line)
{
    while (line->len > 0 && is_blank(*line->at))
        line->at++, line->len--;
    struct span word = {line->at, 0};
    while (line->len > 0 && !is_blank(*line->at))
        line->at++, line->len--, word.len++;
    return word;
}

static bool
is_word(struct span word, const char *text)
{
    if (word.len != strlen(text))
        return false;
    for (size_t i = 0; i < word.len; i++)
        if (cm_ascii_upper(word.at[i]) != text[i])
            return false;
    return true;
}

/* As a C string; what is too long or holds a NUL is not known. */
static void
keep(char *to, size_t cap, struct span text)
{
    to[0] = '\0';
    if (text.len >= cap || memchr(text.at, '\0', text.len))
        return;
    memcpy(to, text.at, text.len);
    to[text.len] = '\0';
}

static void
keep_mechanism(struct cm_smtp_command *command, struct span word)
{
    for (size_t i = 0; i < word.len; i++) {
        char c = word.at[i];
        if (!cm_ascii_is_letter(c) && !cm_ascii_is_digit(c) && c != '-' &&
            c != '_')
            return;
    }
    keep(command->mechanism, sizeof command->mechanism, word);
    for (char *c = command->mechanism; *c; c++)
        *c = cm_ascii_upper(*c);
}

/* --- base64 (RFC 4648 4) --- */

static int
digit_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (cm_ascii_is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* false: no base64, or more than cap bytes. */
static bool
decode(struct span in, char *out, size_t cap, size_t *len_r)
{
    size_t n = 0;
    uint32_t bits = 0;
    if (in.len % 4 != 0)
        return false;
    size_t digits = in.len;
    while (digits > 0 && in.len - digits < 2 && in.at[digits - 1] == '=')
        digits--;
    if (digits / 4 * 3 + 3 > cap)
        return false;
    for (size_t i = 0; i < digits; i++) {
        int digit = digit_of(in.at[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0)
            out[n++] = (char)(bits >> (6 - i % 4 * 2) & 0xff);
    }
    *len_r = n;
    return true;
}

/* --- AUTH --- */

/* "authzid NUL authcid NUL password": the one in the middle. */
static struct span
login_of_plain(struct span response)
{
    static const struct span none = {"", 0};
    const char *end = response.at + response.len;
    const char *first = memchr(response.at, '\0', response.len);
    if (!first)
        return none;
    const char *login = first + 1;
    const char *second = memchr(login, '\0', (size_t)(end - login));
    return second ? (struct span){login, (size_t)(second - login)} : none;
}

static void
read_auth(struct cm_smtp_command *command, struct span rest)
{
    char response[RESPONSE_BYTES_MAX];
    size_t len;
    keep_mechanism(command, next_word(&rest));
    struct span word = next_word(&rest);
    bool plain = strcmp(command->mechanism, "PLAIN") == 0;
    bool login = strcmp(command->mechanism, "LOGIN") == 0;
    if ((!plain && !login) || word.len == 0 || next_word(&rest).len > 0)
        return;
    if (decode(word, response, sizeof response, &len)) {
        struct span whole = {response, len};
        keep(command->user, sizeof command->user,
             plain ? login_of_plain(whole) : whole);
    }
    explicit_bzero(response, sizeof response);
}

bool
cm_smtp_command_read(struct cm_smtp_command *command_r, const char *line,
                     size_t len)
{
    struct span rest = {line, len};
    struct span verb = next_word(&rest);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (!is_word(verb, verbs[i].verb))
            continue;
        *command_r = (struct cm_smtp_command){.stage = verbs[i].stage};
        if (command_r->stage == CM_STAGE_AUTH)
            read_auth(command_r, rest);
        else if (command_r->stage == CM_STAGE_HELO)
            keep(command_r->helo, sizeof command_r->helo, next_word(&rest));
        return true;
    }
    return false;
}
