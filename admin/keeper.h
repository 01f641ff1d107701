/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_KEEPER_H
#define CM_KEEPER_H

#include "milter/err.h"

#include <stdbool.h>

struct cm_commits;
struct cm_triggers;

/*
 * The one thread that looks after Redis while nobody asks: once a second
 * whether it is there (for /readyz and one log line per change), the triggers
 * that the command line asks for when it is there for the first time, the
 * library of functions into it whenever it has come back, and once a minute the
 * removal of inboxes whose time is over and of hosts not heard of for a day.
 * Any number of admin daemons may do the same at once.
 */
struct cm_keeper;

/* cm_keeper_start - triggers: to be put in force, copied; NULL: none. */
enum cm_status cm_keeper_start(struct cm_keeper **keeper_r,
                               struct cm_commits *commits,
                               const struct cm_triggers *triggers,
                               struct cm_err *err) CM_MUST_CHECK;
/* cm_keeper_stop - waits for the one Redis command that may be under way. */
void cm_keeper_stop(struct cm_keeper **keeper);

/* cm_keeper_forget_triggers - somebody sets other triggers, so those of the
 * command line that are not in force yet never will be. Any thread; may wait
 * for a Redis command. */
void cm_keeper_forget_triggers(struct cm_keeper *keeper);

/* cm_keeper_redis_up - was Redis there when last asked? why (may be NULL) gets
 * what was wrong, "" when it was. Any thread. */
bool cm_keeper_redis_up(struct cm_keeper *keeper, char why[256]);

#endif
