/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_AUTH_H
#define CM_AUTH_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_request;
struct cm_string_list;

/*
 * API keys. Those of the settings may do everything; further ones are looked up
 * elsewhere (keyring.h). The settings hold only SHA-256 digests; a key has 256
 * random bits, so a slow hash would protect nothing and cost a thread. A key is
 * taken from
 *
 *   X-API-Key: <key>
 *   Authorization: Bearer <key>
 *   Authorization: Basic <base64 of anything:key>
 *
 * in this order, the first one present decides. It is never looked for in a
 * URL, because URLs are logged and passed on.
 *
 * Whoever fails too often from one address (an IPv6 client counts by its /64)
 * is told to wait; a right key is never refused for the failures of others
 * behind the same address.
 */
#define CM_AUTH_BURST     20   /* wrong keys that may come at once */
#define CM_AUTH_REFILL_MS 3000 /* one more each */
#define CM_AUTH_KEY_SIZE  68   /* "cm_", 64 hex digits, NUL */
#define CM_AUTH_ID_SIZE   9    /* 8 hex digits, NUL */
#define CM_AUTH_LINE_SIZE 72   /* "sha256:", 64 hex digits, NUL */

#define CM_AUTH_DIGEST_BYTES 32 /* SHA-256 */
#define CM_AUTH_NAME_MAX     64

struct cm_auth;

/* A key that the settings do not have. */
struct cm_auth_found {
    unsigned scopes;                 /* enum cm_scope bits */
    char name[CM_AUTH_NAME_MAX + 1]; /* given by whoever made it */
};

/* CM_OK; CM_NOTFOUND: there is no such key; else it cannot be told now. */
typedef enum cm_status
cm_auth_lookup(void *arg, const unsigned char digest[CM_AUTH_DIGEST_BYTES],
               struct cm_auth_found *found_r, struct cm_err *err);

/*
 * cm_auth_new - keys: lines "sha256:<64 hex digits>"; file: NULL, "" or the
 * path of a file with one such line each, blank lines and "#" comments. CM_OK;
 * CM_NOTFOUND: not a single key is configured; CM_EINVAL: a line is malformed;
 * CM_EIO: the file cannot be read; CM_ENOMEM.
 */
enum cm_status cm_auth_new(struct cm_auth **auth_r,
                           const struct cm_string_list *keys, const char *file,
                           struct cm_err *err) CM_MUST_CHECK;
void cm_auth_free(struct cm_auth **auth);

/* cm_auth_extend - where to look for keys that the settings do not have; before
 * the first check. */
void cm_auth_extend(struct cm_auth *auth, cm_auth_lookup *lookup, void *arg);

enum cm_auth_verdict {
    CM_AUTH_RIGHT,
    CM_AUTH_MISSING, /* no key at all, or an empty one */
    CM_AUTH_WRONG,
    CM_AUTH_TOO_OFTEN, /* wrong, and for too many times */
    CM_AUTH_UNSURE     /* where the keys are cannot be asked now */
};

/*
 * cm_auth_check - judge the request's key and, when it is right, set in req who
 * that is: key_id to the first 8 hex digits of its digest, key_name and scopes.
 *
 * now_ms    monotonic
 * retry_s_r out on CM_AUTH_TOO_OFTEN: seconds until the next try is judged
 *
 * Thread-safe. The time it takes does not depend on the key.
 */
enum cm_auth_verdict cm_auth_check(struct cm_auth *auth, struct cm_request *req,
                                   int64_t now_ms, int *retry_s_r);

/* cm_auth_id - the id of the i-th key of the settings; false: there are no
 * more. */
bool cm_auth_id(const struct cm_auth *auth, size_t i,
                char id_r[CM_AUTH_ID_SIZE]);

/* cm_auth_new_key - a fresh key and its line for the settings. CM_EIO when the
 * kernel gives no random bytes. */
enum cm_status cm_auth_new_key(char key_r[CM_AUTH_KEY_SIZE],
                               char line_r[CM_AUTH_LINE_SIZE],
                               struct cm_err *err) CM_MUST_CHECK;

#endif
