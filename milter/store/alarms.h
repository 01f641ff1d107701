/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ALARMS_H
#define CM_ALARMS_H

#include "milter/err.h"

#include <pthread.h>
#include <stdint.h>

struct cm_buf;

/*
 * What is wrong now, one text for each kind, with the time since when. Raised
 * again, an alarm keeps its time and takes the new text. Thread-safe.
 */
enum cm_alarm {
    CM_ALARM_AWAY,      /* no link to Redis */
    CM_ALARM_EMPTY,     /* Redis holds no data, and we do */
    CM_ALARM_RESYNC,    /* reading everything failed */
    CM_ALARM_HEARTBEAT, /* Redis refuses to take it */
    CM_ALARM_POLICY,    /* Redis may evict our keys */
    CM_ALARM_SNAPSHOT,  /* the file was refused at start */
    CM_ALARM_COUNT
};

struct cm_alarms {
    pthread_mutex_t lock;
    struct {
        int64_t since_ms; /* wall clock; 0: not raised */
        char text[256];
    } at[CM_ALARM_COUNT];
};

void cm_alarms_init(struct cm_alarms *alarms);
void cm_alarms_fini(struct cm_alarms *alarms);
void cm_alarm_raise(struct cm_alarms *alarms, enum cm_alarm alarm,
                    const char *fmt, ...) CM_PRINTF(3, 4);
void cm_alarm_clear(struct cm_alarms *alarms, enum cm_alarm alarm);

/* cm_alarms_print - append `"text (since ...)"` for each, with commas between
 * and before it when *n is not 0; *n grows by their number. */
void cm_alarms_print(struct cm_alarms *alarms, struct cm_buf *buf, unsigned *n);
/* cm_alarms_print_one - a text of the caller's in the same way; "" is none. */
void cm_alarms_print_one(struct cm_buf *buf, unsigned *n, const char *text);

#endif
