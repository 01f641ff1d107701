/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MEMBERS_H
#define CM_MEMBERS_H

#include "milter/err.h"
#include "milter/model/problem.h"

#include <float.h>
#include <stdbool.h>

struct json_t; /* jansson's */

/*
 * What a JSON object may hold, as a table: one row per member with its type,
 * range and default, in the order in which it is checked and written back. The
 * tables of the documents are in inbox_json.c, fault_json.c and rule_json.c.
 */
enum cm_member_type {
    CM_MEMBER_BOOLEAN,
    CM_MEMBER_NUMBER,  /* min..max; 1.0 becomes 1, -0 becomes 0 */
    CM_MEMBER_INTEGER, /* min..max; 1.0 is none */
    CM_MEMBER_STRING,  /* at most max characters */
    CM_MEMBER_TIME,    /* RFC 3339 */
    CM_MEMBER_CHOICE,  /* one of choices */
    CM_MEMBER_CHOICES, /* an array of them */
    CM_MEMBER_OBJECT,  /* of members */
    CM_MEMBER_ANY      /* its reader checks it */
};

struct cm_member {
    const char *name; /* NULL ends a table */
    enum cm_member_type type;
    bool required;
    double min, max;
    const char *const *choices; /* ended by NULL */
    const struct cm_member *members;
    bool has_default;                 /* then one of: */
    double default_number;            /* of a number; of a boolean, 0 or 1 */
    const char *const *default_texts; /* of a choice (one) or of choices */
};

#define CM_MEMBER_UNBOUNDED DBL_MAX

/* The rows that most tables need. preset is the default. */
#define CM_MEMBER_TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define CM_MEMBER_ROW_BOOLEAN(n, preset)                                       \
    {                                                                          \
        .name = n, .type = CM_MEMBER_BOOLEAN, .has_default = true,             \
        .default_number = preset                                               \
    }
#define CM_MEMBER_ROW_NUMBER(n, lo, hi, preset)                                \
    {                                                                          \
        .name = n, .type = CM_MEMBER_NUMBER, .min = lo, .max = hi,             \
        .has_default = true, .default_number = preset                          \
    }
#define CM_MEMBER_ROW_CHOICE(n, preset, ...)                                   \
    {                                                                          \
        .name = n, .type = CM_MEMBER_CHOICE,                                   \
        .choices = CM_MEMBER_TEXTS(__VA_ARGS__), .has_default = true,          \
        .default_texts = CM_MEMBER_TEXTS(preset)                               \
    }
#define CM_MEMBER_ROW_OBJECT(n, table)                                         \
    {                                                                          \
        .name = n, .type = CM_MEMBER_OBJECT, .members = table                  \
    }
#define CM_MEMBER_ROW_END                                                      \
    {                                                                          \
        .name = NULL                                                           \
    }

/*
 * cm_members_normalize - a new object with the members of the table in its
 * order, defaults filled in. `null` is the same as absent. A member with a
 * fault is left out, and so is one that is absent and has no default.
 *
 * in        an object
 * prefix    put before each path and sentence: "", "fault.", "chaos.latency."
 * problems  gets every fault: members that are not in the table first, then in
 *           the table's order
 *
 * CM_OK, also when there were faults; CM_ENOMEM.
 */
enum cm_status cm_members_normalize(struct json_t **out_r,
                                    const struct json_t *in,
                                    const struct cm_member *table,
                                    const char *prefix,
                                    struct cm_problems *problems) CM_MUST_CHECK;

/* cm_member_problem - "<prefix><name> <sentence>", at that path. */
void cm_member_problem(struct cm_problems *problems, const char *prefix,
                       const char *name, const char *fmt, ...) CM_PRINTF(4, 5);

#endif
