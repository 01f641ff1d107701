/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MOCK_SMFI_H
#define CM_MOCK_SMFI_H

#include <stdbool.h>
#include <stddef.h>

/*
 * libmilter as far as the filter calls it, with a memory of what it was told.
 * Link this instead of -lmilter. One session at a time.
 */
#define MOCK_DELETED_MAX 64
#define MOCK_BODY_MAX    4096

struct mock_smfi {
    void *priv;
    /* what the "MTA" has */
    const char *queue_id, *auth_authen, *version; /* macros; NULL: absent */
    bool refuse_reply;                            /* smfi_set*reply fail */
    bool refuse_delete;                           /* smfi_delrcpt fails */
    const char *refuse_adding; /* smfi_addrcpt of this one fails; "*": any */
    unsigned long refuse;      /* SMFIF_ bits: what changes the message fails */
    /* what it was told */
    char code[4];
    char enhanced[16];
    char lines[32][1024];
    size_t nlines;
    char deleted[MOCK_DELETED_MAX][400];
    size_t ndeleted;
    char edits[4096]; /* each as one line: "delrcpt <a@example.com>" */
    unsigned char body[MOCK_BODY_MAX]; /* what replaced the body */
    size_t body_len;
};
extern struct mock_smfi mock_smfi;

/* mock_smfi_reset - forget all but the session. */
void mock_smfi_reset(void);

#endif
