/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_INBOX_ORDER_H
#define CM_INBOX_ORDER_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_problems;
struct cm_settings;
struct json_t;

/*
 * What POST /api/inboxes asks for: its body, checked and filled with defaults.
 */
struct cm_inbox_order {
    int64_t ttl_s;
    const char *email_address; /* as sent, borrowed from the body; NULL: none */
    bool email_auth, spam_analysis;
    char *chaos; /* owned: the configuration in normal form; NULL: none */
    size_t chaos_len;
};

/* cm_inbox_order_read - CM_OK; CM_EINVAL: problems holds every fault, in the
 * order of the members; CM_ENOMEM. order_r is always cm_inbox_order_fini's. */
enum cm_status cm_inbox_order_read(struct cm_inbox_order *order_r,
                                   const struct cm_settings *settings,
                                   const struct json_t *body,
                                   struct cm_problems *problems) CM_MUST_CHECK;
void cm_inbox_order_fini(struct cm_inbox_order *order);

#endif
