/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The digest of what was sent is compared with every configured digest, each
 * in constant time and without stopping at a match, so nothing can be measured.
 * Finding a key by a public prefix would be faster with thousands of keys;
 * there are a handful.
 *
 * Failures are counted in a fixed table, four ways per hashed slot: memory is
 * bounded whatever addresses fail, and who evicts his own entry by flooding
 * from many addresses has still 2^256 keys to try.
 */
#include "admin/auth.h"
#include "admin/request.h"
#include "admin/scope.h"
#include "milter/settings.h"

#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define DIGEST_BYTES CM_AUTH_DIGEST_BYTES
#define SLOTS        256
#define WAYS         4
#define KEYS_MAX     1024
#define BASIC_MAX    1024 /* bytes of base64 that are looked at */

struct bucket {
    unsigned char addr[17]; /* family and address; all zero: unused */
    int64_t empty_until_ms; /* the time at which all failures are forgiven */
};

struct cm_auth {
    size_t nkey;
    unsigned char (*key)[DIGEST_BYTES];
    cm_auth_lookup *lookup; /* NULL: there are no others */
    void *lookup_arg;
    pthread_mutex_t lock; /* guards bucket */
    struct bucket bucket[SLOTS][WAYS];
};

/* --- configured keys --- */

static int
hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    char lower = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
    const char *at = lower ? strchr(digits, lower) : NULL;
    return at ? (int)(at - digits) : -1;
}

