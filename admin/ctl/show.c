/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables are kept whole until the end, because widths are known only then: what
 * is too long for that is asked for page by page, and printed as pages.
 */
#include "admin/ctl/show.h"
#include "admin/ctl/command.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CM_SHOW_PROGRESS_MIN 2000 /* less is done before one could read it */

struct cm_show_table {
    const char *const *head;
    size_t ncolumns, ncells, cap;
    char **cells; /* owned, each owned */
};

struct cm_show_table *
cm_show_table_new(const char *const *head)
{
    struct cm_show_table *table = cm_ctl_own(calloc(1, sizeof *table));
    table->head = head;
    while (head[table->ncolumns])
        table->ncolumns++;
    return table;
}

/* Control bytes, those of the second half of Latin-1 in UTF-8 (C2 80..9F) too.
 */
static void
tame(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7F)
            *c = '?';
        else if (*c == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0)
            c[0] = c[1] = '?';
    }
}

void
cm_show_cell(struct cm_show_table *table, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;
    if (table->ncells == table->cap) {
        table->cap = table->cap ? table->cap * 2 : 64;
        table->cells = cm_ctl_own(
            realloc(table->cells, table->cap * sizeof *table->cells));
    }
    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    tame(cm_ctl_own(text));
    table->cells[table->ncells++] = text;
}

/* Characters, as far as UTF-8's continuation bytes tell. */
static size_t
width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void
print_row(const struct cm_show_table *table, const char *const *cells,
          const size_t *widths)
{
    for (size_t i = 0; i < table->ncolumns; i++) {
        bool last = i + 1 == table->ncolumns;
        size_t pad = last ? 0 : widths[i] - width(cells[i]) + 2;
        printf("%s%*s", cells[i], (int)pad, "");
    }
    putchar('\n');
}

void
cm_show_end(struct cm_show_table **table, const char *none)
{
    struct cm_show_table *t = *table;
    size_t *widths = cm_ctl_own(calloc(t->ncolumns, sizeof *widths));
    for (size_t i = 0; i < t->ncolumns; i++)
        widths[i] = width(t->head[i]);
    for (size_t i = 0; i < t->ncells; i++) {
        size_t w = width(t->cells[i]);
        if (w > widths[i % t->ncolumns])
            widths[i % t->ncolumns] = w;
    }
    if (t->ncells == 0)
        puts(none);
    else
        print_row(t, t->head, widths);
    for (size_t i = 0; i + t->ncolumns <= t->ncells; i += t->ncolumns)
        print_row(t, (const char *const *)&t->cells[i], widths);
    for (size_t i = 0; i < t->ncells; i++)
        free(t->cells[i]);
    free(widths);
    free(t->cells);
    free(t);
    *table = NULL;
}

void
cm_show_json(const struct json_t *json)
{
    json_dumpf(json, stdout,
               JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    putchar('\n');
}

const char *
cm_show_text(const struct json_t *object, const char *member, char *out,
             size_t cap)
{
    const json_t *value = json_object_get(object, member);
    char *dumped = NULL;
    if (json_is_string(value)) {
        snprintf(out, cap, "%s", json_string_value(value));
    } else if (!value || json_is_null(value)) {
        snprintf(out, cap, "-");
    } else {
        dumped = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT |
                                       JSON_REAL_PRECISION(15));
        snprintf(out, cap, "%s", dumped ? dumped : "-");
        free(dumped);
    }
    return out;
}

void
cm_show_progress(size_t done, size_t total)
{
    if (total < CM_SHOW_PROGRESS_MIN || !isatty(STDERR_FILENO))
        return;
    if (done < total)
        fprintf(stderr, "\r%zu of %zu", done, total);
    else
        fprintf(stderr, "\r%40s\r", "");
    fflush(stderr);
}
