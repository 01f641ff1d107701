/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whoever may write to Redis may put anything into the stream, so an entry is
 * taken only if it has what every reader needs; beyond that its texts are data,
 * and whoever shows them escapes them.
 */
#include "milter/store/record.h"
#include "milter/store/redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits alone, at most 2^64 - 1; *end_r is what follows them. */
static bool
parse_number(const char *text, uint64_t *n_r, const char **end_r)
{
    uint64_t n = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (n > (UINT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *n_r = n;
    *end_r = at;
    return at > text;
}

enum cm_status
cm_record_id_parse(const char *text, struct cm_record_id *id_r)
{
    struct cm_record_id id;
    const char *end;
    if (!parse_number(text, &id.ms, &end) || *end != '-' ||
        !parse_number(end + 1, &id.n, &end) || *end != '\0')
        return CM_EINVAL;
    *id_r = id;
    return CM_OK;
}

void
cm_record_id_print(struct cm_record_id id, char out[CM_RECORD_ID_BYTES])
{
    snprintf(out, CM_RECORD_ID_BYTES, "%" PRIu64 "-%" PRIu64, id.ms, id.n);
}

int
cm_record_id_compare(struct cm_record_id a, struct cm_record_id b)
{
    if (a.ms != b.ms)
        return a.ms < b.ms ? -1 : 1;
    return a.n < b.n ? -1 : a.n > b.n;
}

/* --- reading --- */

static bool
is_text(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING &&
           memchr(reply->str, '\0', reply->len) == NULL;
}

static void
take_field(struct cm_record *record, const char *name, const char *value)
{
    for (int i = 0; i < CM_ENTRY_FIELDS; i++)
        if (strcmp(cm_entry_field_name((enum cm_entry_field)i), name) == 0)
            record->at[i] = value;
}

bool
cm_record_read(struct cm_record *record_r, const struct redisReply *entry)
{
    static const enum cm_entry_field needed[] = {
        CM_ENTRY_TIME, CM_ENTRY_HOST, CM_ENTRY_KIND, CM_ENTRY_OUTCOME,
        CM_ENTRY_STAGE};
    size_t bytes = 0;
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 ||
        !is_text(entry->element[0]) ||
        cm_record_id_parse(entry->element[0]->str, &record_r->id) != CM_OK ||
        entry->element[1]->type != REDIS_REPLY_ARRAY)
        return false;
    record_r->own = NULL;
    for (int i = 0; i < CM_ENTRY_FIELDS; i++)
        record_r->at[i] = "";
    const struct redisReply *fields = entry->element[1];
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const struct redisReply *value = fields->element[i + 1];
        if (!is_text(fields->element[i]) || !is_text(value))
            return false;
        bytes += value->len + 1;
        take_field(record_r, fields->element[i]->str, value->str);
    }
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (!*record_r->at[needed[i]])
            return false;
    return bytes <= CM_RECORD_BYTES_MAX;
}

/* --- copies --- */

enum cm_status
cm_record_dup(struct cm_record *copy_r, const struct cm_record *record)
{
    size_t bytes = 0;
    for (int i = 0; i < CM_ENTRY_FIELDS; i++)
        bytes += strlen(record->at[i]) + 1;
    char *own = malloc(bytes), *to = own;
    if (!own)
        return CM_ENOMEM;
    *copy_r = (struct cm_record){.id = record->id, .own = own};
    for (int i = 0; i < CM_ENTRY_FIELDS; i++) {
        size_t size = strlen(record->at[i]) + 1;
        copy_r->at[i] = memcpy(to, record->at[i], size);
        to += size;
    }
    return CM_OK;
}

void
cm_record_fini(struct cm_record *copy)
{
    free(copy->own);
    memset(copy, 0, sizeof *copy);
}
