/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A message without a rule that looks at it costs nothing here, and one with
 * 100,000 headers or a body of a gigabyte costs no more than the ceilings. What
 * would go beyond is not cut off quietly: the headers are then not known, and a
 * rule that names one does not fire.
 *
 * The size is that of the message on the wire, the way SIZE= counts it: a line
 * end is two bytes, the empty line after the headers is counted, dots that SMTP
 * doubles are not. A header is taken to have one space after its colon, since
 * MTAs do not tell.
 */
#include "milter/filter/content.h"
#include "milter/model/ascii.h"

#include <stdlib.h>
#include <string.h>

void
cm_content_init(struct cm_content *content)
{
    *content = (struct cm_content){
        .declared_bytes = -1,
        .bytes = 2, /* the empty line that ends the headers */
    };
}

static void
forget_headers(struct cm_content *content, const char *why)
{
    for (size_t i = 0; i < content->nheaders; i++)
        free((char *)content->headers[i].name);
    free(content->headers);
    content->headers = NULL;
    content->nheaders = content->headers_cap = 0;
    content->headers_lost = why;
}

void
cm_content_fini(struct cm_content *content)
{
    forget_headers(content, NULL);
    free(content->body);
    memset(content, 0, sizeof *content);
}

/* Decimal digits alone: what else stands there is no size, and so not known. */
static int64_t
parse_size(const char *digits)
{
    int64_t n = 0;
    if (!*digits)
        return -1;
    for (; *digits; digits++) {
        if (!cm_ascii_is_digit(*digits) || n > (INT64_MAX - 9) / 10)
            return -1;
        n = n * 10 + (*digits - '0');
    }
    return n;
}

/* What follows "SIZE=", in any case; NULL: another parameter. */
static const char *
size_value(const char *parameter)
{
    for (const char *name = "SIZE="; *name; name++, parameter++)
        if (cm_ascii_upper(*parameter) != *name)
            return NULL;
    return parameter;
}

void
cm_content_declare(struct cm_content *content, const char *const *parameters)
{
    for (; *parameters; parameters++) {
        const char *digits = size_value(*parameters);
        if (digits)
            content->declared_bytes = parse_size(digits);
    }
}

static size_t
count_line_ends(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* "Name: value" and its line end. Milters are given a folded value with bare
 * line feeds (Postfix, Sendmail). */
static int64_t
bytes_on_the_wire(const char *name, const char *value)
{
    size_t bare = strstr(value, "\r\n") ? 0 : count_line_ends(value);
    return (int64_t)(strlen(name) + 2 + strlen(value) + bare + 2);
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Without the line ends of folding (RFC 5322 2.2.3) and blanks around it. */
static void
unfold(char *to, const char *value)
{
    char *start = to;
    while (is_blank(*value))
        value++;
    for (; *value; value++)
        if (*value != '\r' && *value != '\n')
            *to++ = *value;
    while (to > start && is_blank(to[-1]))
        to--;
    *to = '\0';
}

static bool
grow_headers(struct cm_content *content)
{
    if (content->nheaders < content->headers_cap)
        return true;
    size_t cap = content->headers_cap ? content->headers_cap * 2 : 8;
    void *bigger = realloc(content->headers, cap * sizeof *content->headers);
    if (!bigger)
        return false;
    content->headers = bigger;
    content->headers_cap = cap;
    return true;
}

static void
keep_header(struct cm_content *content, const char *name, const char *value)
{
    size_t name_size = strlen(name) + 1;
    size_t size = name_size + strlen(value) + 1;
    if (content->nheaders >= CM_CONTENT_HEADERS_MAX ||
        size > CM_CONTENT_HEADER_BYTES_MAX - content->header_bytes) {
        forget_headers(content,
                       "the message has too many headers, or too long ones");
        return;
    }
    char *kept = grow_headers(content) ? malloc(size) : NULL;
    if (!kept) {
        content->no_memory = true;
        forget_headers(content, "no memory for its headers");
        return;
    }
    memcpy(kept, name, name_size);
    unfold(kept + name_size, value);
    content->headers[content->nheaders++] =
        (struct cm_header){.name = kept, .value = kept + name_size};
    content->header_bytes += size;
}

void
cm_content_header(struct cm_content *content, const char *name,
                  const char *value, bool wanted)
{
    if (!name || !value)
        return;
    int64_t bytes = bytes_on_the_wire(name, value);
    content->bytes += bytes;
    if (bytes > (int64_t)CM_CONTENT_HEADER_BYTES_MAX)
        content->bytes_lost = true;
    if (wanted && !content->headers_lost && *name)
        keep_header(content, name, value);
}

/* Room for the first size bytes of the body. */
static bool
grow_body(struct cm_content *content, size_t size, size_t limit)
{
    if (size <= content->body_cap)
        return true;
    size_t cap = size < limit / 2 ? size * 2 : limit;
    void *bigger = realloc(content->body, cap);
    if (!bigger) {
        content->no_memory = true;
        return false;
    }
    content->body = bigger;
    content->body_cap = cap;
    return true;
}

bool
cm_content_body(struct cm_content *content, const unsigned char *chunk,
                size_t len, int64_t wanted)
{
    size_t limit = wanted < (int64_t)CM_CONTENT_BODY_BYTES_MAX
                       ? (size_t)wanted
                       : CM_CONTENT_BODY_BYTES_MAX;
    size_t room = limit > content->body_len ? limit - content->body_len : 0;
    size_t n = len < room ? len : room;
    content->bytes += (int64_t)len;
    content->body_bytes += (int64_t)len;
    if (n > 0 && !content->no_memory &&
        grow_body(content, content->body_len + n, limit)) {
        memcpy(content->body + content->body_len, chunk, n);
        content->body_len += n;
    }
    return content->body_bytes <= (int64_t)limit && !content->no_memory;
}

int
cm_content_count(const struct cm_content *content, const char *name)
{
    int n = 0;
    for (size_t i = 0; i < content->nheaders; i++)
        n += cm_ascii_equal(content->headers[i].name, name);
    return n;
}
