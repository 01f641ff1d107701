/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_BENCH_MTA_H
#define CM_BENCH_MTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One milter session as Postfix would hold it: protocol version 6, the macros
 * of Postfix's defaults or those that the milter asked for, every command
 * together with its macros in one write, no wait where the milter negotiated
 * that it will not reply.
 */
enum mta_stage {
    MTA_CONNECT,
    MTA_HELO,
    MTA_MAIL,
    MTA_RCPT,
    MTA_DATA,
    MTA_HEADER,
    MTA_EOH,
    MTA_BODY,
    MTA_EOM,
    MTA_STAGES_N
};
const char *mta_stage_name(enum mta_stage stage); /* "connect", ... */

struct mta {
    int fd;
    uint32_t actions, steps;          /* as negotiated */
    char macros[MTA_STAGES_N][512];   /* names wanted, " " between them */
    char sender[320], recipient[320]; /* for macros; without brackets */
    char qid[32];
    char *out; /* bytes not yet written */
    size_t out_len, out_cap;
    char *in; /* last packet read */
    size_t in_len, in_cap;
    unsigned progress; /* progress packets seen */
    char why[256];     /* after a failure */
};

/* What the milter said: 'c', 'a', 'r', 't', 'd', 's', or 'y' with text. */
struct mta_reply {
    char code;
    char text[512];
    unsigned deleted; /* recipients deleted before the final reply */
    unsigned changed; /* other modifications */
};

/*
 * mta_open - connect and negotiate. address is "unix:/path" or
 * "inet:port@host" (host: an IPv4 address); timeout_s bounds each wait.
 * False: m->why. mta_close works in either case.
 */
bool mta_open(struct mta *m, const char *address, int timeout_s);
/* mta_close - say QUIT, if there is still somebody to hear, and free. */
void mta_close(struct mta *m);

/* mta_wants - was this stage not declined? */
bool mta_wants(const struct mta *m, enum mta_stage stage);

/*
 * mta_tell - send one stage's event and take the reply. A stage that was
 * declined, or that gets no reply, is 'c'. data is the command's own content,
 * as in the protocol. False when the session is lost: m->why.
 */
bool mta_tell(struct mta *m, enum mta_stage stage, const void *data, size_t len,
              struct mta_reply *reply_r);

/* mta_abort - end the message without an end of message. */
bool mta_abort(struct mta *m);

#endif
