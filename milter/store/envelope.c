/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/envelope.h"
#include "milter/buf.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* 15 digits stay exact in a Lua number. */
#define CM_NUMBER_DIGITS_MAX 15

struct cursor {
    const char *at, *end;
};

static bool
take(struct cursor *cursor, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(cursor->end - cursor->at) < len ||
        memcmp(cursor->at, word, len) != 0)
        return false;
    cursor->at += len;
    return true;
}

static bool
take_number(struct cursor *cursor, int64_t *number_r)
{
    const char *start = cursor->at;
    int64_t number = 0;
    while (cursor->at < cursor->end && *cursor->at >= '0' &&
           *cursor->at <= '9' && cursor->at - start < CM_NUMBER_DIGITS_MAX + 1)
        number = number * 10 + (*cursor->at++ - '0');
    *number_r = number;
    return number > 0 && *start != '0' &&
           cursor->at - start <= CM_NUMBER_DIGITS_MAX;
}

enum cm_status
cm_envelope_parse(struct cm_envelope *envelope_r, const char *text, size_t len,
                  struct cm_err *err)
{
    struct cursor cursor = {text, text + len};
    struct cm_envelope envelope = {.ord = -1};
    bool ok = take(&cursor, "{\"rev\":") &&
              take_number(&cursor, &envelope.rev) &&
              take(&cursor, ",\"seq\":") && take_number(&cursor, &envelope.seq);
    if (ok && take(&cursor, ",\"ord\":"))
        ok = take_number(&cursor, &envelope.ord);
    ok = ok && take(&cursor, ",\"doc\":") && cursor.end - cursor.at >= 2 &&
         cursor.end[-1] == '}';
    if (!ok)
        return cm_err_set(err, CM_EINVAL,
                          "not a stored document: write it with cm_set");
    envelope.doc = cursor.at;
    envelope.doc_len = (size_t)(cursor.end - cursor.at) - 1;
    *envelope_r = envelope;
    return CM_OK;
}

void
cm_envelope_print(struct cm_buf *buf, const struct cm_envelope *envelope)
{
    cm_buf_printf(buf, "{\"rev\":%" PRId64 ",\"seq\":%" PRId64, envelope->rev,
                  envelope->seq);
    if (envelope->ord >= 0)
        cm_buf_printf(buf, ",\"ord\":%" PRId64, envelope->ord);
    cm_buf_puts(buf, ",\"doc\":");
    cm_buf_add(buf, envelope->doc, envelope->doc_len);
    cm_buf_puts(buf, "}");
}
