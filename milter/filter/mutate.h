/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MUTATE_H
#define CM_MUTATE_H

#include "milter/filter/content.h"
#include "milter/model/fault.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The body of one message, as mutations change it: begins as what was kept of
 * it, borrowed, and is written to in place.
 */
struct cm_mutate_body {
    unsigned char *data;
    size_t len;
    const char *partial; /* why data is not all of it, NULL when it is */
    bool longer;         /* it went on after data */
};
void cm_mutate_begin(struct cm_mutate_body *body_r,
                     const struct cm_content *content);

/*
 * Each returns NULL when it was done, else why it could not be, static; then
 * the body is as it was.
 *
 * cm_mutate_truncate - leave the first n bytes. A carriage return that lost its
 * line feed goes too: the MTA ends the last line.
 *
 * cm_mutate_flip - flip one bit in each of n bytes, chosen by the draw alone:
 * the same draw damages the same body in the same way. CR, LF and NUL neither
 * come nor go and bit 7 stays, so that lines stay lines and 7-bit mail stays
 * 7-bit mail: SMTP carries the damage.
 */
const char *cm_mutate_truncate(struct cm_mutate_body *body, int64_t n);
const char *cm_mutate_flip(struct cm_mutate_body *body, int64_t n,
                           uint64_t draw);

#endif
