/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_KEYRING_H
#define CM_KEYRING_H

#include "admin/auth.h"
#include "milter/err.h"

struct cm_commits;

/*
 * The API keys in Redis, as this daemon last read them: at most
 * CM_KEYRING_FRESH_MS ago when one is judged, so a key revoked by another
 * daemon opens nothing a second later. Read when asked and by whoever asks;
 * while Redis cannot be had, no such key is right and none is wrong.
 * Thread-safe.
 */
#define CM_KEYRING_FRESH_MS 900

struct cm_keyring;

/* cm_keyring_new - commits is borrowed. CM_OK or CM_ENOMEM. */
enum cm_status cm_keyring_new(struct cm_keyring **ring_r,
                              struct cm_commits *commits) CM_MUST_CHECK;
void cm_keyring_free(struct cm_keyring **ring);

/* For cm_auth_extend; arg is the keyring. */
cm_auth_lookup cm_keyring_lookup;

/* cm_keyring_forget - read them again for the next one that is judged: this
 * daemon has changed them. */
void cm_keyring_forget(struct cm_keyring *ring);

#endif
