/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list of fixed size, so that telling what is wrong with a document cannot
 * itself fail or grow with the document. What does not fit is counted. The
 * texts go into HTTP answers and one-line logs, hence the narrow alphabet.
 */
#include "milter/model/problem.h"
#include "milter/model/ascii.h"

#include <stdarg.h>
#include <stdio.h>

void
cm_problems_init(struct cm_problems *problems)
{
    problems->n = 0;
    problems->dropped = 0;
}

void
cm_problem_add(struct cm_problems *problems, const char *path, const char *fmt,
               ...)
{
    if (!problems)
        return;
    if (problems->n == CM_PROBLEMS_MAX) {
        problems->dropped++;
        return;
    }
    struct cm_problem *p = &problems->at[problems->n++];
    snprintf(p->path, sizeof p->path, "%s", path);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->text, sizeof p->text, fmt, ap);
    va_end(ap);
    cm_ascii_make_printable(p->path);
    cm_ascii_make_printable(p->text);
}

const char *
cm_problems_first(const struct cm_problems *problems)
{
    return problems->n > 0 ? problems->at[0].text : "";
}
