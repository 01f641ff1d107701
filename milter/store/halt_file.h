/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HALT_FILE_H
#define CM_HALT_FILE_H

#include "milter/err.h"

struct cm_halt;

/*
 * A file that is there exactly while the filter is halted, so that a filter
 * that starts while Redis is away knows. What it says is who, when and why, as
 * JSON; that it is there is what counts, whoever put it there.
 *
 * dir_fd  an open directory; name: without "/"
 */

/* cm_halt_file_write - make it, or remove it. CM_OK, CM_EIO, CM_ENOMEM. */
enum cm_status cm_halt_file_write(int dir_fd, const char *name,
                                  const struct cm_halt *halt,
                                  struct cm_err *err) CM_MUST_CHECK;

/* cm_halt_file_read - halted when there is anything of that name, or when that
 * cannot be told; what is not known stays empty. */
void cm_halt_file_read(int dir_fd, const char *name, struct cm_halt *halt_r);

#endif
