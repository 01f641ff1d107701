/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a fate to its record, and from a record to the texts of a stream entry
 * and to the cells of the tally: what is claimed of a mail must be so.
 */
#include "milter/filter/incident.h"
#include "milter/model/reply.h"
#include "milter/store/entry.h"
#include "milter/store/tally.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <string.h>

static struct cm_filter filter;
static struct cm_session session = {.filter = &filter};
static struct cm_rule rule = {.id = (char *)"r1", .probability_ppb = 300000000};

/* One fate, and what its record must say of it. */
struct claim {
    const char *name;
    struct cm_fault fault;
    enum cm_stage stage;
    bool refuses;
    enum cm_incident_outcome outcome;
    enum cm_incident_committed committed;
    const char *variant;
};

#define DROP_OF(w, o)                                                          \
    {                                                                          \
        .kind = CM_FAULT_DROP, .u.drop = { w, o }                              \
    }
#define HOLE(hooks)                                                            \
    {                                                                          \
        .kind = CM_FAULT_BLACKHOLE, .u.blackhole = { hooks }                   \
    }
#define KIND(k)                                                                \
    {                                                                          \
        .kind = CM_FAULT_##k                                                   \
    }
#define YES     CM_COMMITTED_YES
#define NO      CM_COMMITTED_NO
#define UNKNOWN CM_COMMITTED_UNKNOWN

static const struct claim claims[] = {
    {"error at RCPT", KIND(ERROR), CM_STAGE_RCPT, true, CM_INCIDENT_APPLIED, NO,
     ""},
    {"error at the end", KIND(ERROR), CM_STAGE_MESSAGE, true,
     CM_INCIDENT_APPLIED, NO, ""},
    {"error at HELO", KIND(ERROR), CM_STAGE_HELO, true, CM_INCIDENT_APPLIED,
     UNKNOWN, ""},
    {"error not taken", KIND(ERROR), CM_STAGE_RCPT, true,
     CM_INCIDENT_UNAVAILABLE, UNKNOWN, ""},
    {"error in shadow", KIND(ERROR), CM_STAGE_RCPT, true, CM_INCIDENT_SHADOW,
     UNKNOWN, ""},
    {"greylist", KIND(GREYLIST), CM_STAGE_RCPT, true, CM_INCIDENT_APPLIED, NO,
     ""},
    {"latency at RCPT", KIND(LATENCY), CM_STAGE_RCPT, false,
     CM_INCIDENT_APPLIED, UNKNOWN, ""},
    {"latency at the end", KIND(LATENCY), CM_STAGE_MESSAGE, false,
     CM_INCIDENT_APPLIED, YES, ""},
    {"latency shed", KIND(LATENCY), CM_STAGE_MESSAGE, false, CM_INCIDENT_SHED,
     UNKNOWN, ""},
    {"blackhole", HOLE(false), CM_STAGE_MESSAGE, false, CM_INCIDENT_APPLIED,
     YES, ""},
    {"blackhole with webhooks", HOLE(true), CM_STAGE_MESSAGE, false,
     CM_INCIDENT_APPLIED, YES, "webhooks"},
    {"lost", DROP_OF(CM_DROP_RST, CM_DROP_LOST), CM_STAGE_MESSAGE, false,
     CM_INCIDENT_APPLIED, NO, "rst lost"},
    {"ack lost", DROP_OF(CM_DROP_FIN, CM_DROP_ACK_LOST), CM_STAGE_MESSAGE,
     false, CM_INCIDENT_APPLIED, YES, "fin ackLost"},
    {"drop not done", DROP_OF(CM_DROP_FIN, CM_DROP_LOST), CM_STAGE_MESSAGE,
     false, CM_INCIDENT_UNAVAILABLE, UNKNOWN, "fin lost"},
};

static void
test_incident_says_whether_the_mail_was_taken_over(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        const struct claim *claim = &claims[i];
        struct cm_incident in;
        struct cm_fate fate = {.rule = &rule,
                               .fault = &claim->fault,
                               .stage = claim->stage,
                               .reply =
                                   claim->refuses ? cm_reply_greylist() : NULL,
                               .recipient = "a@example.com",
                               .typed = "<a@example.com>"};
        mock_store_reset();
        cm_incident_make(&in, &session, &fate, NULL);
        cm_incident_close(&filter, &in, claim->outcome, NULL);
        assert_int_equal(mock_store.nincidents, 1);
        if (mock_store.incidents[0].committed != claim->committed)
            fail_msg("%s: committed %d", claim->name,
                     mock_store.incidents[0].committed);
        if (strcmp(mock_store.incidents[0].variant, claim->variant) != 0)
            fail_msg("%s: variant %s", claim->name,
                     mock_store.incidents[0].variant);
    }
    mock_store_reset();
}

