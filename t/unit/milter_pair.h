/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MILTER_PAIR_H
#define CM_MILTER_PAIR_H

#include <stddef.h>

/*
 * A milter connection with the test in libmilter's place: a socket pair, on
 * which a command is one byte and a "callback" is what lies between
 * milter_pair_command() and milter_pair_reply() on one thread. Each function
 * fails the test when something else happens than it says.
 */
struct milter_pair {
    int mta, milter; /* the two ends */
};

/* milter_pair_open - a session whose option negotiation was answered through
 * the hook, so that its replies can be held. milter_pair_open_unproved - one
 * that has not negotiated. */
void milter_pair_open(struct milter_pair *pair);
void milter_pair_open_unproved(struct milter_pair *pair);
void milter_pair_close(struct milter_pair *pair);

/* milter_pair_command - a command arrives: what libmilter does before it calls
 * back. Returns what cm_hold_enter says. */
int milter_pair_command(struct milter_pair *pair);

/* milter_pair_reply - writes as libmilter does: two pieces, at least one byte
 * each. */
void milter_pair_reply(int fd, const char *text);

/* The MTA gets exactly these bytes next, each within timeout_ms; or nothing for
 * so long. */
void milter_pair_expect(struct milter_pair *pair, const char *text,
                        int timeout_ms);
void milter_pair_expect_silence(struct milter_pair *pair, int ms);

/* milter_pair_expect_late - the MTA gets progress packets, and then these
 * bytes. Returns how many packets there were. */
size_t milter_pair_expect_late(struct milter_pair *pair, const char *text,
                               int timeout_ms);

#endif
