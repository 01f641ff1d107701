/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SERVERS_H
#define CM_SERVERS_H

#include "milter/model/mta.h"

#include <pthread.h>

struct cm_buf;

/* The mail servers that this filter has served since it started: the last
 * version that each gave, and in how many sessions. Any thread. */
struct cm_servers {
    pthread_mutex_t lock;
    struct {
        char version[64];
        unsigned long long sessions;
    } of[CM_MTA_COUNT];
};

void cm_servers_init(struct cm_servers *servers);

/* cm_servers_met - a session began; version as it gave it, NULL when it did
 * not. Returns which server that is. */
enum cm_mta cm_servers_met(struct cm_servers *servers, const char *version);

/* cm_servers_report - {"postfix":{"version":"Postfix 3.7.11","sessions":7}}:
 * those that were met. */
void cm_servers_report(struct cm_servers *servers, struct cm_buf *json);

#endif
