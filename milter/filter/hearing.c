/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/hearing.h"
#include "milter/filter/incident.h"
#include "milter/filter/owner.h"

#include <stdlib.h>

static void
run(struct cm_errand *base)
{
    struct cm_hearing *hearing = CM_OWNER(struct cm_hearing, base, base);
    cm_question_judge(&hearing->question, &hearing->ruling);
}

struct cm_hearing *
cm_hearing_begin(struct cm_clerks *clerks, struct cm_question *question,
                 void *asker)
{
    struct cm_hearing *hearing = calloc(1, sizeof *hearing);
    if (!hearing) {
        cm_question_fini(question);
        return NULL;
    }
    hearing->base.run = run;
    hearing->question = *question; /* with its reference */
    hearing->asker = asker;
    cm_clerks_give(clerks, &hearing->base);
    return hearing;
}

void
cm_hearing_call_off(struct cm_hearing **hearing)
{
    if (!*hearing)
        return;
    (*hearing)->asker = NULL;
    atomic_store(&(*hearing)->base.called_off, true);
    *hearing = NULL;
}

struct cm_hearing *
cm_hearing_take(struct cm_clerks *clerks)
{
    struct cm_errand *base;
    while ((base = cm_clerks_take(clerks))) {
        struct cm_hearing *hearing = CM_OWNER(struct cm_hearing, base, base);
        if (hearing->asker)
            return hearing;
        if (base->was_run && hearing->ruling.kind != CM_RULING_PASS)
            cm_incident_close(hearing->question.filter,
                              &hearing->ruling.incident,
                              CM_INCIDENT_UNAVAILABLE, "decided too late");
        cm_hearing_free(&hearing);
    }
    return NULL;
}

void
cm_hearing_free(struct cm_hearing **hearing)
{
    if (!*hearing)
        return;
    cm_question_fini(&(*hearing)->question);
    free(*hearing);
    *hearing = NULL;
}
