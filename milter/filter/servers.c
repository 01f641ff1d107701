/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counted at CONNECT, where the macro {v} comes with every session. One lock a
 * session is nothing beside the system calls that a session costs.
 */
#include "milter/filter/servers.h"
#include "milter/buf.h"
#include "milter/store/quote.h"

#include <stdio.h>
#include <string.h>

void
cm_servers_init(struct cm_servers *servers)
{
    memset(servers, 0, sizeof *servers);
    pthread_mutex_init(&servers->lock, NULL);
}

enum cm_mta
cm_servers_met(struct cm_servers *servers, const char *version)
{
    enum cm_mta mta = cm_mta_of(version);
    pthread_mutex_lock(&servers->lock);
    servers->of[mta].sessions++;
    if (version)
        snprintf(servers->of[mta].version, sizeof servers->of[mta].version,
                 "%s", version);
    pthread_mutex_unlock(&servers->lock);
    return mta;
}

void
cm_servers_report(struct cm_servers *servers, struct cm_buf *json)
{
    const char *comma = "";
    cm_buf_puts(json, "{");
    pthread_mutex_lock(&servers->lock);
    for (int mta = 0; mta < CM_MTA_COUNT; mta++) {
        const char *version = servers->of[mta].version;
        if (servers->of[mta].sessions == 0)
            continue;
        cm_buf_printf(json, "%s\"%s\":{\"version\":", comma,
                      cm_mta_name((enum cm_mta)mta));
        cm_quote_json(json, version, strlen(version));
        cm_buf_printf(json, ",\"sessions\":%llu}", servers->of[mta].sessions);
        comma = ",";
    }
    pthread_mutex_unlock(&servers->lock);
    cm_buf_puts(json, "}");
}
