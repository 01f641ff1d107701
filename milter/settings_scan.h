/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SETTINGS_SCAN_H
#define CM_SETTINGS_SCAN_H

#include "milter/err.h"

/*
 * cm_settings_scan - refuse what libconfig would not survive or would read
 * wrongly, before it reads the file:
 *
 *   an @include of something that is no regular file (libconfig 1.5 ends the
 *     process on a directory and waits for ever on a pipe)
 *   a number beyond 32 bits (libconfig 1.5 wraps it silently; no setting is
 *     that large)
 *   an @include loop (which would make this very check slow)
 *
 * path     the settings file
 * dir      where its @include lines look
 *
 * CM_OK; CM_EINVAL with "file:line: what"; CM_NOTFOUND, CM_EIO: a file cannot
 * be read (an included file that does not exist is left for libconfig to report
 * with its line); CM_ENOMEM. Found by running libconfig 1.5.
 */
enum cm_status cm_settings_scan(const char *path, const char *dir,
                                struct cm_err *err) CM_MUST_CHECK;

#endif
