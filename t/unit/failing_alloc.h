/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FAILING_ALLOC_H
#define FAILING_ALLOC_H

#include <stdbool.h>

/*
 * Memory that runs out when a test says so. A program linked with UNIT_WRAP
 * (Makefile.am) has its own calls of malloc, calloc, realloc, strdup and
 * strndup counted here; those inside shared libraries are not seen, except
 * jansson's, whose allocator is the model's own.
 *
 * The count is the calling thread's, so a test may have others.
 */

/* failing_alloc_arm - from now on the n-th call fails, once; n >= 1. */
void failing_alloc_arm(long n);

/* failing_alloc_arm_from - the n-th call fails and so does every later one. */
void failing_alloc_arm_from(long n);

/* failing_alloc_disarm - memory is back. Did any call fail? */
bool failing_alloc_disarm(void);

#endif
