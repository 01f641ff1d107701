/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/alarms.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/model/rule_json.h"
#include "milter/store/quote.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
cm_alarms_init(struct cm_alarms *alarms)
{
    memset(alarms, 0, sizeof *alarms);
    pthread_mutex_init(&alarms->lock, NULL);
}

void
cm_alarms_fini(struct cm_alarms *alarms)
{
    pthread_mutex_destroy(&alarms->lock);
}

void
cm_alarm_raise(struct cm_alarms *alarms, enum cm_alarm alarm, const char *fmt,
               ...)
{
    va_list ap;
    pthread_mutex_lock(&alarms->lock);
    va_start(ap, fmt);
    vsnprintf(alarms->at[alarm].text, sizeof alarms->at[alarm].text, fmt, ap);
    va_end(ap);
    if (alarms->at[alarm].since_ms == 0)
        alarms->at[alarm].since_ms = cm_clock_wall_ms();
    pthread_mutex_unlock(&alarms->lock);
}

void
cm_alarm_clear(struct cm_alarms *alarms, enum cm_alarm alarm)
{
    pthread_mutex_lock(&alarms->lock);
    alarms->at[alarm].since_ms = 0;
    pthread_mutex_unlock(&alarms->lock);
}

void
cm_alarms_print_one(struct cm_buf *buf, unsigned *n, const char *text)
{
    if (!*text)
        return;
    if ((*n)++ > 0)
        cm_buf_puts(buf, ",");
    cm_quote_json(buf, text, strlen(text));
}

void
cm_alarms_print(struct cm_alarms *alarms, struct cm_buf *buf, unsigned *n)
{
    char line[320], since[32];
    for (int i = 0; i < CM_ALARM_COUNT; i++) {
        line[0] = '\0';
        pthread_mutex_lock(&alarms->lock);
        if (alarms->at[i].since_ms > 0) {
            cm_time_print(alarms->at[i].since_ms, since, sizeof since);
            snprintf(line, sizeof line, "%s (since %s)", alarms->at[i].text,
                     since);
        }
        pthread_mutex_unlock(&alarms->lock);
        cm_alarms_print_one(buf, n, line);
    }
}
