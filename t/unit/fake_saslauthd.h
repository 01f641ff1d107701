/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FAKE_SASLAUTHD_H
#define CM_FAKE_SASLAUTHD_H

#include <stddef.h>
#include <sys/types.h>

/*
 * A saslauthd in a process of its own, which shows in its answer the whole
 * question that it was asked: "OK " or "NO " and its bytes. What it does is
 * said by the login:
 *
 *   slow    answers after 200 ms        deaf    reads two bytes, says NO,
 * closes mute    closes without an answer    stuck   never answers drip answers
 * byte by byte        big     answers with 65535 bytes
 *
 * All others are let in with the password "secret".
 */
struct fake_saslauthd {
    pid_t pid;
    char path[64];
};

/* fake_saslauthd_start - listening when it returns, with a queue of one. To be
 * called while the process has no other thread. */
int fake_saslauthd_start(struct fake_saslauthd *fake, const char *path);
void fake_saslauthd_stop(struct fake_saslauthd *fake);

/* fake_saslauthd_ask - a question as the library asks it, into out; its length.
 * password is password_len bytes. */
size_t fake_saslauthd_ask(char *out, const char *login, const char *password,
                          size_t password_len, const char *realm);

#endif
