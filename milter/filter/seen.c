/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counted at CONNECT, where the macro {v} comes with every session. One lock a
 * session is nothing beside the system calls that a session costs.
 */
#include "milter/filter/seen.h"
#include "milter/buf.h"
#include "milter/store/quote.h"

#include <stdio.h>
#include <string.h>

void
cm_seen_init(struct cm_seen *seen)
{
    memset(seen, 0, sizeof *seen);
    pthread_mutex_init(&seen->lock, NULL);
}

enum cm_mta
cm_seen_note(struct cm_seen *seen, const char *version)
{
    enum cm_mta mta = cm_mta_of(version);
    pthread_mutex_lock(&seen->lock);
    seen->of[mta].sessions++;
    if (version)
        snprintf(seen->of[mta].version, sizeof seen->of[mta].version, "%s",
                 version);
    pthread_mutex_unlock(&seen->lock);
    return mta;
}

void
cm_seen_report(struct cm_seen *seen, struct cm_buf *json)
{
    const char *comma = "";
    cm_buf_puts(json, "{");
    pthread_mutex_lock(&seen->lock);
    for (int mta = 0; mta < CM_MTA_COUNT; mta++) {
        const char *version = seen->of[mta].version;
        if (seen->of[mta].sessions == 0)
            continue;
        cm_buf_printf(json, "%s\"%s\":{\"version\":", comma,
                      cm_mta_name((enum cm_mta)mta));
        cm_quote_json(json, version, strlen(version));
        cm_buf_printf(json, ",\"sessions\":%llu}", seen->of[mta].sessions);
        comma = ",";
    }
    pthread_mutex_unlock(&seen->lock);
    cm_buf_puts(json, "}");
}
