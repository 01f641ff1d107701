/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LOG_H
#define CM_LOG_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * One line per event, written as `key=value` pairs. To standard error by
 * default (systemd keeps it), to syslog's mail facility when asked. Only the
 * daemons log; the model never does, the store only when a link goes up or
 * down.
 *
 * Every byte below 0x20 or above 0x7E leaves as \xNN, so a
 * hostile address can neither forge a line nor move a terminal. Preserves
 * errno. Thread-safe. Never waits for
 * whoever reads standard error: a line that does not fit is lost, and the next
 * one that does says how many were. A line longer than CM_LOG_LINE_BYTES is cut
 * and marked with "...".
 */
#define CM_LOG_LINE_BYTES 2048

enum cm_log_level { CM_LOG_ERR, CM_LOG_WARNING, CM_LOG_INFO, CM_LOG_DEBUG };

/* cm_log_open - name the program; may be called again. ident is borrowed for
 * the life of the process. */
void cm_log_open(const char *ident, enum cm_log_level level, bool to_syslog);
void cm_log_set_level(enum cm_log_level level);
bool cm_log_enabled(enum cm_log_level level);

void cm_log_err(const char *fmt, ...) CM_PRINTF(1, 2);
void cm_log_warn(const char *fmt, ...) CM_PRINTF(1, 2);
void cm_log_info(const char *fmt, ...) CM_PRINTF(1, 2);
void cm_log_debug(const char *fmt, ...) CM_PRINTF(1, 2);

/*
 * cm_log_quote - s for use inside "..." in a log line: `"`, backslash and all
 * that is not printable ASCII as \xNN. Cut to cap with its NUL; returns out.
 */
const char *cm_log_quote(char *out, size_t cap, const char *s);

/*
 * A gate for messages that an outage would repeat for each mail: true at most
 * once a minute for one gate, and tells how many were held back since.
 * A gate is static storage, zero-initialised.
 */
struct cm_log_gate {
    _Atomic long long next_ms;
    _Atomic unsigned long held_back;
};
bool cm_log_gate_open(struct cm_log_gate *gate, unsigned long *held_back_r);

#endif
