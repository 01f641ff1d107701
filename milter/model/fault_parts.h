/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FAULT_PARTS_H
#define CM_FAULT_PARTS_H

#include "milter/model/draft.h"
#include "milter/model/fault.h"

/*
 * The parts of fault_json, which alone includes this: per kind of fault its
 * table of members, and the function that fills the fault's union from a draft
 * and complains of what no table can say. kind is set already.
 */
typedef void cm_fault_build(struct cm_draft *draft, struct cm_fault *fault);

#define CM_FAULT_MEMBER_KIND                                                   \
    {                                                                          \
        .name = "kind", .type = CM_MEMBER_STRING, .max = 32                    \
    }

/* fault_reply_json.c */
extern const struct cm_member cm_fault_error_members[];
extern const struct cm_member cm_fault_throttle_members[];
cm_fault_build cm_fault_build_error;
cm_fault_build cm_fault_build_throttle;

/* fault_delay_json.c */
extern const struct cm_member cm_fault_latency_members[];
cm_fault_build cm_fault_build_latency;

/* fault_steps_json.c */
extern const struct cm_member cm_fault_sequence_members[];
cm_fault_build cm_fault_build_sequence;

/* fault_hide_json.c */
extern const struct cm_member cm_fault_hide_members[];
cm_fault_build cm_fault_build_hide;

/* fault_message_json.c */
extern const struct cm_member cm_fault_quarantine_members[];
extern const struct cm_member cm_fault_misdeliver_members[];
extern const struct cm_member cm_fault_mutate_members[];
cm_fault_build cm_fault_build_quarantine;
cm_fault_build cm_fault_build_misdeliver;
cm_fault_build cm_fault_build_mutate;

#endif