static void
test_incident_parts_the_null_sender_from_an_unknown_one(void **state)
{
    struct cm_fault fault = KIND(ERROR);
    struct cm_fate fate = {.rule = &rule,
                           .fault = &fault,
                           .stage = CM_STAGE_RCPT,
                           .recipient = "",
                           .typed = "",
                           .occurrence = 7};
    struct cm_incident in;
    (void)state;
    session.msg.open = true;
    session.msg.sender_known = true;
    cm_incident_make(&in, &session, &fate, NULL);
    assert_string_equal(in.sender, "<>");
    assert_int_equal(in.probability_ppb, 300000000);
    assert_int_equal(in.occurrence, 7);
    session.msg.sender_known = false;
    cm_incident_make(&in, &session, &fate, NULL);
    assert_string_equal(in.sender, "");
    session.msg.open = false;
}

static void
test_entry_has_every_field_under_its_own_name(void **state)
{
    struct cm_incident in = {.outcome = CM_INCIDENT_SHED,
                             .committed = CM_COMMITTED_NO};
    struct cm_entry_texts texts;
    (void)state;
    cm_entry_print(&texts, &in, "host", 3);
    for (int i = 0; i < CM_ENTRY_FIELDS; i++) {
        assert_non_null(texts.at[i]);
        assert_non_null(cm_entry_field_name((enum cm_entry_field)i));
        for (int j = 0; j < i; j++)
            assert_string_not_equal(
                cm_entry_field_name((enum cm_entry_field)i),
                cm_entry_field_name((enum cm_entry_field)j));
    }
    assert_string_equal(texts.at[CM_ENTRY_N], "3");
    assert_string_equal(texts.at[CM_ENTRY_OUTCOME], "shed");
    assert_string_equal(texts.at[CM_ENTRY_COMMITTED], "no");
}

/* --- the tally --- */

static struct cm_tally tally;

static void
test_tally_counts_each_incident_by_kind_stage_and_outcome(void **state)
{
    static int64_t amounts[CM_TALLY_CELLS];
    struct cm_incident in = {.kind = CM_FAULT_LATENCY,
                             .stage = CM_STAGE_DATA,
                             .outcome = CM_INCIDENT_APPLIED,
                             .delay_measured_ms = 40};
    char name[CM_TALLY_NAME_BYTES];
    (void)state;
    assert_false(cm_tally_any(&tally));
    assert_false(cm_tally_take(&tally, amounts));
    cm_tally_incident(&tally, &in);
    in.outcome = CM_INCIDENT_SHED;
    cm_tally_incident(&tally, &in);
    cm_tally_incident(&tally, &in);
    cm_tally_count(&tally, CM_COUNT_MESSAGES, 5);
    assert_true(cm_tally_any(&tally));
    assert_true(cm_tally_take(&tally, amounts));
    assert_false(cm_tally_any(&tally));
    for (size_t i = 0; i < CM_TALLY_CELLS; i++) {
        int64_t expected = 0;
        cm_tally_name(i, name, sizeof name);
        if (strcmp(name, "chaos.events_total") == 0 ||
            strcmp(name, "faults.latency.data.applied") == 0)
            expected = 1;
        else if (strcmp(name, "chaos.latency_injected_ms") == 0)
            expected = 40;
        else if (strcmp(name, "faults.latency.data.shed") == 0)
            expected = 2;
        else if (strcmp(name, "email.received_total") == 0)
            expected = 5;
        if (amounts[i] != expected)
            fail_msg("%s: %lld", name, (long long)amounts[i]);
    }
}

static void
test_tally_name_reads_back(void **state)
{
    char name[CM_TALLY_NAME_BYTES], before[CM_TALLY_NAME_BYTES] = "";
    enum cm_fault_kind kind;
    enum cm_stage stage;
    enum cm_incident_outcome outcome;
    size_t faults = 0;
    (void)state;
    for (size_t i = 0; i < CM_TALLY_CELLS; i++) {
        cm_tally_name(i, name, sizeof name);
        assert_string_not_equal(name, before);
        strcpy(before, name);
        faults += cm_tally_parse_fault(name, &kind, &stage, &outcome);
    }
    assert_int_equal(faults, CM_TALLY_CELLS - CM_TALLY_TOTALS);
    assert_int_equal(kind, CM_FAULT_COUNT - 1);
    assert_int_equal(stage, CM_STAGE_COUNT - 1);
    assert_int_equal(outcome, CM_INCIDENT_SHED);
    static const char *const others[] = {"",
                                         "faults",
                                         "faults.error.rcpt",
                                         "faults.error.rcpt.applied.x",
                                         "faults.error.moon.applied",
                                         "faults.ERROR.rcpt.applied"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (cm_tally_parse_fault(others[i], &kind, &stage, &outcome))
            fail_msg("\"%s\" was taken", others[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_incident_says_whether_the_mail_was_taken_over),
        cmocka_unit_test(
            test_incident_parts_the_null_sender_from_an_unknown_one),
        cmocka_unit_test(test_entry_has_every_field_under_its_own_name),
        cmocka_unit_test(
            test_tally_counts_each_incident_by_kind_stage_and_outcome),
        cmocka_unit_test(test_tally_name_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
