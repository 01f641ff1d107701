/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fault documents. Per kind a table of members, which the general validator
 * checks, and a function that turns what passed into the fault and complains
 * of what no table can say. The kinds with more to say have files of their own
 * (fault_parts.h).
 */
#include "milter/model/fault_json.h"
#include "milter/model/fault_parts.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

static const char *const drop_how[] = {"rst", "fin", NULL};
static const char *const drop_outcome[] = {"lost", "ackLost", NULL};

static const struct cm_member drop_members[] = {
    CM_FAULT_MEMBER_KIND,
    CM_MEMBER_ROW_CHOICE("how", "rst", "rst", "fin"),
    CM_MEMBER_ROW_CHOICE("outcome", "lost", "lost", "ackLost"),
    CM_MEMBER_ROW_END,
};

static void
build_drop(struct cm_draft *draft, struct cm_fault *fault)
{
    fault->u.drop = (struct cm_fault_drop){
        .how = (enum cm_drop_how)cm_draft_choice(draft, "how", drop_how),
        .outcome = (enum cm_drop_outcome)cm_draft_choice(draft, "outcome",
                                                         drop_outcome),
    };
}

static const char *const track_by[] = {"ip", "sender", "ip_sender", NULL};

static const struct cm_member greylist_members[] = {
    CM_FAULT_MEMBER_KIND,
    CM_MEMBER_ROW_NUMBER("retryWindowMs", 0, CM_FAULT_WINDOW_MAX_MS, 300000),
    CM_MEMBER_ROW_NUMBER("maxAttempts", 1, CM_FAULT_ATTEMPTS_MAX, 2),
    CM_MEMBER_ROW_CHOICE("trackBy", "ip_sender", "ip", "sender", "ip_sender"),
    CM_MEMBER_ROW_NUMBER("minDelayMs", 0, CM_FAULT_WINDOW_MAX_MS, 0),
    CM_MEMBER_ROW_END,
};

static void
build_greylist(struct cm_draft *draft, struct cm_fault *fault)
{
    fault->u.greylist = (struct cm_fault_greylist){
        .window_ms = cm_draft_rounded(draft, "retryWindowMs"),
        .max_attempts = (int64_t)ceil(cm_draft_number(draft, "maxAttempts")),
        .min_delay_ms = cm_draft_rounded(draft, "minDelayMs"),
        .track = (enum cm_track)cm_draft_choice(draft, "trackBy", track_by),
    };
}

static const struct cm_member blackhole_members[] = {
    CM_FAULT_MEMBER_KIND,
    CM_MEMBER_ROW_BOOLEAN("triggerWebhooks", false),
    CM_MEMBER_ROW_END,
};

static void
build_blackhole(struct cm_draft *draft, struct cm_fault *fault)
{
    fault->u.blackhole.webhooks = cm_draft_flag(draft, "triggerWebhooks");
}

static const struct cm_member duplicate_members[] = {CM_FAULT_MEMBER_KIND,
                                                     CM_MEMBER_ROW_END};

static void
build_duplicate(struct cm_draft *draft, struct cm_fault *fault)
{
    (void)draft; /* nothing to say but its kind */
    (void)fault;
}

static const struct {
    const struct cm_member *members;
    cm_fault_build *build;
} kinds[CM_FAULT_COUNT] = {
    [CM_FAULT_ERROR] = {cm_fault_error_members, cm_fault_build_error},
    [CM_FAULT_LATENCY] = {cm_fault_latency_members, cm_fault_build_latency},
    [CM_FAULT_DROP] = {drop_members, build_drop},
    [CM_FAULT_GREYLIST] = {greylist_members, build_greylist},
    [CM_FAULT_BLACKHOLE] = {blackhole_members, build_blackhole},
    [CM_FAULT_THROTTLE] = {cm_fault_throttle_members, cm_fault_build_throttle},
    [CM_FAULT_SEQUENCE] = {cm_fault_sequence_members, cm_fault_build_sequence},
    [CM_FAULT_QUARANTINE] = {cm_fault_quarantine_members,
                             cm_fault_build_quarantine},
    [CM_FAULT_DUPLICATE] = {duplicate_members, build_duplicate},
    [CM_FAULT_MISDELIVER] = {cm_fault_misdeliver_members,
                             cm_fault_build_misdeliver},
    [CM_FAULT_MUTATE] = {cm_fault_mutate_members, cm_fault_build_mutate},
    [CM_FAULT_HIDE] = {cm_fault_hide_members, cm_fault_build_hide},
};

static enum cm_status
compile(struct cm_fault *fault_r, const json_t *doc, const char *name,
        unsigned flags, struct cm_problems *problems)
{
    struct cm_fault fault = {.kind = CM_FAULT_ERROR};
    struct cm_draft draft;
    char prefix[CM_DRAFT_PREFIX_BYTES];
    snprintf(prefix, sizeof prefix, "%s.", name);

    const char *kind = json_string_value(json_object_get(doc, "kind"));
    if (!kind || cm_fault_parse_kind(kind, &fault.kind) != CM_OK) {
        cm_member_problem(problems, prefix, "kind",
                          "must be one of the following values: error, "
                          "latency, drop, greylist, blackhole, throttle, "
                          "sequence, quarantine, duplicate, misdeliver, "
                          "mutate, hide");
        return CM_EINVAL;
    }
    cm_draft_init(&draft, doc, kinds[fault.kind].members, prefix, flags,
                  problems);
    if (draft.status == CM_OK)
        kinds[fault.kind].build(&draft, &fault);
    enum cm_status status = cm_draft_status(&draft);
    if (status == CM_OK)
        *fault_r = fault;
    else
        cm_fault_fini(&fault);
    cm_draft_fini(&draft);
    return status;
}

enum cm_status
cm_fault_compile(struct cm_fault *fault_r, const struct json_t *doc,
                 const char *name, unsigned flags, struct cm_problems *problems)
{
    if (json_is_object(doc))
        return compile(fault_r, doc, name, flags, problems);
    cm_problem_add(problems, name, "%s must be an object", name);
    return CM_EINVAL;
}
