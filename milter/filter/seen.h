/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SEEN_H
#define CM_SEEN_H

#include "milter/model/mta.h"

#include <pthread.h>

struct cm_buf;

/* The mail servers that this filter has served since it started: the last
 * version that each gave, and in how many sessions. Any thread. */
struct cm_seen {
    pthread_mutex_t lock;
    struct {
        char version[64];
        unsigned long long sessions;
    } of[CM_MTA_COUNT];
};

void cm_seen_init(struct cm_seen *seen);

/* cm_seen_note - a session began; version as the server gave it, NULL when
 * it did not. Returns which server that is. */
enum cm_mta cm_seen_note(struct cm_seen *seen, const char *version);

/* cm_seen_report - {"postfix":{"version":"Postfix 3.7.11","sessions":7}}:
 * those that were seen. */
void cm_seen_report(struct cm_seen *seen, struct cm_buf *json);

#endif
