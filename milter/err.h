/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ERR_H
#define CM_ERR_H

/*
 * One vocabulary of failure for the whole program. A fallible function returns
 * an enum cm_status and, where it takes a struct cm_err, leaves one readable
 * sentence there. The buffer is fixed, so running out of memory can be reported
 * without allocating.
 */

enum cm_status {
    CM_OK,
    CM_NOTFOUND, /* absent: an answer, not an error */
    CM_EINVAL,   /* input that is not well formed or out of range */
    CM_ENOMEM,   /* allocation failed */
    CM_EIO,      /* a file, socket or peer failed; try again later */
    CM_ETIMEOUT, /* a deadline passed; try again later */
    CM_EPROTO,   /* a peer answered what it must not */
    CM_ECONFLICT /* the document's revision is not the expected one */
};

struct cm_err {
    enum cm_status code;
    char msg[256];
};

#define CM_MUST_CHECK     __attribute__((warn_unused_result))
#define CM_PRINTF(fmt, a) __attribute__((format(printf, fmt, a)))

/*
 * cm_err_set - fill err (may be NULL) and return code, so that a failing path
 * reads `return cm_err_set(err, CM_EINVAL, "...")`. The text is cut at the
 * buffer's end, never overflows. Preserves errno. Thread-safe.
 */
enum cm_status cm_err_set(struct cm_err *err, enum cm_status code,
                          const char *fmt, ...) CM_PRINTF(3, 4);

/* cm_status_name - "ok", "not found", ...; static string, never NULL. */
const char *cm_status_name(enum cm_status status);

#endif
