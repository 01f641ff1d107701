/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 256 random bits cannot be guessed, so neither a slow hash nor a comparison in
 * constant time would protect anything: the digest is a key in Redis, and
 * deleting it tells whether it was there. What does not look like a ticket does
 * not get as far as Redis.
 */
#include "admin/ticket.h"
#include "milter/store/claim.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define TAG          "cmt_"
#define RANDOM_BYTES 32
#define NAME_SIZE    (sizeof "ticket:" + 2 * SHA256_DIGEST_LENGTH)

static void
print_hex(char *out, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void
print_name(char out[NAME_SIZE], const char *ticket)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)ticket, strlen(ticket), digest);
    memcpy(out, "ticket:", sizeof "ticket:");
    print_hex(out + sizeof "ticket:" - 1, digest, sizeof digest);
}

enum cm_status
cm_ticket_issue(struct cm_commits *commits, char ticket_r[CM_TICKET_SIZE],
                struct cm_err *err)
{
    unsigned char bytes[RANDOM_BYTES];
    char name[NAME_SIZE];
    bool first;
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return cm_err_set(err, CM_EIO, "no random bytes: %m");
    memcpy(ticket_r, TAG, sizeof TAG);
    print_hex(ticket_r + sizeof TAG - 1, bytes, sizeof bytes);
    OPENSSL_cleanse(bytes, sizeof bytes);
    print_name(name, ticket_r);
    return cm_claim_take(commits, name, CM_TICKET_MS, &first, err);
}

static bool
looks_right(const char *ticket)
{
    return strlen(ticket) == CM_TICKET_SIZE - 1 &&
           strncmp(ticket, TAG, sizeof TAG - 1) == 0 &&
           strspn(ticket + sizeof TAG - 1, "0123456789abcdef") ==
               2 * RANDOM_BYTES;
}

enum cm_status
cm_ticket_use(struct cm_commits *commits, const char *ticket, bool *good_r,
              struct cm_err *err)
{
    char name[NAME_SIZE];
    *good_r = false;
    if (!looks_right(ticket))
        return CM_OK;
    print_name(name, ticket);
    return cm_claim_drop(commits, name, good_r, err);
}
