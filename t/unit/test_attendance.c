/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose command it is, and whose refusal: a ticket is good for one session and
 * once, whatever order things end in.
 */
#include "milter/filter/attendance.h"
#include "milter/filter/filter.h"
#include "milter/filter/ticket.h"
#include "milter/model/reply.h"
#include "t/unit/failing_alloc.h"
#include "t/unit/mock_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct cm_filter filter;
static struct cm_attendance *here;

static int
set_up(void **state)
{
    (void)state;
    memset(&filter, 0, sizeof filter);
    mock_store_reset();
    return cm_attendance_new(&here, NULL) == CM_OK ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    cm_attendance_free(&here);
    return 0;
}

static enum cm_status
enter(pid_t process, uint64_t session)
{
    struct cm_guest guest = {.process = process, .session = session};
    return cm_attendance_enter(here, &guest);
}

static void
must_enter(pid_t process, uint64_t session)
{
    assert_int_equal(enter(process, session), CM_OK);
}

static struct cm_ticket *
new_ticket(void)
{
    const struct cm_incident incident = {.kind = CM_FAULT_ERROR,
                                         .stage = CM_STAGE_AUTH,
                                         .detail = "PLAIN",
                                         .reply = "535 5.7.8 no"};
    struct cm_ticket *ticket = NULL;
    assert_int_equal(
        cm_ticket_new(&ticket, NULL, cm_reply_greylist(), &incident), CM_OK);
    return ticket;
}

static void
test_nobody_is_met_who_did_not_enter_or_left(void **state)
{
    struct cm_guest guest;
    struct cm_ticket *left = NULL;
    (void)state;
    assert_false(cm_attendance_meet(here, 100, &guest, &left));
    must_enter(100, 1);
    assert_false(cm_attendance_meet(here, 101, &guest, &left));
    /* another process in the same list */
    assert_false(cm_attendance_meet(here, 100 + 1024, &guest, &left));
    assert_true(cm_attendance_meet(here, 100, &guest, &left));
    assert_int_equal(guest.session, 1);
    assert_null(left);
    assert_null(cm_attendance_leave(here, 100, 2)); /* another session */
    assert_true(cm_attendance_meet(here, 100, &guest, &left));
    assert_null(cm_attendance_leave(here, 100, 1));
    assert_false(cm_attendance_meet(here, 100, &guest, &left));
}

static void
test_a_process_that_is_not_known_cannot_enter(void **state)
{
    (void)state;
    assert_int_equal(enter(0, 1), CM_EINVAL);
    assert_int_equal(enter(-1, 1), CM_EINVAL);
}

static void
test_of_two_sessions_of_a_process_the_newer_counts(void **state)
{
    struct cm_guest guest;
    struct cm_ticket *left;
    (void)state;
    must_enter(100, 1);
    must_enter(100, 2);
    assert_true(cm_attendance_meet(here, 100, &guest, &left));
    assert_int_equal(guest.session, 2);
    assert_true(cm_attendance_is_met(here, 100, 2));
    assert_false(cm_attendance_is_met(here, 100, 1));
    assert_null(cm_attendance_leave(here, 100, 1)); /* its end comes late */
    assert_true(cm_attendance_meet(here, 100, &guest, &left));
    assert_int_equal(guest.session, 2);
}

static void
test_a_session_that_begins_anew_has_the_new_client(void **state)
{
    struct cm_guest guest = {.process = 100, .session = 1}, met;
    struct cm_ticket *left;
    (void)state;
    assert_int_equal(cm_attendance_enter(here, &guest), CM_OK);
    guest.client.family = 2;
    assert_int_equal(cm_attendance_enter(here, &guest), CM_OK);
    assert_true(cm_attendance_meet(here, 100, &met, &left));
    assert_int_equal(met.client.family, 2);
    assert_null(cm_attendance_leave(here, 100, 1));
    assert_false(cm_attendance_meet(here, 100, &met, &left));
}

static void
test_a_ticket_is_redeemed_once_by_its_session_with_its_word(void **state)
{
    struct cm_ticket *ticket = new_ticket(), *got;
    char word[CM_TICKET_WORD_BYTES], other[CM_TICKET_WORD_BYTES];
    (void)state;
    memcpy(word, ticket->word, sizeof word);
    memcpy(other, word, sizeof other);
    other[sizeof other - 2] ^= 1;
    must_enter(100, 1);
    must_enter(200, 2);
    assert_true(cm_attendance_issue(here, 100, 1, ticket));
    assert_null(cm_attendance_redeem(here, 200, 2, word));
    assert_null(cm_attendance_redeem(here, 100, 2, word));
    assert_null(cm_attendance_redeem(here, 100, 1, other));
    assert_null(cm_attendance_redeem(here, 100, 1, ""));
    got = cm_attendance_redeem(here, 100, 1, word);
    assert_ptr_equal(got, ticket);
    assert_null(cm_attendance_redeem(here, 100, 1, word));
    cm_ticket_free(&got);
}

