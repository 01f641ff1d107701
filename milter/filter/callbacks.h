/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CALLBACKS_H
#define CM_CALLBACKS_H

#include "milter/err.h"
#include "milter/filter/filter.h"

/*
 * cm_callbacks_register - give libmilter our callbacks. libmilter hands no user
 * pointer to them, so the filter is the process's one; borrowed, and must
 * outlive smfi_main. CM_OK or CM_EIO.
 */
enum cm_status cm_callbacks_register(struct cm_filter *filter,
                                     struct cm_err *err) CM_MUST_CHECK;

#endif
