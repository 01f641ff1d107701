/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Events are printed by hand rather than by way of a tree of JSON values: all
 * that listen share one text, but there may be thousands of them a second, and
 * every member is either a quoted text or a number.
 */
#include "admin/event_json.h"
#include "milter/buf.h"
#include "milter/model/coin.h"
#include "milter/model/rfc3339.h"
#include "milter/store/quote.h"
#include "milter/store/record.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void
put_text(struct cm_buf *buf, const char *name, const char *text)
{
    cm_buf_printf(buf, ",\"%s\":", name);
    if (*text)
        cm_quote_json(buf, text, strlen(text));
    else
        cm_buf_puts(buf, "null");
}

/* A field that should hold a number; what is none counts as absent. */
static bool
number(const struct cm_record *record, enum cm_entry_field field, int64_t *n_r)
{
    char *end;
    *n_r = strtoll(record->at[field], &end, 10);
    return end != record->at[field] && *end == '\0';
}

/* The members of the fault that the variant tells (entry.h). */
static void
put_fault(struct cm_buf *buf, const struct cm_record *record)
{
    const char *kind = record->at[CM_ENTRY_KIND];
    const char *variant = record->at[CM_ENTRY_VARIANT];
    cm_buf_puts(buf, ",\"fault\":{\"kind\":");
    cm_quote_json(buf, kind, strlen(kind));
    if (strcmp(kind, "drop") == 0) {
        size_t how = strcspn(variant, " ");
        cm_buf_puts(buf, ",\"how\":");
        cm_quote_json(buf, variant, how);
        put_text(buf, "outcome", variant[how] ? variant + how + 1 : "");
    } else if (strcmp(kind, "blackhole") == 0) {
        bool hooks = strcmp(variant, "webhooks") == 0;
        cm_buf_printf(buf, ",\"triggerWebhooks\":%s", hooks ? "true" : "false");
    }
    cm_buf_puts(buf, "}");
}

static void
put_coin(struct cm_buf *buf, const struct cm_record *record)
{
    int64_t ppb, occurrence;
    if (!number(record, CM_ENTRY_PROBABILITY, &ppb)) {
        cm_buf_puts(buf, ",\"coin\":null");
        return;
    }
    cm_buf_printf(buf, ",\"coin\":{\"probability\":%.10g,\"occurrence\":",
                  (double)ppb / CM_COIN_ALWAYS);
    if (number(record, CM_ENTRY_OCCURRENCE, &occurrence) && occurrence > 0)
        cm_buf_printf(buf, "%" PRId64 "}", occurrence);
    else
        cm_buf_puts(buf, "null}");
}

static void
put_delay(struct cm_buf *buf, const struct cm_record *record)
{
    int64_t asked, measured;
    if (!number(record, CM_ENTRY_ASKED, &asked) || asked < 0) {
        cm_buf_puts(buf, ",\"delay\":null");
        return;
    }
    cm_buf_printf(buf,
                  ",\"delay\":{\"askedMs\":%" PRId64 ",\"measuredMs\":", asked);
    if (number(record, CM_ENTRY_MEASURED, &measured) && measured >= 0)
        cm_buf_printf(buf, "%" PRId64 "}", measured);
    else
        cm_buf_puts(buf, "null}");
}

static const char *
committed(const struct cm_record *record)
{
    const char *text = record->at[CM_ENTRY_COMMITTED];
    return strcmp(text, "yes") == 0  ? "true"
           : strcmp(text, "no") == 0 ? "false"
                                     : "null";
}

void
cm_event_print(struct cm_buf *buf, const struct cm_record *record)
{
    char id[CM_RECORD_ID_BYTES], time[32];
    int64_t n;
    cm_record_id_print(record->id, id);
    (void)number(record, CM_ENTRY_TIME, &n);
    cm_time_print(n, time, sizeof time);
    cm_buf_printf(buf, "{\"id\":\"%s\",\"time\":\"%s\"", id, time);
    put_text(buf, "host", record->at[CM_ENTRY_HOST]);
    cm_buf_printf(buf, ",\"n\":%" PRId64,
                  number(record, CM_ENTRY_N, &n) ? n : 0);
    put_text(buf, "queueId", record->at[CM_ENTRY_QID]);
    put_text(buf, "client", record->at[CM_ENTRY_CLIENT]);
    put_text(buf, "sender", record->at[CM_ENTRY_SENDER]);
    put_text(buf, "recipient", record->at[CM_ENTRY_INBOX]);
    put_text(buf, "stage", record->at[CM_ENTRY_STAGE]);
    put_text(buf, "rule", record->at[CM_ENTRY_RULE]);
    put_fault(buf, record);
    put_text(buf, "outcome", record->at[CM_ENTRY_OUTCOME]);
    put_coin(buf, record);
    put_text(buf, "reply", record->at[CM_ENTRY_REPLY]);
    put_delay(buf, record);
    cm_buf_printf(buf, ",\"committed\":%s,\"others\":%" PRId64,
                  committed(record),
                  number(record, CM_ENTRY_OTHERS, &n) ? n : 0);
    put_text(buf, "detail", record->at[CM_ENTRY_DETAIL]);
    cm_buf_puts(buf, "}");
}

/* --- VaultSandbox's console --- */

static void
put_drop(struct cm_buf *buf, const char *variant)
{
    bool graceful = strncmp(variant, "fin", 3) == 0;
    cm_buf_printf(buf, "Connection drop, %s",
                  graceful ? "graceful (FIN)" : "abrupt (RST)");
}

/* Kinds that VaultSandbox does not have are told in the same manner. */
static void
put_what(struct cm_buf *buf, const struct cm_record *record)
{
    const char *kind = record->at[CM_ENTRY_KIND];
    const char *variant = record->at[CM_ENTRY_VARIANT];
    const char *detail = record->at[CM_ENTRY_DETAIL];
    if (strcmp(kind, "error") == 0) {
        cm_buf_printf(buf, "random_error: %s", record->at[CM_ENTRY_REPLY]);
    } else if (strcmp(kind, "greylist") == 0) {
        cm_buf_printf(buf, "greylist: Greylisting: %s", detail);
    } else if (strcmp(kind, "drop") == 0) {
        cm_buf_puts(buf, "connection_drop: ");
        put_drop(buf, variant);
    } else if (strcmp(kind, "blackhole") == 0) {
        cm_buf_printf(buf, "blackhole: Email blackholed (webhooks=%s)",
                      strcmp(variant, "webhooks") == 0 ? "enabled"
                                                       : "suppressed");
    } else if (strcmp(kind, "latency") == 0) {
        cm_buf_printf(buf, "latency: %sms delay injected",
                      record->at[CM_ENTRY_MEASURED]);
    } else {
        const char *reply = record->at[CM_ENTRY_REPLY];
        cm_buf_printf(buf, "%s: %s", kind, *reply ? reply : detail);
    }
}

void
cm_event_console_text(struct cm_buf *buf, const struct cm_record *record)
{
    const char *outcome = record->at[CM_ENTRY_OUTCOME];
    cm_buf_puts(buf, "[CHAOS] ");
    if (strcmp(outcome, "applied") == 0)
        put_what(buf, record);
    else
        cm_buf_printf(buf, "%s (%s): %s", record->at[CM_ENTRY_KIND], outcome,
                      record->at[CM_ENTRY_DETAIL]);
    cm_buf_printf(buf, " (inbox=%s)", record->at[CM_ENTRY_INBOX]);
}
