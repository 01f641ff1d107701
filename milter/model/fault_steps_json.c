/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sequence fault: what the n-th attempt meets. A step is "ok", a reply as
 * SMTP shows it, or a fault document, which is compiled like any other.
 */
#include "milter/model/fault_json.h"
#include "milter/model/fault_parts.h"
#include "milter/model/reply.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_FAULT_DAY_MS ((int64_t)24 * 3600 * 1000)

static const char *const key_names[] = {"client", "sender", "recipient", NULL};
_Static_assert(CM_KEY_CLIENT == 1 && CM_KEY_SENDER == 2 &&
                   CM_KEY_RECIPIENT == 4,
               "key parts are the bits of their names");
static const char *const after_names[] = {"ok", "repeat", NULL};

const struct cm_member cm_fault_sequence_members[] = {
    CM_FAULT_MEMBER_KIND,
    {.name = "steps", .type = CM_MEMBER_ANY},
    {.name = "key",
     .type = CM_MEMBER_CHOICES,
     .choices = key_names,
     .has_default = true,
     .default_texts = key_names},
    CM_MEMBER_ROW_CHOICE("after", "ok", "ok", "repeat"),
    CM_MEMBER_ROW_NUMBER("ttlMs", 1, CM_FAULT_WINDOW_MAX_MS, CM_FAULT_DAY_MS),
    CM_MEMBER_ROW_END,
};

/* A step must act at once and remember nothing of its own. */
static bool
may_be_step(enum cm_fault_kind kind)
{
    return kind == CM_FAULT_ERROR || kind == CM_FAULT_LATENCY ||
           kind == CM_FAULT_DROP || kind == CM_FAULT_BLACKHOLE;
}

static enum cm_status
build_fault_step(struct cm_draft *draft, struct cm_fault *step,
                 const json_t *doc, const char *name)
{
    char path[sizeof draft->prefix];
    enum cm_fault_kind kind;
    const char *kind_name = json_string_value(json_object_get(doc, "kind"));
    if (kind_name && cm_fault_parse_kind(kind_name, &kind) == CM_OK &&
        !may_be_step(kind)) {
        cm_draft_complain(draft, name,
                          "must be an error, a latency, a drop or a blackhole");
        return CM_EINVAL;
    }
    snprintf(path, sizeof path, "%s%s", draft->prefix, name);
    return cm_fault_compile(step, doc, path, draft->flags, draft->problems);
}

static enum cm_status
build_step(struct cm_draft *draft, struct cm_fault *step, const json_t *doc,
           const char *name)
{
    struct cm_err err;
    const char *s = json_string_value(doc);
    if (!s && json_is_object(doc))
        return build_fault_step(draft, step, doc, name);
    if (!s) {
        cm_draft_complain(draft, name, "must be \"ok\", a reply or a fault");
        return CM_EINVAL;
    }
    if (strcmp(s, "ok") == 0) {
        step->kind = CM_FAULT_COUNT;
        return CM_OK;
    }
    step->kind = CM_FAULT_ERROR;
    enum cm_status status = cm_reply_parse_step(&step->u.error.reply, s, &err);
    if (status == CM_EINVAL)
        cm_draft_complain(draft, name, "must be \"ok\", a reply or a fault: %s",
                          err.msg);
    return status;
}

static void
build_steps(struct cm_draft *draft, struct cm_fault *fault)
{
    struct cm_fault_sequence *sequence = &fault->u.sequence;
    const json_t *steps = cm_draft_member(draft, "steps");
    size_t n = json_array_size(steps);
    if (!json_is_array(steps) || n < 1 || n > CM_SEQUENCE_STEPS_MAX) {
        cm_draft_complain(draft, "steps", "must be an array of 1 to %d steps",
                          CM_SEQUENCE_STEPS_MAX);
        return;
    }
    sequence->steps = calloc(n, sizeof *sequence->steps);
    if (!sequence->steps) {
        draft->status = CM_ENOMEM;
        return;
    }
    sequence->nsteps = n;
    for (size_t i = 0; i < n && draft->status == CM_OK; i++) {
        char name[sizeof "steps[64]"];
        snprintf(name, sizeof name, "steps[%zu]", i % CM_SEQUENCE_STEPS_MAX);
        if (build_step(draft, &sequence->steps[i], json_array_get(steps, i),
                       name) == CM_ENOMEM)
            draft->status = CM_ENOMEM;
    }
}

/* One turn for a whole message would blackhole but one of its recipients. */
static void
check_blackholes(struct cm_draft *draft,
                 const struct cm_fault_sequence *sequence)
{
    bool has_blackhole = false;
    for (size_t i = 0; i < sequence->nsteps; i++)
        if (sequence->steps[i].kind == CM_FAULT_BLACKHOLE)
            has_blackhole = true;
    if (has_blackhole && sequence->key && !(sequence->key & CM_KEY_RECIPIENT))
        cm_draft_complain(draft, "key",
                          "must hold recipient when a step is a blackhole, "
                          "which takes out one recipient at a time");
}

void
cm_fault_build_sequence(struct cm_draft *draft, struct cm_fault *fault)
{
    struct cm_fault_sequence *sequence = &fault->u.sequence;
    build_steps(draft, fault);
    sequence->key = cm_draft_choices(draft, "key", key_names);
    if (cm_draft_member(draft, "key") && sequence->key == 0)
        cm_draft_complain(draft, "key", "must not be empty");
    check_blackholes(draft, sequence);
    sequence->repeat = cm_draft_choice(draft, "after", after_names) == 1;
    sequence->ttl_ms = cm_draft_rounded(draft, "ttlMs");
}
