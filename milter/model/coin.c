/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All chance in one place. A draw is 64 uniform bits; the high half of the
 * product draw x n is a uniform number below n (Lemire 2019, without the
 * rejection step: the bias is below n / 2^64, which no run can see). Doubles
 * were rejected for the toss: 0 and 1 must be exact.
 *
 * The unseeded generator is xoshiro256** seeded by splitmix64, as its authors
 * advise. The seeded coin is a MAC and not a generator, because mails arrive in
 * any order on any host: each must find its own fate without the ones before.
 */
#include "milter/model/coin.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stddef.h>
#include <string.h>

/* The high 64 bits of a x b, by halves: not all have 128-bit integers. */
static uint64_t
multiply_high(uint64_t a, uint64_t b)
{
    uint64_t a_lo = a & UINT32_MAX, a_hi = a >> 32;
    uint64_t b_lo = b & UINT32_MAX, b_hi = b >> 32;
    uint64_t cross = a_hi * b_lo + (a_lo * b_lo >> 32);
    uint64_t middle = a_lo * b_hi + (cross & UINT32_MAX);
    return a_hi * b_hi + (cross >> 32) + (middle >> 32);
}

uint32_t
cm_coin_ppb(double probability)
{
    if (!(probability > 0.0)) /* also NaN */
        return CM_COIN_NEVER;
    if (probability >= 1.0)
        return CM_COIN_ALWAYS;
    double ppb = probability * CM_COIN_ALWAYS + 0.5;
    if (ppb < 1.0)
        return 1;
    if (ppb >= CM_COIN_ALWAYS)
        return CM_COIN_ALWAYS - 1;
    return (uint32_t)ppb;
}

bool
cm_coin_toss(uint64_t draw, uint32_t probability_ppb)
{
    return multiply_high(draw, CM_COIN_ALWAYS) < probability_ppb;
}

int64_t
cm_coin_between(uint64_t draw, int64_t lo, int64_t hi)
{
    if (lo >= hi)
        return hi;
    uint64_t count = (uint64_t)hi - (uint64_t)lo + 1;
    uint64_t step = count == 0 ? draw : multiply_high(draw, count);
    return (int64_t)((uint64_t)lo + step);
}

static uint64_t
splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void
cm_coin_init(struct cm_coin *coin, uint64_t seed, uint64_t stream)
{
    /* The seed is scrambled before the stream joins it, so that neighbouring
     * seeds and neighbouring streams do not share sequences. */
    uint64_t state = seed;
    state = splitmix64(&state) ^ stream;
    for (int i = 0; i < 4; i++)
        coin->state[i] = splitmix64(&state);
}

static uint64_t
rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

uint64_t
cm_coin_draw(struct cm_coin *coin)
{
    uint64_t *s = coin->state;
    uint64_t draw = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return draw;
}

static void
put_u64(uint8_t out[8], uint64_t n)
{
    for (int i = 7; i >= 0; i--, n >>= 8)
        out[i] = (uint8_t)n;
}

static uint64_t
get_u64(const uint8_t in[8])
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | in[i];
    return n;
}

static bool
mac_number(EVP_MAC_CTX *ctx, uint64_t n)
{
    uint8_t bytes[8];
    put_u64(bytes, n);
    return EVP_MAC_update(ctx, bytes, sizeof bytes);
}

/* With its length in front, so that ("ab","c") and ("a","bc") are two fates. */
static bool
mac_text(EVP_MAC_CTX *ctx, const char *text)
{
    size_t len = strlen(text);
    return mac_number(ctx, len) &&
           EVP_MAC_update(ctx, (const uint8_t *)text, len);
}

bool
cm_coin_seeded(uint64_t seed, const char *rule, const char *sender,
               const char *recipient, uint64_t occurrence,
               enum cm_coin_purpose purpose, uint64_t *draw_r)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    uint8_t key[8], out[32];
    size_t len = 0;
    put_u64(key, seed);

    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    bool ok = ctx && EVP_MAC_init(ctx, key, sizeof key, params) &&
              mac_text(ctx, rule) && mac_text(ctx, sender) &&
              mac_text(ctx, recipient) && mac_number(ctx, occurrence) &&
              mac_number(ctx, purpose) &&
              EVP_MAC_final(ctx, out, &len, sizeof out) && len == sizeof out;
    if (ok)
        *draw_r = get_u64(out);
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(mac);
    return ok;
}
