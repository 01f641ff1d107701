/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PROBLEM_H
#define CM_PROBLEM_H

#include "milter/err.h"

#include <stddef.h>

/*
 * What is wrong with a document: every fault at once, in the order of the
 * members, each with the path of the member and a whole sentence in the words
 * of VaultSandbox's validator ("latency.minDelayMs must not be less than 0").
 */
#define CM_PROBLEMS_MAX 32

struct cm_problem {
    char path[96];  /* "latency.minDelayMs"; "" for the document itself */
    char text[256]; /* the sentence, printable ASCII */
};

struct cm_problems {
    size_t n;       /* kept, at most CM_PROBLEMS_MAX */
    size_t dropped; /* beyond that */
    struct cm_problem at[CM_PROBLEMS_MAX];
};

void cm_problems_init(struct cm_problems *problems);
/* cm_problem_add - path and text are cut to fit; bytes from outside that are
 * not printable ASCII become '?'. problems may be NULL. */
void cm_problem_add(struct cm_problems *problems, const char *path,
                    const char *fmt, ...) CM_PRINTF(3, 4);
/* cm_problems_first - the first sentence, or "" - for one-line messages. */
const char *cm_problems_first(const struct cm_problems *problems);

#endif
