/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A writer of a few dozen lines: the format is that small, and no C library for
 * it is kept up. Numbers are printed without the locale, which no daemon of
 * ours ever sets.
 */
#include "milter/prom.h"
#include "milter/buf.h"
#include "milter/histogram.h"

#include <inttypes.h>
#include <stdio.h>

#define NS_PER_SECOND ((int64_t)1000000000)

void
cm_prom_family(struct cm_buf *buf, const char *name, const char *type,
               const char *help)
{
    cm_buf_printf(buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
put_value(struct cm_buf *buf, const char *value)
{
    for (const char *s = value; *s; s++) {
        if (*s == '\n')
            cm_buf_puts(buf, "\\n");
        else if (*s == '"' || *s == '\\')
            cm_buf_printf(buf, "\\%c", *s);
        else if (*s < 0x20 || *s > 0x7e)
            cm_buf_puts(buf, "?");
        else
            cm_buf_add(buf, s, 1);
    }
}

/* name{labels...,le="..."}; le NULL: none. */
static void
put_head(struct cm_buf *buf, const char *name, const char *suffix,
         const struct cm_prom_label *labels, const char *le)
{
    const char *before = "{";
    cm_buf_printf(buf, "%s%s", name, suffix);
    for (; labels && labels->name; labels++) {
        cm_buf_printf(buf, "%s%s=\"", before, labels->name);
        put_value(buf, labels->value);
        cm_buf_puts(buf, "\"");
        before = ",";
    }
    if (le) {
        cm_buf_printf(buf, "%sle=\"%s\"", before, le);
        before = ",";
    }
    cm_buf_puts(buf, *before == ',' ? "} " : " ");
}

void
cm_prom_sample(struct cm_buf *buf, const char *name,
               const struct cm_prom_label *labels, int64_t value)
{
    put_head(buf, name, "", labels, NULL);
    cm_buf_printf(buf, "%" PRId64 "\n", value);
}

void
cm_prom_seconds(struct cm_buf *buf, const char *name,
                const struct cm_prom_label *labels, int64_t value,
                int64_t per_second)
{
    put_head(buf, name, "", labels, NULL);
    cm_buf_printf(buf, "%.15g\n", (double)value / (double)per_second);
}

void
cm_prom_histogram(struct cm_buf *buf, const char *name,
                  const struct cm_prom_label *labels,
                  const struct cm_histogram_view *view)
{
    uint64_t total = 0;
    for (size_t i = 0; i <= view->nbounds; i++) {
        char le[32] = "+Inf";
        total += view->counts[i];
        if (i < view->nbounds)
            snprintf(le, sizeof le, "%.9g",
                     (double)view->bounds_ns[i] / (double)NS_PER_SECOND);
        put_head(buf, name, "_bucket", labels, le);
        cm_buf_printf(buf, "%" PRIu64 "\n", total);
    }
    put_head(buf, name, "_sum", labels, NULL);
    cm_buf_printf(buf, "%.15g\n", (double)view->sum_ns / (double)NS_PER_SECOND);
    put_head(buf, name, "_count", labels, NULL);
    cm_buf_printf(buf, "%" PRIu64 "\n", total);
}
