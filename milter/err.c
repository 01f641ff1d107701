/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

enum cm_status
cm_err_set(struct cm_err *err, enum cm_status code, const char *fmt, ...)
{
    if (err) {
        int saved = errno;
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
        err->code = code;
        errno = saved;
    }
    return code;
}

const char *
cm_status_name(enum cm_status status)
{
    switch (status) {
    case CM_OK:
        return "ok";
    case CM_NOTFOUND:
        return "not found";
    case CM_EINVAL:
        return "invalid";
    case CM_ENOMEM:
        return "out of memory";
    case CM_EIO:
        return "input/output error";
    case CM_ETIMEOUT:
        return "timed out";
    case CM_EPROTO:
        return "protocol error";
    case CM_ECONFLICT:
        return "conflict";
    }
    return "unknown";
}
