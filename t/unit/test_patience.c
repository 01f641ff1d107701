/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/patience.h"
#include "milter/model/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void
test_patience_exceeded_table(void **state)
{
    static const struct {
        const char *name;
        enum cm_mta mta;
        enum cm_stage stage;
        int64_t delay_ms;
        const char *setting; /* in the reason; NULL: it can be done */
    } rows[] = {
        {"Postfix bears all", CM_MTA_POSTFIX, CM_STAGE_RCPT,
         CM_FAULT_LIMIT_MAX_MS, NULL},
        {"Postfix, message", CM_MTA_POSTFIX, CM_STAGE_MESSAGE,
         CM_FAULT_LIMIT_MAX_MS, NULL},
        {"Sendmail, just bearable", CM_MTA_SENDMAIL, CM_STAGE_RCPT, 9000, NULL},
        {"Sendmail, a little more", CM_MTA_SENDMAIL, CM_STAGE_RCPT, 9001,
         "10 s that the mail server waits for a reply: "
         "milter.sendmail_reply_timeout_s"},
        {"Sendmail, connect", CM_MTA_SENDMAIL, CM_STAGE_CONNECT, 9001,
         "sendmail_reply_timeout_s"},
        {"Sendmail, data", CM_MTA_SENDMAIL, CM_STAGE_DATA, 60000,
         "sendmail_reply_timeout_s"},
        {"Sendmail, message", CM_MTA_SENDMAIL, CM_STAGE_MESSAGE, 299000, NULL},
        {"Sendmail, long message", CM_MTA_SENDMAIL, CM_STAGE_MESSAGE, 299001,
         "300 s that the mail server waits after a message: "
         "milter.sendmail_message_timeout_s"},
        {"unknown, reply", CM_MTA_UNKNOWN, CM_STAGE_MAIL, 9001,
         "sendmail_reply_timeout_s"},
        {"unknown, message", CM_MTA_UNKNOWN, CM_STAGE_MESSAGE, 60000, NULL},
    };
    struct cm_patience patience;
    (void)state;
    cm_patience_init(&patience, 10, 300);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *why = cm_patience_exceeded(&patience, rows[i].mta,
                                               rows[i].stage, rows[i].delay_ms);
        if (rows[i].setting ? !why || !strstr(why, rows[i].setting) : !!why)
            fail_msg("%s: %s", rows[i].name, why ? why : "can be done");
    }
}

static void
test_patience_init_longest_values_fit_their_texts(void **state)
{
    struct cm_patience patience;
    (void)state;
    cm_patience_init(&patience, 86400, 86400);
    const char *why = cm_patience_exceeded(&patience, CM_MTA_SENDMAIL,
                                           CM_STAGE_MESSAGE, 86400000);
    assert_non_null(strstr(why, "86400 s"));
    assert_non_null(strstr(why, "milter.sendmail_message_timeout_s"));
}

static void
test_patience_renews_everywhere_on_postfix_else_after_the_message(void **state)
{
    (void)state;
    for (int mta = 0; mta < CM_MTA_COUNT; mta++) {
        for (int stage = 0; stage < CM_STAGE_COUNT; stage++)
            assert_int_equal(
                cm_patience_renews((enum cm_mta)mta, (enum cm_stage)stage),
                mta == CM_MTA_POSTFIX || stage == CM_STAGE_MESSAGE);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patience_exceeded_table),
        cmocka_unit_test(test_patience_init_longest_values_fit_their_texts),
        cmocka_unit_test(
            test_patience_renews_everywhere_on_postfix_else_after_the_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
