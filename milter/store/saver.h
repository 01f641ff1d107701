/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SAVER_H
#define CM_SAVER_H

#include "milter/err.h"

#include <stddef.h>

struct cm_replica;
struct cm_saver;

/*
 * The thread that writes snapshots: a million documents and a slow disk take
 * seconds, which the rules must not wait for. It writes some time after it was
 * poked, at most every 5 s, and once more at stop. A failure is kept as a text
 * and tried again; the old file stays.
 */
enum cm_status cm_saver_start(struct cm_saver **saver_r, int dir_fd,
                              const char *name, struct cm_replica *replica,
                              struct cm_err *err) CM_MUST_CHECK;
/* cm_saver_stop - end the thread; again is nothing. Both are NULL-safe. */
void cm_saver_stop(struct cm_saver *saver);
void cm_saver_free(struct cm_saver **saver);

/* cm_saver_poke - something changed. Any thread, never waits. NULL-safe. */
void cm_saver_poke(struct cm_saver *saver);

/* cm_saver_problem - why the last write failed, "" when it did not. */
void cm_saver_problem(struct cm_saver *saver, char *out, size_t cap);

#endif
