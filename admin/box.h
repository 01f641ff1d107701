/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_BOX_H
#define CM_BOX_H

#include "milter/err.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_address;
struct cm_commits;
struct cm_settings;

/*
 * An inbox made by POST /api/inboxes: a document of kind "box" that says since
 * when and until when it is there. Chaos needs none while admin.inboxes is
 * "implicit"; with "explicit" it does.
 */
struct cm_box {
    int64_t rev; /* of the document; 0: not stored */
    int64_t created_ms, expires_ms;
    bool email_auth, spam_analysis; /* kept for the client, nothing more */
};

/* cm_box_get - CM_OK; CM_NOTFOUND: none (box_r->rev 0), or one that has expired
 * (rev is its revision) or cannot be read (the same); or the store's failure.
 */
enum cm_status cm_box_get(struct cm_commits *commits, const char *address,
                          int64_t now_ms, struct cm_box *box_r,
                          struct cm_err *err) CM_MUST_CHECK;

/* cm_box_set - store it, if box->rev is still the revision that is there. */
enum cm_status cm_box_set(struct cm_commits *commits, const char *address,
                          const struct cm_box *box,
                          struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_box_remove - forget the box and its chaos, if box->rev is still the
 * revision that is there (CM_ECONFLICT otherwise). The chaos goes first: what
 * fails half way leaves an inbox without chaos, not chaos without an inbox.
 */
enum cm_status cm_box_remove(struct cm_commits *commits, const char *address,
                             const struct cm_box *box,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_box_domain_allowed - is an inbox of this canonical domain allowed? */
bool cm_box_domain_allowed(const struct cm_settings *settings,
                           const char *domain);
/* cm_box_default_domain - where an inbox goes when no domain is asked for: the
 * first that is listed; example.com (RFC 2606) when any is allowed. */
const char *cm_box_default_domain(const struct cm_settings *settings);

#endif
