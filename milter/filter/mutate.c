/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a mutation makes of a body. Nothing here talks to the MTA.
 *
 * The bytes to flip are chosen by selection sampling (Knuth 3.4.2, algorithm
 * S): one pass, each set of n equally likely, no second table. Drawing places
 * until n differ was rejected: it takes for ever where n is close to all.
 */
#include "milter/filter/mutate.h"
#include "milter/model/coin.h"

void
cm_mutate_begin(struct cm_mutate_body *body_r, const struct cm_content *content)
{
    *body_r = (struct cm_mutate_body){
        .data = content->body,
        .len = content->body_len,
        .longer = content->body_bytes > (int64_t)content->body_len,
    };
    if (content->no_memory)
        body_r->partial = "no memory for its body";
    else if (body_r->longer)
        body_r->partial = "the body is too long to be kept";
}

const char *
cm_mutate_truncate(struct cm_mutate_body *body, int64_t n)
{
    if (n > (int64_t)body->len || (n == (int64_t)body->len && !body->longer))
        return body->partial ? body->partial
                             : "the body is not longer than that";
    body->len = (size_t)n;
    if (n > 0 && body->data[n - 1] == '\r')
        body->len--;
    body->partial = NULL;
    body->longer = false;
    return NULL;
}

static bool
is_spared(unsigned char byte)
{
    return byte == '\r' || byte == '\n' || byte == '\0';
}

/* The bits of a byte that may be flipped, as a mask. */
static unsigned
soft_bits(unsigned char byte)
{
    unsigned soft = 0;
    if (is_spared(byte))
        return 0;
    for (int bit = 0; bit < 7; bit++)
        if (!is_spared((unsigned char)(byte ^ 1u << bit)))
            soft |= 1u << bit;
    return soft;
}

static int64_t
count_soft(const struct cm_mutate_body *body)
{
    int64_t n = 0;
    for (size_t i = 0; i < body->len; i++)
        n += soft_bits(body->data[i]) != 0;
    return n;
}

static unsigned
pick_bit(unsigned soft, struct cm_coin *coin)
{
    for (;;) {
        unsigned bit = 1u << cm_coin_between(cm_coin_draw(coin), 0, 6);
        if (soft & bit)
            return bit;
    }
}

const char *
cm_mutate_flip(struct cm_mutate_body *body, int64_t n, uint64_t draw)
{
    struct cm_coin coin;
    if (body->partial)
        return body->partial;
    int64_t left = count_soft(body);
    if (n > left)
        return "the body has fewer bytes that can be flipped";
    cm_coin_init(&coin, draw, 0);
    for (size_t i = 0; n > 0; i++) {
        unsigned soft = soft_bits(body->data[i]);
        if (!soft)
            continue;
        if (cm_coin_between(cm_coin_draw(&coin), 1, left) <= n) {
            body->data[i] ^= (unsigned char)pick_bit(soft, &coin);
            n--;
        }
        left--;
    }
    return NULL;
}
