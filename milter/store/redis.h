/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_REDIS_H
#define CM_REDIS_H

/*
 * hiredis, 0.14 or 1.x, for the .c files of this room. Its header has inline
 * functions that our warnings do not like, and the number of elements of an
 * array changed its type with 1.0.
 */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include <hiredis.h>
#pragma GCC diagnostic pop

#if HIREDIS_MAJOR >= 1
typedef size_t cm_redis_count;
#else
typedef int cm_redis_count;
#endif

#endif
