/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CTL_SHOW_H
#define CM_CTL_SHOW_H

#include "milter/err.h"

#include <stddef.h>

struct json_t;

/*
 * What people see. All texts come from elsewhere: bytes that would move a
 * terminal are shown as '?', and that is done here for every cell.
 */
struct cm_show_table;

/* head: names of the columns, ended by NULL; borrowed until the end. */
struct cm_show_table *cm_show_table_new(const char *const *head);

/* cm_show_cell - the next cell, row by row; a column's width is its longest
 * cell's. */
void cm_show_cell(struct cm_show_table *table, const char *fmt, ...)
    CM_PRINTF(2, 3);

/* cm_show_end - prints it (the head too, if there is a row, else `none`) and
 * frees it. */
void cm_show_end(struct cm_show_table **table, const char *none);

/* cm_show_json - the value, indented, and a line end. */
void cm_show_json(const struct json_t *json);

/* cm_show_text - a member as text: strings as they are, "-" for what is
 * missing or null, numbers and flags as JSON has them. Into out; returns it. */
const char *cm_show_text(const struct json_t *object, const char *member,
                         char *out, size_t cap);

/* cm_show_progress - "12,000 of 100,000" on standard error, if that is a
 * terminal and there is more than a moment's work; the last call (done ==
 * total) wipes the line. */
void cm_show_progress(size_t done, size_t total);

#endif
