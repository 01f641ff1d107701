/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_VERDICT_CASE_H
#define CM_VERDICT_CASE_H

/*
 * What the tests of verdicts share: one armed filter with one session, a few
 * documents, and the stand-ins for libmilter and the store. The model is the
 * real one.
 */
#include "milter/filter/verdict.h"
#include "milter/store/journal.h"
#include "t/unit/mock_dropper.h"
#include "t/unit/mock_smfi.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <libmilter/mfapi.h>

#define CTX ((struct smfi_str *)&mock_smfi)
#define ALWAYS_ERROR                                                           \
    "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":1}}"
#define ALWAYS_ERROR_AT(stage)                                                 \
    "{\"enabled\":true,\"randomError\":{\"enabled\":true,\"errorRate\":1,"     \
    "\"stage\":\"" stage "\"}}"
#define GREYLIST  "{\"enabled\":true,\"greylist\":{\"enabled\":true}}"
#define BLACKHOLE "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define DROP      "{\"enabled\":true,\"connectionDrop\":{\"enabled\":true}}"
#define LATENCY                                                                \
    "{\"enabled\":true,\"latency\":{\"enabled\":true,\"minDelayMs\":0,"        \
    "\"maxDelayMs\":1}}"

struct fixture {
    struct cm_filter filter;
    struct cm_session *session;
};

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
int set_up(void **state);
int tear_down(void **state);

/* A new mail, whose sender need not be valid. */
void mail_from(struct fixture *f, const char *sender);

/* One incident was recorded: this. */
const struct cm_incident *only_incident(void);

/* The list of rules, r1, r2, ...; must not be set before. */
void add_rules(const char *const *texts, size_t n);
void add_rule(const char *text);

#endif
