/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One lock around everything, also while Redis is asked: there are four threads
 * of requests, and whoever waits wants the same answer.
 */
#include "admin/keyring.h"
#include "admin/scope.h"
#include "milter/clock.h"
#include "milter/model/json.h"
#include "milter/model/rfc3339.h"
#include "milter/store/stored_keys.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    unsigned char digest[CM_AUTH_DIGEST_BYTES];
    struct cm_auth_found found;
    int64_t expires_ms;
};

struct cm_keyring {
    struct cm_commits *commits; /* borrowed */
    pthread_mutex_t lock;
    int64_t read_ms; /* lock: monotonic, 0: never */
    size_t n;        /* lock */
    struct entry *entries;
};

enum cm_status
cm_keyring_new(struct cm_keyring **ring_r, struct cm_commits *commits)
{
    struct cm_keyring *ring = calloc(1, sizeof *ring);
    if (!ring)
        return CM_ENOMEM;
    ring->commits = commits;
    pthread_mutex_init(&ring->lock, NULL);
    *ring_r = ring;
    return CM_OK;
}

void
cm_keyring_free(struct cm_keyring **ring)
{
    if (!*ring)
        return;
    pthread_mutex_destroy(&(*ring)->lock);
    free((*ring)->entries);
    free(*ring);
    *ring = NULL;
}

void
cm_keyring_forget(struct cm_keyring *ring)
{
    pthread_mutex_lock(&ring->lock);
    ring->read_ms = 0;
    pthread_mutex_unlock(&ring->lock);
}

/* False: what is stored says nothing that can be used, and opens nothing. */
static bool
read_entry(struct entry *entry, const struct cm_stored_key *key)
{
    json_t *doc = NULL;
    if (cm_json_parse(&doc, key->doc, strlen(key->doc), NULL) != CM_OK)
        return false;
    const char *name = json_string_value(json_object_get(doc, "name"));
    const json_t *expires = json_object_get(doc, "expiresAt");
    memset(entry, 0, sizeof *entry);
    entry->expires_ms = INT64_MAX;
    bool ok =
        cm_scopes_parse(json_object_get(doc, "scopes"), &entry->found.scopes) &&
        (!expires || (json_is_string(expires) &&
                      cm_time_parse(json_string_value(expires),
                                    &entry->expires_ms) == CM_OK));
    snprintf(entry->found.name, sizeof entry->found.name, "%s",
             name ? name : "");
    for (size_t i = 0; ok && i < sizeof entry->digest; i++) {
        unsigned byte;
        ok = sscanf(key->digest + 2 * i, "%2x", &byte) == 1;
        entry->digest[i] = (unsigned char)byte;
    }
    json_decref(doc);
    return ok;
}

/* With the lock. */
static enum cm_status
refresh(struct cm_keyring *ring, struct cm_err *err)
{
    struct cm_stored_keys keys;
    int64_t now_ms = cm_clock_mono_ms();
    if (ring->read_ms > 0 && now_ms - ring->read_ms < CM_KEYRING_FRESH_MS)
        return CM_OK;
    enum cm_status status = cm_commit_keys(ring->commits, &keys, err);
    if (status != CM_OK)
        return status;
    struct entry *entries = calloc(keys.n + 1, sizeof *entries);
    if (!entries) {
        cm_stored_keys_fini(&keys);
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    free(ring->entries);
    ring->entries = entries;
    ring->n = 0;
    for (size_t i = 0; i < keys.n; i++)
        ring->n += read_entry(&entries[ring->n], &keys.at[i]);
    ring->read_ms = now_ms;
    cm_stored_keys_fini(&keys);
    return CM_OK;
}

enum cm_status
cm_keyring_lookup(void *arg, const unsigned char digest[CM_AUTH_DIGEST_BYTES],
                  struct cm_auth_found *found_r, struct cm_err *err)
{
    struct cm_keyring *ring = arg;
    const struct entry *right = NULL;
    pthread_mutex_lock(&ring->lock);
    enum cm_status status = refresh(ring, err);
    /* All are compared, so the time tells nothing of which one it is. */
    for (size_t i = 0; status == CM_OK && i < ring->n; i++)
        if (CRYPTO_memcmp(ring->entries[i].digest, digest,
                          CM_AUTH_DIGEST_BYTES) == 0)
            right = &ring->entries[i];
    if (right && right->expires_ms > cm_clock_wall_ms())
        *found_r = right->found;
    else if (status == CM_OK)
        status = CM_NOTFOUND;
    pthread_mutex_unlock(&ring->lock);
    return status;
}