static void
print_hex(char *out, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static enum cm_status
add_key(struct cm_auth *auth, const char *line)
{
    unsigned char digest[DIGEST_BYTES];
    if (strncmp(line, "sha256:", 7) != 0 ||
        strlen(line + 7) != 2 * sizeof digest || auth->nkey == KEYS_MAX)
        return CM_EINVAL;
    for (size_t i = 0; i < sizeof digest; i++) {
        int high = hex_digit(line[7 + 2 * i]);
        int low = hex_digit(line[8 + 2 * i]);
        if (high < 0 || low < 0)
            return CM_EINVAL;
        digest[i] = (unsigned char)(high * 16 + low);
    }
    void *grown = realloc(auth->key, (auth->nkey + 1) * sizeof *auth->key);
    if (!grown)
        return CM_ENOMEM;
    auth->key = grown;
    memcpy(auth->key[auth->nkey++], digest, sizeof digest);
    return CM_OK;
}

static enum cm_status
complain(struct cm_err *err, enum cm_status status, const char *where,
         size_t number)
{
    if (status == CM_ENOMEM)
        return cm_err_set(err, status, "out of memory");
    return cm_err_set(err, status,
                      "%s:%zu: not \"sha256:\" and 64 hex digits (at most %d "
                      "keys; chaosadmin --new-key makes one)",
                      where, number, KEYS_MAX);
}

static enum cm_status
add_file(struct cm_auth *auth, const char *path, struct cm_err *err)
{
    char line[256];
    size_t number = 0;
    enum cm_status status = CM_OK;
    FILE *file = fopen(path, "re");
    if (!file)
        return cm_err_set(err, CM_EIO, "%s: %m", path);
    while (status == CM_OK && fgets(line, sizeof line, file)) {
        number++;
        char *text = line + strspn(line, " \t");
        text[strcspn(text, "#\r\n")] = '\0';
        for (size_t n = strlen(text); n > 0 && strchr(" \t", text[n - 1]);)
            text[--n] = '\0';
        if (*text)
            status = add_key(auth, text);
    }
    if (status != CM_OK)
        complain(err, status, path, number);
    else if (ferror(file))
        status = cm_err_set(err, CM_EIO, "%s: %m", path);
    fclose(file);
    return status;
}

enum cm_status
cm_auth_new(struct cm_auth **auth_r, const struct cm_string_list *keys,
            const char *file, struct cm_err *err)
{
    struct cm_auth *auth = calloc(1, sizeof *auth);
    enum cm_status status = CM_OK;
    if (!auth)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    pthread_mutex_init(&auth->lock, NULL);
    for (size_t i = 0; i < keys->n && status == CM_OK; i++) {
        status = add_key(auth, keys->at[i]);
        if (status != CM_OK)
            complain(err, status, "admin.api_keys", i + 1);
    }
    if (status == CM_OK && file && *file)
        status = add_file(auth, file, err);
    if (status == CM_OK && auth->nkey == 0)
        status = cm_err_set(err, CM_NOTFOUND,
                            "no API key is configured: run chaosadmin "
                            "--new-key and put its sha256 line into "
                            "admin.api_keys or admin.api_key_file");
    if (status == CM_OK)
        *auth_r = auth;
    else
        cm_auth_free(&auth);
    return status;
}

void
cm_auth_free(struct cm_auth **auth_p)
{
    struct cm_auth *auth = *auth_p;
    if (!auth)
        return;
    pthread_mutex_destroy(&auth->lock);
    free(auth->key);
    free(auth);
    *auth_p = NULL;
}

/* --- the key of a request --- */

/* The password of "Basic" credentials into out; false when there is none. */
static bool
basic_password(const char *base64, char *out, size_t cap)
{
    unsigned char text[BASIC_MAX];
    size_t len = strlen(base64);
    if (len == 0 || len % 4 != 0 || len > BASIC_MAX)
        return false;
    int n = EVP_DecodeBlock(text, (const unsigned char *)base64, (int)len);
    if (n < 0)
        return false;
    for (size_t pad = len; pad > 0 && base64[pad - 1] == '='; pad--)
        n--; /* EVP_DecodeBlock counts the padding */
    unsigned char *colon = n > 0 ? memchr(text, ':', (size_t)n) : NULL;
    size_t size = colon ? (size_t)(text + n - colon) : 0; /* with the colon */
    if (size < 2 || size > cap || memchr(colon, 0, size))
        return false;
    memcpy(out, colon + 1, size - 1);
    out[size - 1] = '\0';
    OPENSSL_cleanse(text, sizeof text);
    return true;
}

/* NULL: none was sent. scratch holds a decoded one. */
static const char *
find_key(const struct cm_request *req, char *scratch, size_t cap)
{
    const char *key = cm_request_header(req, "X-API-Key");
    if (key)
        return *key ? key : NULL;
    const char *authorization = cm_request_header(req, "Authorization");
    if (!authorization)
        return NULL;
    size_t scheme = strcspn(authorization, " ");
    const char *rest = authorization + scheme;
    rest += strspn(rest, " ");
    if (scheme == 6 && strncasecmp(authorization, "Bearer", 6) == 0)
        return *rest ? rest : NULL;
    if (scheme == 5 && strncasecmp(authorization, "Basic", 5) == 0 &&
        basic_password(rest, scratch, cap))
        return scratch;
    return NULL;
}

static bool
is_right(const struct cm_auth *auth, const unsigned char *digest)
{
    unsigned right = 0;
    for (size_t i = 0; i < auth->nkey; i++)
        right |= CRYPTO_memcmp(auth->key[i], digest, DIGEST_BYTES) == 0;
    return right != 0;
}

/* --- failures --- */

static void
bucket_addr(unsigned char addr[17], const struct cm_peer *peer)
{
    memset(addr, 0, 17);
    if (peer->addr.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&peer->addr;
        addr[0] = 4;
        memcpy(addr + 1, &in->sin_addr, 4);
    } else if (peer->addr.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&peer->addr;
        addr[0] = 6;
        memcpy(addr + 1, &in6->sin6_addr, 8); /* a client owns its /64 */
    } else {
        addr[0] = 1;
    }
}

/* The entry of addr, or the one of its slot that is forgiven first. */
static struct bucket *
find_bucket(struct cm_auth *auth, const unsigned char addr[17])
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < 17; i++)
        hash = (hash ^ addr[i]) * 16777619u;
    struct bucket *ways = auth->bucket[hash % SLOTS], *oldest = ways;
    for (size_t i = 0; i < WAYS; i++) {
        if (memcmp(ways[i].addr, addr, 17) == 0)
            return &ways[i];
        if (ways[i].empty_until_ms < oldest->empty_until_ms)
            oldest = &ways[i];
    }
    memcpy(oldest->addr, addr, 17);
    oldest->empty_until_ms = 0;
    return oldest;
}

