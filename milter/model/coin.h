/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_COIN_H
#define CM_COIN_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Chance. A probability is an integer in parts per billion, 0 never and
 * CM_COIN_ALWAYS always, exactly. (Parts per million would turn the 1e-9 that a
 * JSON document may ask for into "never".)
 */
#define CM_COIN_NEVER  0u
#define CM_COIN_ALWAYS 1000000000u

/*
 * cm_coin_ppb - a probability 0..1 as parts per billion. What is above 0 is at
 * least 1, what is below 1 at most CM_COIN_ALWAYS - 1. Out of range is clamped;
 * NaN is CM_COIN_NEVER.
 */
uint32_t cm_coin_ppb(double probability);

/* cm_coin_toss - did a uniform 64-bit draw fall within the probability? */
bool cm_coin_toss(uint64_t draw, uint32_t probability_ppb);

/* cm_coin_between - a uniform 64-bit draw as an integer in [lo, hi]; hi when
 * lo >= hi. */
int64_t cm_coin_between(uint64_t draw, int64_t lo, int64_t hi);

/*
 * The unseeded generator: one per session, not cryptographic (xoshiro256**,
 * Blackman and Vigna 2018). Seed it from one logged number and a session
 * number, and a run can be replayed. Not thread-safe: a session's own.
 */
struct cm_coin {
    uint64_t state[4];
};
void cm_coin_init(struct cm_coin *coin, uint64_t seed, uint64_t stream);
uint64_t cm_coin_draw(struct cm_coin *coin);

/*
 * The seeded coin: the first 64 bits of HMAC-SHA256 keyed by seed over rule,
 * sender, recipient, occurrence and purpose, each with its length. Same mails,
 * same fate, in any order, on any number of hosts.
 *
 * rule, sender, recipient  canonical texts, not NULL
 * occurrence  1 for the first mail of this rule, sender and recipient
 * purpose     parts the draws of one decision
 * draw_r      out
 * Returns false when libcrypto fails (no memory): then there is no coin.
 */
enum cm_coin_purpose {
    CM_COIN_FIRES,
    CM_COIN_DELAY,
    CM_COIN_DELAY2,
    CM_COIN_REPLY,
    CM_COIN_BITS
};
bool cm_coin_seeded(uint64_t seed, const char *rule, const char *sender,
                    const char *recipient, uint64_t occurrence,
                    enum cm_coin_purpose purpose, uint64_t *draw_r);

#endif
