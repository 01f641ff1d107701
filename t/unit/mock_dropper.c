/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/unit/mock_dropper.h"
#include "milter/filter/dropper.h"

struct mock_dropper mock_dropper;

const char *
cm_dropper_why_not(struct cm_dropper *dropper, enum cm_drop_how how)
{
    (void)dropper;
    return mock_dropper.why_not[how];
}

enum cm_status
cm_dropper_drop(struct cm_dropper *dropper, enum cm_drop_how how,
                const struct cm_tuple *tuple, pid_t pid_hint,
                struct cm_err *err)
{
    (void)dropper;
    (void)tuple;
    (void)pid_hint;
    mock_dropper.drops++;
    mock_dropper.how = how;
    if (mock_dropper.drop_status != CM_OK)
        cm_err_set(err, mock_dropper.drop_status,
                   "there is no such connection");
    return mock_dropper.drop_status;
}
