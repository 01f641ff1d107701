/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_OWNER_H
#define CM_OWNER_H

#include <stddef.h>

/* CM_OWNER - the struct whose member is at pointer. */
#define CM_OWNER(type, member, pointer)                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