/* A token bucket kept as one time: each failure moves it on by what a token
 * takes to come back; too far ahead of now means the bucket is empty. */
static bool
may_fail(struct cm_auth *auth, const struct cm_peer *peer, int64_t now_ms,
         int *retry_s_r)
{
    unsigned char addr[17];
    bucket_addr(addr, peer);
    pthread_mutex_lock(&auth->lock);
    struct bucket *bucket = find_bucket(auth, addr);
    if (bucket->empty_until_ms < now_ms)
        bucket->empty_until_ms = now_ms;
    int64_t ahead_ms = bucket->empty_until_ms + CM_AUTH_REFILL_MS - now_ms;
    int64_t over_ms = ahead_ms - (int64_t)CM_AUTH_BURST * CM_AUTH_REFILL_MS;
    if (over_ms <= 0)
        bucket->empty_until_ms += CM_AUTH_REFILL_MS;
    else
        *retry_s_r = (int)((over_ms + 999) / 1000);
    pthread_mutex_unlock(&auth->lock);
    return over_ms <= 0;
}

void
cm_auth_extend(struct cm_auth *auth, cm_auth_lookup *lookup, void *arg)
{
    auth->lookup = lookup;
    auth->lookup_arg = arg;
}

bool
cm_auth_id(const struct cm_auth *auth, size_t i, char id_r[CM_AUTH_ID_SIZE])
{
    if (i >= auth->nkey)
        return false;
    print_hex(id_r, auth->key[i], (CM_AUTH_ID_SIZE - 1) / 2);
    return true;
}

/* CM_OK, CM_NOTFOUND, or it cannot be told. */
static enum cm_status
judge(struct cm_auth *auth, const unsigned char *digest,
      struct cm_auth_found *found_r)
{
    memset(found_r, 0, sizeof *found_r);
    if (is_right(auth, digest)) {
        found_r->scopes = CM_SCOPES_ALL;
        return CM_OK;
    }
    return auth->lookup ? auth->lookup(auth->lookup_arg, digest, found_r, NULL)
                        : CM_NOTFOUND;
}

enum cm_auth_verdict
cm_auth_check(struct cm_auth *auth, struct cm_request *req, int64_t now_ms,
              int *retry_s_r)
{
    unsigned char digest[DIGEST_BYTES];
    char scratch[BASIC_MAX];
    const char *key = find_key(req, scratch, sizeof scratch);
    if (!key)
        return CM_AUTH_MISSING;
    SHA256((const unsigned char *)key, strlen(key), digest);
    OPENSSL_cleanse(scratch, sizeof scratch);
    struct cm_auth_found found;
    enum cm_status status = judge(auth, digest, &found);
    if (status == CM_OK) {
        print_hex(req->key_id, digest, (CM_REQUEST_KEY_ID_SIZE - 1) / 2);
        memcpy(req->key_name, found.name, sizeof req->key_name);
        req->scopes = found.scopes;
        return CM_AUTH_RIGHT;
    }
    if (status != CM_NOTFOUND)
        return CM_AUTH_UNSURE;
    return may_fail(auth, &req->peer, now_ms, retry_s_r) ? CM_AUTH_WRONG
                                                         : CM_AUTH_TOO_OFTEN;
}

enum cm_status
cm_auth_new_key(char key_r[CM_AUTH_KEY_SIZE], char line_r[CM_AUTH_LINE_SIZE],
                struct cm_err *err)
{
    unsigned char bytes[32], digest[DIGEST_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return cm_err_set(err, CM_EIO, "no random bytes: %m");
    memcpy(key_r, "cm_", 3);
    print_hex(key_r + 3, bytes, sizeof bytes);
    SHA256((const unsigned char *)key_r, strlen(key_r), digest);
    memcpy(line_r, "sha256:", 7);
    print_hex(line_r + 7, digest, sizeof digest);
    return CM_OK;
}
