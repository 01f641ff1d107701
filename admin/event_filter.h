/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_EVENT_FILTER_H
#define CM_EVENT_FILTER_H

#include "milter/model/address.h"
#include "milter/model/rule.h"

#include <stdbool.h>

struct cm_problems;
struct cm_record;
struct cm_target;

/*
 * Which events somebody wants, as the query of a URL says it: inbox=ADDRESS
 * (and its sub-addresses), rule=NAME, and stage=, kind=, outcome=, each one
 * name or several with commas. What is not given is not looked at.
 */
struct cm_event_filter {
    bool by_inbox;
    struct cm_address inbox;
    char rule[CM_RULE_NAME_BYTES];    /* "": any */
    unsigned stages, kinds, outcomes; /* bits by enum; 0: any */
    const char *delimiters;           /* borrowed; of sub-addresses */
};

/*
 * cm_event_filter_read - take the filter's parameters out of a query. Those
 * that are not in others (a NULL-terminated list of what else the caller
 * takes) are problems, as are values that could match nothing.
 */
void cm_event_filter_read(struct cm_event_filter *filter_r,
                          const struct cm_target *target, unsigned flags,
                          const char *delimiters, const char *const *others,
                          struct cm_problems *problems);

bool cm_event_filter_match(const struct cm_event_filter *filter,
                           const struct cm_record *record);

#endif
