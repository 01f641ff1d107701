/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ld's --wrap sends each call here and the real function under __real_. A
 * failing malloc by LD_PRELOAD was rejected: it would starve cmocka and the
 * sanitizers too.
 */
#include "t/unit/failing_alloc.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

static _Thread_local long calls, first_to_fail, last_to_fail;
static _Thread_local bool armed, failed;

static void
arm(long first, long last)
{
    calls = 0;
    failed = false;
    first_to_fail = first;
    last_to_fail = last;
    armed = true;
}

void
failing_alloc_arm(long n)
{
    arm(n, n);
}

void
failing_alloc_arm_from(long n)
{
    arm(n, LONG_MAX);
}

bool
failing_alloc_disarm(void)
{
    armed = false;
    return failed;
}

static bool
must_fail(void)
{
    if (!armed)
        return false;
    calls++;
    if (calls < first_to_fail || calls > last_to_fail)
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

void *
__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
    return must_fail() ? NULL : __real_realloc(p, size);
}

char *
__wrap_strdup(const char *s)
{
    return must_fail() ? NULL : __real_strdup(s);
}

char *
__wrap_strndup(const char *s, size_t n)
{
    return must_fail() ? NULL : __real_strndup(s, n);
}
