/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_STORED_KEYS_H
#define CM_STORED_KEYS_H

#include "milter/err.h"

#include <stddef.h>

struct cm_commits;

/*
 * API keys in Redis, in the hash <prefix>:keys: by public id, the SHA-256 of
 * the key and a document that says whose it is. Written by chaosmilter.lua with
 * a line of the audit, which never holds the digest.
 */
#define CM_STORED_KEY_ID     8 /* hexadecimal digits */
#define CM_STORED_KEY_DIGEST 64
#define CM_STORED_KEYS_MAX   1000

struct cm_stored_key {
    char id[CM_STORED_KEY_ID + 1];
    char digest[CM_STORED_KEY_DIGEST + 1];
    char *doc; /* owned; JSON text */
};
struct cm_stored_keys {
    size_t n;
    struct cm_stored_key *at; /* owned; by id */
};

/* cm_commit_keys - all of them; what is none is left out. keys_r is to be freed
 * with cm_stored_keys_fini after CM_OK, and may be in any case. As
 * cm_commit_get. */
enum cm_status cm_commit_keys(struct cm_commits *commits,
                              struct cm_stored_keys *keys_r,
                              struct cm_err *err) CM_MUST_CHECK;
void cm_stored_keys_fini(struct cm_stored_keys *keys);

/* cm_commit_key_add - CM_ECONFLICT: the id is taken; CM_EINVAL: there are
 * CM_STORED_KEYS_MAX already. cm_commit_key_del - CM_NOTFOUND: there is none.
 * Else as cm_commit_set. */
enum cm_status cm_commit_key_add(struct cm_commits *commits, const char *id,
                                 const char *digest, const char *doc,
                                 struct cm_err *err) CM_MUST_CHECK;
enum cm_status cm_commit_key_del(struct cm_commits *commits, const char *id,
                                 struct cm_err *err) CM_MUST_CHECK;

#endif
