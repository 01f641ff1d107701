/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_PROM_H
#define CM_PROM_H

#include <stddef.h>
#include <stdint.h>

struct cm_buf;
struct cm_histogram_view;

/*
 * Metrics in Prometheus's text format 0.0.4. A family is its HELP and TYPE,
 * then its samples; whoever prints keeps each family together, once.
 */
#define CM_PROM_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* cm_prom_family - type is "counter", "gauge" or "histogram"; help is one line
 * of ours, without backslashes. */
void cm_prom_family(struct cm_buf *buf, const char *name, const char *type,
                    const char *help);

/* The label of a sample; value may hold anything: it is escaped, and what is
 * neither printable ASCII nor a line's end becomes "?". */
struct cm_prom_label {
    const char *name, *value;
};
#define CM_PROM_LABELS(...)                                                    \
    (const struct cm_prom_label[])                                             \
    {                                                                          \
        __VA_ARGS__,                                                           \
        {                                                                      \
            NULL, NULL                                                         \
        }                                                                      \
    }

/* cm_prom_sample - labels end with a NULL name; NULL: none. */
void cm_prom_sample(struct cm_buf *buf, const char *name,
                    const struct cm_prom_label *labels, int64_t value);
/* cm_prom_seconds - of a value in units of 1/per_second: 1000 for ms. */
void cm_prom_seconds(struct cm_buf *buf, const char *name,
                     const struct cm_prom_label *labels, int64_t value,
                     int64_t per_second);

/* cm_prom_histogram - the samples of one, in seconds. */
void cm_prom_histogram(struct cm_buf *buf, const char *name,
                       const struct cm_prom_label *labels,
                       const struct cm_histogram_view *view);

#endif
