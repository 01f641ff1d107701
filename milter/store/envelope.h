/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ENVELOPE_H
#define CM_ENVELOPE_H

#include "milter/err.h"

#include <stddef.h>
#include <stdint.h>

struct cm_buf;

/*
 * A document as the script stores it, its text word for word at the end:
 *
 *   {"rev":3,"seq":1041,"ord":17,"doc":{...}}       "ord" for rules alone
 *
 * It is read by its fixed beginning, without building a tree: a million of them
 * are read at start. Members in another order are refused, for only the script
 * writes envelopes; whether doc is sound JSON is for the model to say.
 */
struct cm_envelope {
    int64_t rev, seq; /* >= 1 */
    int64_t ord;      /* -1: not given */
    const char *doc;  /* borrowed from the text, not NUL-terminated */
    size_t doc_len;
};

/* The longest envelope around a document of CM_INBOX_DOC_MAX bytes. */
#define CM_ENVELOPE_OVERHEAD 96

/* cm_envelope_parse - CM_OK or CM_EINVAL. */
enum cm_status cm_envelope_parse(struct cm_envelope *envelope_r,
                                 const char *text, size_t len,
                                 struct cm_err *err) CM_MUST_CHECK;

/* cm_envelope_print - append the text to buf. */
void cm_envelope_print(struct cm_buf *buf, const struct cm_envelope *envelope);

#endif
