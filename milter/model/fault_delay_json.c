/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The latency fault: four ways to say how long, of which a document must choose
 * one whole. A limit names the time that RFC 5321 wants a client to wait for
 * one reply, so it alone may be longer than the minute that the other ways are
 * kept to, and it belongs to the stage of that reply.
 */
#include "milter/model/fault_parts.h"

#define CM_FAULT_SIGMA_MAX 10

static const char *const limit_side[] = {"justUnder", "justOver", NULL};
static const char *const limit_of[] = {"connect", "mail",    "rcpt",
                                       "data",    "message", NULL};
/* How long a client should wait for the reply at least: RFC 5321 4.5.3.2. */
static const struct {
    enum cm_stage stage;
    int64_t ms;
} limits[] = {
    {CM_STAGE_CONNECT, 300000}, {CM_STAGE_MAIL, 300000},
    {CM_STAGE_RCPT, 300000},    {CM_STAGE_DATA, 120000},
    {CM_STAGE_MESSAGE, 600000},
};
#define LIMIT_MARGIN_MS 1000
_Static_assert(CM_FAULT_LIMIT_MAX_MS == 600000 + LIMIT_MARGIN_MS,
               "the longest delay is just over the longest limit");

#define MILLISECONDS(n)                                                        \
    {                                                                          \
        .name = n, .type = CM_MEMBER_NUMBER, .max = CM_FAULT_DELAY_MAX_MS      \
    }

const struct cm_member cm_fault_latency_members[] = {
    CM_FAULT_MEMBER_KIND,
    MILLISECONDS("ms"),
    MILLISECONDS("min"),
    MILLISECONDS("max"),
    MILLISECONDS("median"),
    {.name = "sigma", .type = CM_MEMBER_NUMBER, .max = CM_FAULT_SIGMA_MAX},
    {.name = "limit", .type = CM_MEMBER_CHOICE, .choices = limit_side},
    {.name = "of", .type = CM_MEMBER_CHOICE, .choices = limit_of},
    CM_MEMBER_ROW_END,
};

static void
build_fixed(struct cm_draft *draft, struct cm_fault *fault)
{
    fault->u.latency.kind = CM_DELAY_FIXED;
    fault->u.latency.min_ms = cm_draft_rounded(draft, "ms");
    fault->u.latency.max_ms = cm_draft_rounded(draft, "ms");
}

static void
build_uniform(struct cm_draft *draft, struct cm_fault *fault)
{
    fault->u.latency.kind = CM_DELAY_UNIFORM;
    fault->u.latency.min_ms = cm_draft_rounded(draft, "min");
    fault->u.latency.max_ms = cm_draft_rounded(draft, "max");
    if (cm_draft_member(draft, "min") && cm_draft_member(draft, "max") &&
        cm_draft_number(draft, "min") > cm_draft_number(draft, "max"))
        cm_draft_complain(draft, "min", "must not be greater than max");
}

static void
build_lognormal(struct cm_draft *draft, struct cm_fault *fault)
{
    fault->u.latency.kind = CM_DELAY_LOGNORMAL;
    fault->u.latency.median_ms = cm_draft_number(draft, "median");
    fault->u.latency.sigma = cm_draft_number(draft, "sigma");
    if (cm_draft_member(draft, "median") &&
        cm_draft_number(draft, "median") <= 0)
        cm_draft_complain(draft, "median", "must be greater than 0");
}

static void
build_limit(struct cm_draft *draft, struct cm_fault *fault)
{
    if (!cm_draft_member(draft, "limit") || !cm_draft_member(draft, "of"))
        return;
    size_t of = cm_draft_choice(draft, "of", limit_of);
    bool under = cm_draft_choice(draft, "limit", limit_side) == 0;
    int64_t ms = limits[of].ms + (under ? -LIMIT_MARGIN_MS : LIMIT_MARGIN_MS);
    fault->u.latency.kind = CM_DELAY_FIXED;
    fault->u.latency.min_ms = fault->u.latency.max_ms = ms;
    fault->u.latency.stages = CM_STAGE_BIT(limits[of].stage);
}

/* The ways to say how long; exactly one, with all of its members. */
static const struct {
    const char *first, *second;
    cm_fault_build *build;
} delays[] = {
    {"ms", NULL, build_fixed},
    {"min", "max", build_uniform},
    {"median", "sigma", build_lognormal},
    {"limit", "of", build_limit},
};

void
cm_fault_build_latency(struct cm_draft *draft, struct cm_fault *fault)
{
    size_t ways = 0, way = 0;
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        const char *first = delays[i].first, *second = delays[i].second;
        bool has_first = cm_draft_is_given(draft, first);
        bool has_second = second && cm_draft_is_given(draft, second);
        if (!has_first && !has_second)
            continue;
        ways++;
        way = i;
        if (second && has_first != has_second)
            cm_draft_complain(draft, has_first ? second : first,
                              "must be given together with %s",
                              has_first ? first : second);
    }
    if (ways == 1)
        delays[way].build(draft, fault);
    else
        cm_draft_complain(draft, "ms",
                          "must be given, or min and max, or median and "
                          "sigma, or limit and of, and only one of these");
}
