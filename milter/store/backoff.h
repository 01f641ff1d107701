/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_BACKOFF_H
#define CM_BACKOFF_H

/*
 * How long to wait before the next try: 100 ms doubling to 5 s, each shortened
 * by up to half at random, so that a fleet does not come back in one instant.
 * A zeroed struct is ready. Not thread-safe.
 */
struct cm_backoff {
    unsigned tries;
};

/* cm_backoff_next_ms - after a failure: the wait, 50..5000. */
int cm_backoff_next_ms(struct cm_backoff *backoff);
/* cm_backoff_reset - after a success. */
void cm_backoff_reset(struct cm_backoff *backoff);

#endif