static void
test_words_are_not_alike(void **state)
{
    struct cm_ticket *a = new_ticket(), *b = new_ticket();
    (void)state;
    assert_int_equal(strlen(a->word), 39);
    assert_memory_equal(a->word, "XCHAOS-", 7);
    assert_string_not_equal(a->word, b->word);
    cm_ticket_free(&a);
    cm_ticket_free(&b);
}

static void
test_a_ticket_out_of_date_is_not_redeemed(void **state)
{
    struct cm_ticket *ticket = new_ticket(), *left = NULL;
    struct cm_guest guest;
    (void)state;
    must_enter(100, 1);
    ticket->issued_ms -= CM_TICKET_LIFE_MS + 1;
    assert_true(cm_attendance_issue(here, 100, 1, ticket));
    assert_null(cm_attendance_redeem(here, 100, 1, ticket->word));
    assert_true(cm_attendance_meet(here, 100, &guest, &left));
    assert_ptr_equal(left, ticket);
    cm_ticket_free(&left);
}

static void
test_a_ticket_left_over_is_handed_back_and_recorded(void **state)
{
    struct cm_ticket *left = NULL;
    struct cm_guest guest;
    (void)state;
    must_enter(100, 1);
    assert_true(cm_attendance_issue(here, 100, 1, new_ticket()));
    struct cm_ticket *second = new_ticket();
    assert_false(cm_attendance_issue(here, 100, 1, second));
    assert_true(cm_attendance_meet(here, 100, &guest, &left));
    assert_non_null(left);
    cm_ticket_void(&filter, &left, "nobody came");
    assert_null(left);
    assert_int_equal(mock_store.nincidents, 1);
    assert_int_equal(mock_store.incidents[0].outcome, CM_INCIDENT_UNAVAILABLE);
    assert_string_equal(mock_store.incidents[0].detail, "nobody came");
    assert_string_equal(mock_store.incidents[0].reply, "");
    assert_true(cm_attendance_issue(here, 100, 1, second));
    left = cm_attendance_leave(here, 100, 1);
    assert_ptr_equal(left, second);
    cm_ticket_free(&left);
    cm_ticket_void(&filter, &left, "nothing to record");
    assert_int_equal(mock_store.nincidents, 1);
}

static void
test_no_ticket_for_a_session_that_has_ended(void **state)
{
    struct cm_ticket *ticket = new_ticket();
    (void)state;
    assert_false(cm_attendance_issue(here, 100, 1, ticket));
    cm_ticket_free(&ticket);
}

static void
test_without_memory_nothing_is_entered(void **state)
{
    struct cm_guest guest;
    struct cm_ticket *left;
    (void)state;
    failing_alloc_arm(1);
    assert_int_equal(enter(100, 1), CM_ENOMEM);
    assert_true(failing_alloc_disarm());
    assert_false(cm_attendance_meet(here, 100, &guest, &left));
}

/* Sessions that come and go while the hook asks, as it does in earnest. */
static void *
come_and_go(void *arg)
{
    uint64_t base = *(const uint64_t *)arg;
    for (uint64_t i = 0; i < 2000; i++) {
        must_enter(100, base + i);
        struct cm_ticket *left = cm_attendance_leave(here, 100, base + i);
        cm_ticket_free(&left);
    }
    return NULL;
}

static void
test_sessions_end_while_the_hook_asks(void **state)
{
    pthread_t threads[2];
    uint64_t bases[] = {1000000, 2000000};
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, come_and_go, &bases[i]), 0);
    for (int i = 0; i < 4000; i++) {
        struct cm_guest guest;
        struct cm_ticket *left = NULL;
        if (!cm_attendance_meet(here, 100, &guest, &left))
            continue;
        cm_ticket_free(&left);
        struct cm_ticket *ticket = new_ticket();
        if (!cm_attendance_issue(here, 100, guest.session, ticket))
            cm_ticket_free(&ticket);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_met_who_did_not_enter_or_left),
        cmocka_unit_test(test_a_process_that_is_not_known_cannot_enter),
        cmocka_unit_test(test_of_two_sessions_of_a_process_the_newer_counts),
        cmocka_unit_test(test_a_session_that_begins_anew_has_the_new_client),
        cmocka_unit_test(
            test_a_ticket_is_redeemed_once_by_its_session_with_its_word),
        cmocka_unit_test(test_words_are_not_alike),
        cmocka_unit_test(test_a_ticket_out_of_date_is_not_redeemed),
        cmocka_unit_test(test_a_ticket_left_over_is_handed_back_and_recorded),
        cmocka_unit_test(test_no_ticket_for_a_session_that_has_ended),
        cmocka_unit_test(test_without_memory_nothing_is_entered),
        cmocka_unit_test(test_sessions_end_while_the_hook_asks),
    };
    struct CMUnitTest each[sizeof tests / sizeof tests[0]];
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        each[i] = tests[i];
        each[i].setup_func = set_up;
        each[i].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(each, NULL, NULL);
}
