/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_DOCS_H
#define CM_DOCS_H

#include "milter/err.h"

#include <stddef.h>

struct cm_inbox;

/*
 * Compiled inbox configurations, each text once: a million inboxes with equal
 * documents are parsed once and share one object. Belongs to the one writer.
 */
struct cm_docs;
struct cm_shared_doc;

enum cm_status cm_docs_new(struct cm_docs **docs_r) CM_MUST_CHECK;
void cm_docs_free(struct cm_docs **docs); /* no document may be in use */

/* cm_docs_use - the compiled document for a text, counted once more. CM_OK,
 * CM_EINVAL (the text is no configuration; err says why), CM_ENOMEM. */
enum cm_status cm_docs_use(struct cm_docs *docs, struct cm_shared_doc **doc_r,
                           const char *text, size_t len,
                           struct cm_err *err) CM_MUST_CHECK;
/* cm_docs_drop - one use less; the last one frees. */
void cm_docs_drop(struct cm_docs *docs, struct cm_shared_doc *doc);

/* cm_shared_doc_inbox - borrowed while the document is in use. Any thread that
 * keeps it from being dropped meanwhile. */
struct cm_inbox *cm_shared_doc_inbox(const struct cm_shared_doc *doc);

#endif
