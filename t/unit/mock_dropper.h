/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MOCK_DROPPER_H
#define CM_MOCK_DROPPER_H

#include "milter/err.h"
#include "milter/model/fault.h"

/* The dropper as the verdict sees it: does or fails as told, and counts. */
struct mock_dropper {
    const char *why_not[2];     /* by enum cm_drop_how; NULL: can */
    enum cm_status drop_status; /* what a drop ends in */
    int drops;                  /* asked for */
    enum cm_drop_how how;       /* the last one's */
};
extern struct mock_dropper mock_dropper;

#endif
