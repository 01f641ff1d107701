/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of faults: what each kind is called and where it may act. A fault's
 * doing is the filter's business; here is only what can be said without a mail.
 */
#include "milter/model/fault.h"
#include "milter/model/reply.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BIT(stage) CM_STAGE_BIT(CM_STAGE_##stage)

static const struct {
    const char *name;
    unsigned stages;
    enum cm_stage default_stage;
} kinds[CM_FAULT_COUNT] = {
    [CM_FAULT_ERROR] = {"error", CM_STAGES_ALL, CM_STAGE_RCPT},
    [CM_FAULT_LATENCY] = {"latency", CM_STAGES_ALL, CM_STAGE_RCPT},
    [CM_FAULT_DROP] = {"drop", BIT(MAIL) | BIT(RCPT) | BIT(DATA) | BIT(MESSAGE),
                       CM_STAGE_MESSAGE},
    [CM_FAULT_GREYLIST] = {"greylist", BIT(RCPT) | BIT(MESSAGE), CM_STAGE_RCPT},
    [CM_FAULT_BLACKHOLE] = {"blackhole", BIT(MESSAGE), CM_STAGE_MESSAGE},
    [CM_FAULT_THROTTLE] = {"throttle", BIT(MAIL) | BIT(RCPT) | BIT(MESSAGE),
                           CM_STAGE_RCPT},
    [CM_FAULT_SEQUENCE] = {"sequence", BIT(RCPT) | BIT(MESSAGE), CM_STAGE_RCPT},
    [CM_FAULT_QUARANTINE] = {"quarantine", BIT(MESSAGE), CM_STAGE_MESSAGE},
    [CM_FAULT_DUPLICATE] = {"duplicate", BIT(MESSAGE), CM_STAGE_MESSAGE},
    [CM_FAULT_MISDELIVER] = {"misdeliver", BIT(MESSAGE), CM_STAGE_MESSAGE},
    [CM_FAULT_MUTATE] = {"mutate", BIT(MESSAGE), CM_STAGE_MESSAGE},
    [CM_FAULT_HIDE] = {"hide", BIT(HELO), CM_STAGE_HELO},
};

void
cm_fault_fini(struct cm_fault *fault)
{
    switch (fault->kind) {
    case CM_FAULT_ERROR:
        cm_reply_free(&fault->u.error.reply);
        break;
    case CM_FAULT_THROTTLE:
        cm_reply_free(&fault->u.throttle.reply);
        break;
    case CM_FAULT_SEQUENCE:
        for (size_t i = 0; i < fault->u.sequence.nsteps; i++)
            cm_fault_fini(&fault->u.sequence.steps[i]);
        free(fault->u.sequence.steps);
        break;
    case CM_FAULT_QUARANTINE:
        free(fault->u.quarantine_reason);
        break;
    case CM_FAULT_MISDELIVER:
        free(fault->u.misdeliver_to);
        break;
    case CM_FAULT_MUTATE:
        free(fault->u.mutate.name);
        free(fault->u.mutate.value);
        break;
    case CM_FAULT_HIDE:
        free(fault->u.hide);
        break;
    case CM_FAULT_LATENCY:
    case CM_FAULT_DROP:
    case CM_FAULT_GREYLIST:
    case CM_FAULT_BLACKHOLE:
    case CM_FAULT_DUPLICATE:
    case CM_FAULT_COUNT:
        break;
    }
    memset(fault, 0, sizeof *fault);
}

const char *
cm_fault_name(enum cm_fault_kind kind)
{
    return (unsigned)kind < CM_FAULT_COUNT ? kinds[kind].name : "unknown";
}

enum cm_status
cm_fault_parse_kind(const char *name, enum cm_fault_kind *kind_r)
{
    for (int i = 0; i < CM_FAULT_COUNT; i++) {
        if (strcmp(name, kinds[i].name) == 0) {
            *kind_r = (enum cm_fault_kind)i;
            return CM_OK;
        }
    }
    return CM_NOTFOUND;
}

unsigned
cm_fault_stages(const struct cm_fault *fault)
{
    if ((unsigned)fault->kind >= CM_FAULT_COUNT) /* a sequence's "ok" */
        return CM_STAGES_ALL;
    unsigned stages = kinds[fault->kind].stages;
    if (fault->kind == CM_FAULT_DROP &&
        fault->u.drop.outcome == CM_DROP_ACK_LOST)
        stages = BIT(MESSAGE);
    if (fault->kind == CM_FAULT_LATENCY && fault->u.latency.stages)
        stages = fault->u.latency.stages;
    if (fault->kind == CM_FAULT_SEQUENCE) {
        for (size_t i = 0; i < fault->u.sequence.nsteps; i++)
            stages &= cm_fault_stages(&fault->u.sequence.steps[i]);
    }
    return stages;
}

enum cm_stage
cm_fault_default_stage(const struct cm_fault *fault)
{
    unsigned stages = cm_fault_stages(fault);
    enum cm_stage stage = kinds[fault->kind].default_stage;
    if (stages && !(stages & CM_STAGE_BIT(stage)))
        for (stage = 0; !(stages & CM_STAGE_BIT(stage));)
            stage++;
    return stage;
}

const struct cm_fault *
cm_fault_step(const struct cm_fault_sequence *sequence, int64_t n)
{
    uint64_t at = (uint64_t)n - 1;
    if (sequence->repeat)
        at %= sequence->nsteps;
    if (at >= sequence->nsteps)
        return NULL;
    const struct cm_fault *step = &sequence->steps[at];
    return step->kind == CM_FAULT_COUNT ? NULL : step;
}

/* A draw as a number in (0, 1]: its logarithm is finite. */
static double
unit(uint64_t draw)
{
    return ((double)(draw >> 11) + 1.0) / 9007199254740992.0; /* 2^53 */
}

static int64_t
lognormal(const struct cm_fault_latency *latency, uint64_t draw, uint64_t draw2)
{
    const double two_pi = 6.283185307179586;
    double z = sqrt(-2.0 * log(unit(draw))) * cos(two_pi * unit(draw2));
    double ms = latency->median_ms * exp(latency->sigma * z) + 0.5;
    return ms < CM_FAULT_DELAY_MAX_MS ? (int64_t)ms : CM_FAULT_DELAY_MAX_MS;
}

int64_t
cm_fault_delay(const struct cm_fault_latency *latency, uint64_t draw,
               uint64_t draw2)
{
    switch (latency->kind) {
    case CM_DELAY_FIXED:
        return latency->max_ms;
    case CM_DELAY_UNIFORM:
        return cm_coin_between(draw, latency->min_ms, latency->max_ms);
    case CM_DELAY_LOGNORMAL:
        return lognormal(latency, draw, draw2);
    }
    return 0;
}
