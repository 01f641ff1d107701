/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/backoff.h"

#include <sys/random.h>

#define CM_BACKOFF_FIRST_MS 100u
#define CM_BACKOFF_MAX_MS   5000u

int
cm_backoff_next_ms(struct cm_backoff *backoff)
{
    unsigned wait = CM_BACKOFF_MAX_MS;
    if (backoff->tries < 6)
        wait = CM_BACKOFF_FIRST_MS << backoff->tries;
    if (wait > CM_BACKOFF_MAX_MS)
        wait = CM_BACKOFF_MAX_MS;
    backoff->tries++;
    unsigned draw = 0;
    if (getrandom(&draw, sizeof draw, GRND_NONBLOCK) != sizeof draw)
        draw = 0; /* then without jitter */
    return (int)(wait - draw % (wait / 2 + 1));
}

void
cm_backoff_reset(struct cm_backoff *backoff)
{
    backoff->tries = 0;
}
