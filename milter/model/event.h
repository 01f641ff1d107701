/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EVENT_H
#define CM_EVENT_H

#include "milter/model/stage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_address;

/* The SMTP client's address. An IPv4-mapped IPv6 address is held as IPv4, so
 * that one rule meets one client however the MTA listens. */
struct cm_client {
    int family; /* AF_INET, AF_INET6; 0: not known (local submission) */
    uint8_t addr[16];
    uint16_t port; /* 0: not known */
};

/* cm_client_print - "192.0.2.1", "2001:db8::1", or "unknown"; cap >= 46. */
void cm_client_print(const struct cm_client *client, char *out, size_t cap);

/* cm_client_from_sockaddr - from xxfi_connect's argument; NULL and other
 * families give family 0. sa is a struct sockaddr of its family's full size. */
struct sockaddr;
void cm_client_from_sockaddr(struct cm_client *client_r,
                             const struct sockaddr *sa);

/*
 * What is known when a decision is due. Every pointer is borrowed and may be
 * NULL: not known at this stage, or not told by the MTA.
 */
struct cm_header {
    const char *name;
    const char *value;
};
struct cm_event {
    enum cm_stage stage;
    int64_t now_ms; /* wall clock */
    const struct cm_client *client;
    const char *helo;
    const char *user;          /* authenticated login */
    const char *user_at_realm; /* the same with its realm, where the mail server
                                  has taken the two apart */
    const char *mechanism;     /* of AUTH */
    const struct cm_address *sender;         /* len 0: the null sender */
    const struct cm_address *recipient;      /* canonical */
    const struct cm_address *recipient_base; /* without its tag, NULL if none */
    const struct cm_header *headers;
    size_t nheaders;
    bool headers_known;
    bool keywords; /* it is asked which EHLO keywords to hide: only that kind of
                      fault matches then, and never else */
    /* At the end of the message what was received, before it what the client
     * declared with MAIL. -1: not known. */
    int64_t size_bytes;
    bool others;     /* other recipients of this message were accepted before */
    int64_t attempt; /* 1 is the first; 0: not known */
};

#endif
