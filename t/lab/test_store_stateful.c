/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The faults that remember, in a real Redis: each count exact, also when eight
 * threads or a hundred ask at once, its key read back by name, its life by
 * PTTL. Covers M28 of the list of cases (greylisting in parallel).
 */
#include "milter/clock.h"
#include "milter/store/redis.h"
#include "milter/store/stateful.h"
#include "t/lab/redis_server.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static struct redis_server server;
static struct cm_pool *pool;
static struct cm_stateful *stateful;

static int
start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&server);
    struct cm_link_opts opts = redis_server_opts(&server);
    assert_int_equal(cm_pool_new(&pool, &opts, 16, NULL), CM_OK);
    assert_int_equal(cm_stateful_new(&stateful, pool, "{cm}", 1000, NULL),
                     CM_OK);
    return 0;
}

static int
end_server(void **state)
{
    (void)state;
    cm_stateful_free(&stateful);
    cm_pool_free(&pool);
    redis_server_end(&server);
    return 0;
}

static int
flush(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    return 0;
}

/* --- greylisting, occurrences, hits --- */

static void
expect_grey(const struct cm_fault_greylist *config, const char *inbox,
            const char *sender, const char *client, bool refused,
            int64_t attempt)
{
    bool refused_r = !refused;
    int64_t attempt_r = -1;
    struct cm_err err = {CM_OK, ""};
    if (cm_stateful_greylist(stateful, config, inbox, sender, client,
                             &refused_r, &attempt_r, &err) != CM_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(refused_r, refused);
    assert_int_equal(attempt_r, attempt);
}

static void
test_greylist_counts_attempts(void **state)
{
    struct cm_fault_greylist two = {
        .window_ms = 300000, .max_attempts = 2, .track = CM_TRACK_IP_SENDER};
    struct cm_fault_greylist one = two, four = two;
    (void)state;
    expect_grey(&two, "i@x", "s@y", "192.0.2.1", true, 1);
    expect_grey(&two, "I@x", "S@y", "192.0.2.1", false, 2); /* without case */
    expect_grey(&two, "i@x", "s@y", "192.0.2.1", true, 1);  /* removed */
    one.max_attempts = 1;
    for (int i = 0; i < 3; i++)
        expect_grey(&one, "one@x", "s@y", "192.0.2.1", false, 1);
    four.max_attempts = 4;
    expect_grey(&four, "four@x", "", "192.0.2.1", true, 1); /* <> */
    expect_grey(&four, "four@x", "", "192.0.2.1", true, 2);
    expect_grey(&four, "four@x", "", "192.0.2.1", true, 3);
    expect_grey(&four, "four@x", "", "192.0.2.1", false, 4);
    /* Lowering maxAttempts between attempts lets the next one pass. */
    expect_grey(&four, "low@x", "s@y", "192.0.2.1", true, 1);
    expect_grey(&four, "low@x", "s@y", "192.0.2.1", true, 2);
    expect_grey(&two, "low@x", "s@y", "192.0.2.1", false, 3);
}

static void
test_greylist_tracks_what_it_is_told(void **state)
{
    struct cm_fault_greylist config = {.window_ms = 300000, .max_attempts = 2};
    (void)state;
    config.track = CM_TRACK_IP;
    expect_grey(&config, "i@x", "s1@y", "192.0.2.1", true, 1);
    expect_grey(&config, "i@x", "s2@y", "192.0.2.2", true, 1);
    expect_grey(&config, "i@x", "s3@y", "192.0.2.1", false, 2);
    config.track = CM_TRACK_SENDER;
    expect_grey(&config, "i@x", "s1@y", "192.0.2.1", true, 1);
    expect_grey(&config, "i@x", "s2@y", "192.0.2.1", true, 1);
    expect_grey(&config, "i@x", "s1@y", "192.0.2.3", false, 2);
    config.track = CM_TRACK_IP_SENDER;
    expect_grey(&config, "i@x", "s1@y", "192.0.2.1", true, 1);
    expect_grey(&config, "i@x", "s1@y", "192.0.2.2", true, 1);
    expect_grey(&config, "j@x", "s1@y", "192.0.2.1", true, 1);
    expect_grey(&config, "i@x", "s1@y", "192.0.2.1", false, 2);
}

static void
test_greylist_window_and_delay(void **state)
{
    struct cm_fault_greylist brief = {
        .window_ms = 150, .max_attempts = 2, .track = CM_TRACK_IP_SENDER};
    struct cm_fault_greylist none = brief, slow = brief;
    (void)state;
    expect_grey(&brief, "w@x", "s@y", "192.0.2.1", true, 1);
    usleep(200000);
    expect_grey(&brief, "w@x", "s@y", "192.0.2.1", true, 1); /* a new window */
    expect_grey(&brief, "w@x", "s@y", "192.0.2.1", false, 2);
    none.window_ms = 0; /* nothing is ever within it */
    expect_grey(&none, "z@x", "s@y", "192.0.2.1", true, 1);
    usleep(3000);
    expect_grey(&none, "z@x", "s@y", "192.0.2.1", true, 1);
    slow.window_ms = 60000;
    slow.min_delay_ms = 100;
    expect_grey(&slow, "d@x", "s@y", "192.0.2.1", true, 1);
    expect_grey(&slow, "d@x", "s@y", "192.0.2.1", true, 2); /* too soon */
    usleep(120000);
    expect_grey(&slow, "d@x", "s@y", "192.0.2.1", false, 3);
    /* A window beyond ten minutes holds, and nothing outlives it. */
    struct cm_fault_greylist year = brief;
    year.window_ms = CM_FAULT_WINDOW_MAX_MS;
    expect_grey(&year, "y@x", "s@y", "192.0.2.1", true, 1);
    long long ttl =
        redis_say(&server, "PTTL", "{cm}:st:grey:y@x\t192.0.2.1\ts@y", NULL)
            ->integer;
    assert_true(ttl > CM_FAULT_WINDOW_MAX_MS - 5000 &&
                ttl <= CM_FAULT_WINDOW_MAX_MS + 1);
}

#define CALLS 100
static atomic_int seen[CALLS + 1];

static void *
one_call(void *arg)
{
    const struct cm_fault_greylist *config = arg;
    bool refused;
    int64_t attempt;
    if (cm_stateful_greylist(stateful, config, "p@x", "s@y", "192.0.2.1",
                             &refused, &attempt, NULL) == CM_OK &&
        attempt >= 1 && attempt <= CALLS && refused == (attempt < CALLS))
        atomic_fetch_add(&seen[attempt], 1);
    return NULL;
}

static void
test_greylist_parallel_attempts_are_exact(void **state)
{
    struct cm_fault_greylist config = {.window_ms = 300000,
                                       .max_attempts = CALLS,
                                       .track = CM_TRACK_IP_SENDER};
    pthread_t threads[CALLS];
    (void)state;
    for (int i = 0; i < CALLS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_call, &config),
                         0);
    for (int i = 0; i < CALLS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 1; i <= CALLS; i++)
        assert_int_equal(seen[i], 1);
}

static void
test_occurrence_and_hits(void **state)
{
    int64_t n = 0;
    bool allowed = false;
    (void)state;
    for (int64_t i = 1; i <= 3; i++) {
        assert_int_equal(
            cm_stateful_occurrence(stateful, "r1", "s@y", "i@x", &n, NULL),
            CM_OK);
        assert_int_equal(n, i);
    }
    assert_int_equal(
        cm_stateful_occurrence(stateful, "r1", "s@y", "j@x", &n, NULL), CM_OK);
    assert_int_equal(n, 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cm_stateful_hit(stateful, "r1", 3, &allowed, NULL),
                         CM_OK);
        assert_int_equal(allowed, i < 3);
    }
    assert_string_equal(redis_say(&server, "GET", "{cm}:st:hits:r1", NULL)->str,
                        "3");
    assert_true(
        redis_say(&server, "PTTL", "{cm}:st:occ:r1\ts@y\ti@x", NULL)->integer >
        86300000);
}

/* --- throttle --- */

#define SLOW 1e-6 /* a token in eleven days: none comes while a test runs */

static bool
is_empty(const char *rule, const struct cm_fault_throttle *config,
         const char *whose)
{
    struct cm_err err = {CM_OK, ""};
    bool empty = false;
    if (cm_stateful_throttle(stateful, rule, config, whose, &empty, &err) !=
        CM_OK)
        fail_msg("%s", err.msg);
    return empty;
}

static void
test_throttle_lets_the_burst_through(void **state)
{
    struct cm_fault_throttle three = {.rate = SLOW, .burst = 3};
    (void)state;
    for (int i = 0; i < 6; i++)
        assert_int_equal(is_empty("r1", &three, "i@x"), i >= 3);
}

static void
test_throttle_refills_by_its_rate(void **state)
{
    struct cm_fault_throttle ten = {.rate = 10, .burst = 2};
    (void)state;
    assert_false(is_empty("r1", &ten, "i@x"));
    assert_false(is_empty("r1", &ten, "i@x"));
    int64_t start = cm_clock_mono_ms();
    WAIT_UNTIL(!is_empty("r1", &ten, "i@x"), 5000);
    /* Not sooner than due, and asking in vain all the time did not put it off.
     */
    int64_t took = cm_clock_mono_ms() - start;
    if (took < 95)
        fail_msg("a token after %lld ms", (long long)took);
    usleep(500000); /* more than two tokens: the rest runs over */
    assert_false(is_empty("r1", &ten, "i@x"));
    assert_false(is_empty("r1", &ten, "i@x"));
    assert_true(is_empty("r1", &ten, "i@x"));
}

static void
test_throttle_buckets_are_apart(void **state)
{
    struct cm_fault_throttle one = {.rate = SLOW, .burst = 1};
    static const enum cm_throttle_per pers[] = {
        CM_THROTTLE_INBOX, CM_THROTTLE_DOMAIN, CM_THROTTLE_SENDER,
        CM_THROTTLE_CLIENT};
    static const char *const keys[] = {
        "{cm}:st:throttle-inbox:r1\ti@x", "{cm}:st:throttle-domain:r1\ti@x",
        "{cm}:st:throttle-sender:r1\ti@x", "{cm}:st:throttle-client:r1\ti@x"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        one.per = pers[i];
        assert_false(is_empty("r1", &one, "i@x"));
        assert_true(is_empty("r1", &one, "i@x"));
        assert_int_equal(redis_say(&server, "EXISTS", keys[i], NULL)->integer,
                         1);
    }
    assert_false(is_empty("r1", &one, "j@x"));
    assert_false(is_empty("r2", &one, "i@x"));
    one.per = CM_THROTTLE_SENDER;
    assert_false(is_empty("r1", &one, "")); /* <> */
    assert_true(is_empty("r1", &one, ""));
}

static long long
pttl(const char *key)
{
    return redis_say(&server, "PTTL", key, NULL)->integer;
}

static void
test_throttle_full_bucket_is_forgotten(void **state)
{
    struct cm_fault_throttle half = {.rate = 0.5, .burst = 10};
    struct cm_fault_throttle quick = {.rate = 20, .burst = 2};
    static const char key[] = "{cm}:st:throttle-inbox:r1\ti@x";
    (void)state;
    for (int i = 1; i <= 3; i++) {
        assert_false(is_empty("r1", &half, "i@x"));
        long long left = pttl(key);
        assert_true(left > i * 2000 - 500 && left <= i * 2000);
    }
    assert_false(is_empty("r2", &quick, "i@x"));
    WAIT_UNTIL(
        redis_say(&server, "EXISTS", "{cm}:st:throttle-inbox:r2\ti@x", NULL)
                ->integer == 0,
        3000);
}

static void
test_throttle_takes_any_rate(void **state)
{
    static const double rates[] = {5e-324, 1e-300, 1e-9, 1.0 / 3, 1e6};
    (void)state;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct cm_fault_throttle config = {.rate = rates[i],
                                           .burst = 1000000000};
        char rule[8], key[64];
        snprintf(rule, sizeof rule, "r%zu", i);
        snprintf(key, sizeof key, "{cm}:st:throttle-inbox:%s\ti@x", rule);
        assert_false(is_empty(rule, &config, "i@x"));
        assert_false(is_empty(rule, &config, "i@x"));
        long long left = pttl(key); /* at 1e6 it may be full again already */
        assert_true(left <= 3155760000000 && (left > 0 || rates[i] == 1e6));
    }
}

static void
test_throttle_survives_a_clock_set_back(void **state)
{
    struct cm_fault_throttle ten = {.rate = 10, .burst = 1};
    static const char key[] = "{cm}:st:throttle-inbox:r1\ti@x";
    (void)state;
    /* Emptied an hour from now: neither full at once nor empty for an hour. */
    redis_say(
        &server, "EVAL",
        "redis.call('HSET', KEYS[1], 'tokens', 0, 'time',\n"
        "    string.format('%.0f', (redis.call('TIME')[1] + 3600) * 1e6))",
        "1", key, NULL);
    assert_true(is_empty("r1", &ten, "i@x"));
    WAIT_UNTIL(!is_empty("r1", &ten, "i@x"), 3000);
}

static void
test_throttle_follows_its_rule(void **state)
{
    struct cm_fault_throttle config = {.rate = SLOW, .burst = 10};
    (void)state;
    assert_false(is_empty("r1", &config, "i@x"));
    config.burst = 2; /* what is above the rim is gone */
    assert_false(is_empty("r1", &config, "i@x"));
    assert_false(is_empty("r1", &config, "i@x"));
    assert_true(is_empty("r1", &config, "i@x"));
    config.burst = 10; /* a larger bucket is not a fuller one */
    assert_true(is_empty("r1", &config, "i@x"));
    config.rate = 1000;
    WAIT_UNTIL(!is_empty("r1", &config, "i@x"), 3000);
}

/* --- eight threads at once --- */

enum { THREADS = 8, ROUNDS = 250, BURST = 700 };

static atomic_int taken, failures;
static atomic_int numbers[THREADS * ROUNDS + 1];

static void
run_threads(void *(*work)(void *))
{
    pthread_t threads[THREADS];
    atomic_store(&taken, 0);
    atomic_store(&failures, 0);
    memset(numbers, 0, sizeof numbers);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
}

static void
note_number(enum cm_status st, int64_t n)
{
    if (st == CM_OK && n >= 1 && n <= THREADS * ROUNDS)
        atomic_fetch_add(&numbers[n], 1);
    else
        atomic_fetch_add(&failures, 1);
}

static void
expect_each_number_once(void)
{
    assert_int_equal(numbers[0], 0);
    for (int i = 1; i <= THREADS * ROUNDS; i++)
        assert_int_equal(numbers[i], 1);
}

static void *
take_tokens(void *arg)
{
    static const struct cm_fault_throttle config = {.rate = SLOW,
                                                    .burst = BURST};
    for (int i = 0; i < ROUNDS; i++) {
        bool empty = true;
        if (cm_stateful_throttle(stateful, "r1", &config, "i@x", &empty,
                                 NULL) != CM_OK)
            atomic_fetch_add(&failures, 1);
        else if (!empty)
            atomic_fetch_add(&taken, 1);
    }
    return arg;
}

static void
test_throttle_parallel_tokens_are_exact(void **state)
{
    (void)state;
    run_threads(take_tokens);
    assert_int_equal(taken, BURST);
}

/* What eight threads get out of a bucket that refills meanwhile is what it
 * gained: not a token more, and none is lost. It is large enough not to run
 * over while the threads are kept waiting. */
static const struct cm_fault_throttle flowing = {.rate = 500, .burst = 2000};

static void *
take_all_for_a_second(void *arg)
{
    int64_t until = cm_clock_mono_ms() + 1000;
    while (cm_clock_mono_ms() < until) {
        bool empty = true;
        if (cm_stateful_throttle(stateful, "r1", &flowing, "i@x", &empty,
                                 NULL) != CM_OK)
            atomic_fetch_add(&failures, 1);
        else if (!empty)
            atomic_fetch_add(&taken, 1);
    }
    return arg;
}

/* Takes what is left; the bucket was seen empty between *from and *to. */
static int
drain(int64_t *from, int64_t *to)
{
    int n = 0;
    for (*from = cm_clock_mono_ms(); !is_empty("r1", &flowing, "i@x");
         *from = cm_clock_mono_ms())
        n++;
    *to = cm_clock_mono_ms();
    return n;
}

static void
test_throttle_parallel_refill_is_exact(void **state)
{
    int64_t first_from, first_to, last_from, last_to;
    (void)state;
    assert_true(drain(&first_from, &first_to) >= 2000);
    run_threads(take_all_for_a_second);
    int got = taken + drain(&last_from, &last_to);
    /* Less than one token was there at either end; the clock is read to the
     * millisecond. */
    double least = 0.5 * (double)(last_from - first_to - 1) - 1;
    double most = 0.5 * (double)(last_to - first_from + 1) + 1;
    if (got < least || got > most)
        fail_msg("%d tokens, not %.1f to %.1f", got, least, most);
}

/* --- sequence --- */

static int64_t
sequence(const char *rule, const struct cm_fault_sequence *config,
         const char *client, const char *sender, const char *recipient)
{
    struct cm_err err = {CM_OK, ""};
    int64_t n = 0;
    if (cm_stateful_sequence(stateful, rule, config, client, sender, recipient,
                             &n, &err) != CM_OK)
        fail_msg("%s", err.msg);
    return n;
}

static void
test_sequence_counts_by_its_key(void **state)
{
    static const struct {
        const char *name;
        unsigned key;
        const char *redis;
        int64_t other_client, other_sender, other_recipient;
    } keys[] = {
        {"all", CM_KEY_CLIENT | CM_KEY_SENDER | CM_KEY_RECIPIENT,
         "{cm}:st:seq-client-sender-recipient:r1\tc1\ts1\ti1", 1, 1, 1},
        {"client", CM_KEY_CLIENT, "{cm}:st:seq-client:r1\tc1", 1, 3, 4},
        {"sender", CM_KEY_SENDER, "{cm}:st:seq-sender:r1\ts1", 3, 1, 4},
        {"recipient", CM_KEY_RECIPIENT, "{cm}:st:seq-recipient:r1\ti1", 3, 4,
         1},
        {"client and recipient", CM_KEY_CLIENT | CM_KEY_RECIPIENT,
         "{cm}:st:seq-client-recipient:r1\tc1\ti1", 1, 3, 1},
        {"client and sender", CM_KEY_CLIENT | CM_KEY_SENDER,
         "{cm}:st:seq-client-sender:r1\tc1\ts1", 1, 1, 3},
    };
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct cm_fault_sequence config = {.key = keys[i].key, .ttl_ms = 60000};
        flush(NULL);
        assert_int_equal(sequence("r1", &config, "c1", "s1", "i1"), 1);
        assert_int_equal(sequence("r1", &config, "c1", "s1", "i1"), 2);
        int64_t client = sequence("r1", &config, "c2", "s1", "i1");
        int64_t sender = sequence("r1", &config, "c1", "s2", "i1");
        int64_t recipient = sequence("r1", &config, "c1", "s1", "i2");
        long long left = pttl(keys[i].redis);
        if (client != keys[i].other_client || sender != keys[i].other_sender ||
            recipient != keys[i].other_recipient || left <= 0 || left > 60000)
            fail_msg("%s: %lld %lld %lld, %lld ms left", keys[i].name,
                     (long long)client, (long long)sender, (long long)recipient,
                     left);
        assert_int_equal(sequence("r2", &config, "c1", "s1", "i1"), 1);
    }
}

static void
test_sequence_forgets_after_its_ttl(void **state)
{
    struct cm_fault_sequence brief = {.key = CM_KEY_SENDER, .ttl_ms = 1000};
    (void)state;
    assert_int_equal(sequence("r1", &brief, NULL, "s1", NULL), 1);
    usleep(600000);
    assert_int_equal(sequence("r1", &brief, NULL, "s1", NULL), 2);
    usleep(600000); /* later than the ttl after the first, not the last */
    assert_int_equal(sequence("r1", &brief, NULL, "s1", NULL), 3);
    usleep(1100000);
    assert_int_equal(sequence("r1", &brief, NULL, "s1", NULL), 1);
}

static void *
count_sequence(void *arg)
{
    static const struct cm_fault_sequence config = {.key = CM_KEY_CLIENT,
                                                    .ttl_ms = 60000};
    for (int i = 0; i < ROUNDS; i++) {
        int64_t n = 0;
        enum cm_status st = cm_stateful_sequence(stateful, "r1", &config, "c1",
                                                 NULL, NULL, &n, NULL);
        note_number(st, n);
    }
    return arg;
}

static void
test_sequence_parallel_attempts_are_exact(void **state)
{
    (void)state;
    run_threads(count_sequence);
    expect_each_number_once();
}

/* --- attempts --- */

static int64_t
attempt_of(const char *client, const char *sender, const char *recipient)
{
    struct cm_err err = {CM_OK, ""};
    int64_t n = 0;
    if (cm_stateful_attempt(stateful, client, sender, recipient, &n, &err) !=
        CM_OK)
        fail_msg("%s", err.msg);
    return n;
}

static void
test_attempt_counts_until_done(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= 3; i++)
        assert_int_equal(attempt_of("192.0.2.1", "s@y", "i@x"), i);
    assert_int_equal(attempt_of("192.0.2.2", "s@y", "i@x"), 1);
    assert_int_equal(attempt_of("192.0.2.1", "", "i@x"), 1);
    assert_int_equal(attempt_of("192.0.2.1", "s@y", "j@x"), 1);
    long long left = pttl("{cm}:st:attempt:192.0.2.1\ts@y\ti@x");
    assert_true(left > 86300000 && left <= 86400000);

    assert_int_equal(
        cm_stateful_attempt_done(stateful, "192.0.2.1", "s@y", "i@x", NULL),
        CM_OK);
    assert_int_equal(attempt_of("192.0.2.1", "s@y", "i@x"), 1);
    assert_int_equal(attempt_of("192.0.2.1", "s@y", "j@x"), 2); /* untouched */
    /* Nothing to forget is no failure. */
    assert_int_equal(
        cm_stateful_attempt_done(stateful, "::1", "s@y", "i@x", NULL), CM_OK);
}

static void *
count_attempts(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        int64_t n = 0;
        enum cm_status st =
            cm_stateful_attempt(stateful, "c1", "s@y", "i@x", &n, NULL);
        note_number(st, n);
    }
    return arg;
}

static void
test_attempt_parallel_is_exact(void **state)
{
    (void)state;
    run_threads(count_attempts);
    expect_each_number_once();
}

/* --- all of them --- */

/* Ids are compared as they are written, so each rule has a state of its own. */
static void
test_rule_names_differ_by_case(void **state)
{
    struct cm_fault_throttle one = {.rate = SLOW, .burst = 1};
    struct cm_fault_sequence steps = {.key = CM_KEY_CLIENT, .ttl_ms = 60000};
    bool allowed = false;
    int64_t n = 0;
    (void)state;
    assert_false(is_empty("r1", &one, "i@x"));
    assert_false(is_empty("R1", &one, "i@x"));
    assert_int_equal(sequence("r1", &steps, "c1", NULL, NULL), 1);
    assert_int_equal(sequence("R1", &steps, "c1", NULL, NULL), 1);
    for (const char *const *rule = (const char *const[]){"r1", "R1", NULL};
         *rule; rule++) {
        assert_int_equal(
            cm_stateful_occurrence(stateful, *rule, "s@y", "i@x", &n, NULL),
            CM_OK);
        assert_int_equal(n, 1);
        assert_int_equal(cm_stateful_hit(stateful, *rule, 1, &allowed, NULL),
                         CM_OK);
        assert_true(allowed);
    }
}

static void
test_state_of_another_kind_is_no_verdict(void **state)
{
    struct cm_fault_greylist grey = {.window_ms = 1000, .max_attempts = 2};
    struct cm_fault_throttle one = {.rate = SLOW, .burst = 1};
    struct cm_fault_sequence steps = {.key = CM_KEY_CLIENT, .ttl_ms = 60000};
    bool yes = false;
    int64_t n = 0;
    (void)state;
    redis_say(&server, "SET", "{cm}:st:grey-ip:i@x\tc1", "junk", NULL);
    redis_say(&server, "SET", "{cm}:st:throttle-inbox:r1\ti@x", "junk", NULL);
    redis_say(&server, "SET", "{cm}:st:seq-client:r1\tc1", "junk", NULL);
    redis_say(&server, "SET", "{cm}:st:attempt:c1\ts@y\ti@x", "junk", NULL);
    assert_int_equal(cm_stateful_greylist(stateful, &grey, "i@x", "s@y", "c1",
                                          &yes, &n, NULL),
                     CM_EPROTO);
    assert_int_equal(
        cm_stateful_throttle(stateful, "r1", &one, "i@x", &yes, NULL),
        CM_EPROTO);
    assert_int_equal(cm_stateful_sequence(stateful, "r1", &steps, "c1", NULL,
                                          NULL, &n, NULL),
                     CM_EPROTO);
    assert_int_equal(
        cm_stateful_attempt(stateful, "c1", "s@y", "i@x", &n, NULL), CM_EPROTO);
    assert_false(yes);
    assert_int_equal(n, 0);
    /* Forgetting mends it. */
    assert_int_equal(
        cm_stateful_attempt_done(stateful, "c1", "s@y", "i@x", NULL), CM_OK);
    assert_int_equal(attempt_of("c1", "s@y", "i@x"), 1);
}

/* Each question, by number; *yes and *n must stay as they are when it fails. */
static enum cm_status
ask(int question, bool *yes, int64_t *n)
{
    static const struct cm_fault_greylist grey = {.window_ms = 1000,
                                                  .max_attempts = 2};
    static const struct cm_fault_throttle one = {.rate = SLOW, .burst = 1};
    static const struct cm_fault_sequence steps = {.key = CM_KEY_CLIENT,
                                                   .ttl_ms = 60000};
    switch (question) {
    case 0:
        return cm_stateful_greylist(stateful, &grey, "j@x", "s@y", "c1", yes, n,
                                    NULL);
    case 1:
        return cm_stateful_occurrence(stateful, "r1", "s@y", "j@x", n, NULL);
    case 2:
        return cm_stateful_hit(stateful, "r1", 9, yes, NULL);
    case 3:
        return cm_stateful_throttle(stateful, "r1", &one, "j@x", yes, NULL);
    case 4:
        return cm_stateful_sequence(stateful, "r1", &steps, "c1", NULL, NULL, n,
                                    NULL);
    case 5:
        return cm_stateful_attempt(stateful, "c1", "s@y", "j@x", n, NULL);
    default:
        return cm_stateful_attempt_done(stateful, "c1", "s@y", "j@x", NULL);
    }
}
#define QUESTIONS 7

static void
test_without_memory_is_no_verdict(void **state)
{
    (void)state;
    for (int question = 0; question < QUESTIONS; question++) {
        enum cm_status status = CM_ENOMEM;
        long n = 1;
        for (; status != CM_OK; n++) {
            bool yes = false;
            int64_t number = -7;
            failing_alloc_arm(n);
            status = ask(question, &yes, &number);
            bool failed = failing_alloc_disarm();
            if (status != (failed ? CM_ENOMEM : CM_OK))
                fail_msg("question %d, call %ld: %s", question, n,
                         cm_status_name(status));
            if (failed) {
                assert_false(yes);
                assert_int_equal(number, -7);
            }
        }
        assert_true(n > 2);
    }
    struct cm_stateful *none = NULL;
    failing_alloc_arm(1);
    assert_int_equal(cm_stateful_new(&none, pool, "{cm}", 1000, NULL),
                     CM_ENOMEM);
    assert_true(failing_alloc_disarm());
    assert_null(none);
}

/* A key beyond its ceiling is refused, not cut: two mails would share it. */
static void
test_key_too_long_is_no_verdict(void **state)
{
    struct cm_fault_throttle one = {.rate = SLOW, .burst = 1};
    char longest[4096];
    bool empty = false;
    (void)state;
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(
        cm_stateful_throttle(stateful, "r1", &one, longest, &empty, NULL),
        CM_EINVAL);
    assert_int_equal(redis_say(&server, "DBSIZE", NULL)->integer, 0);
}

static void
test_unanswered_is_no_verdict(void **state)
{
    bool yes = false;
    int64_t n = -7;
    (void)state;
    redis_server_freeze(&server);
    int64_t start = cm_clock_mono_ms();
    assert_int_equal(ask(0, &yes, &n), CM_ETIMEOUT);
    /* From here on the breaker answers, at once. */
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(i % QUESTIONS, &yes, &n), CM_EIO);
    assert_true(cm_clock_mono_ms() - start < 1200);
    assert_false(yes);
    assert_int_equal(n, -7);
    redis_server_thaw(&server);
    WAIT_UNTIL(ask(3, &yes, &n) == CM_OK, 3000);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, flush)
    static const struct CMUnitTest tests[] = {
        TEST(test_greylist_counts_attempts),
        TEST(test_greylist_tracks_what_it_is_told),
        TEST(test_greylist_window_and_delay),
        TEST(test_greylist_parallel_attempts_are_exact),
        TEST(test_occurrence_and_hits),
        TEST(test_throttle_lets_the_burst_through),
        TEST(test_throttle_refills_by_its_rate),
        TEST(test_throttle_buckets_are_apart),
        TEST(test_throttle_full_bucket_is_forgotten),
        TEST(test_throttle_takes_any_rate),
        TEST(test_throttle_survives_a_clock_set_back),
        TEST(test_throttle_follows_its_rule),
        TEST(test_throttle_parallel_tokens_are_exact),
        TEST(test_throttle_parallel_refill_is_exact),
        TEST(test_sequence_counts_by_its_key),
        TEST(test_sequence_forgets_after_its_ttl),
        TEST(test_sequence_parallel_attempts_are_exact),
        TEST(test_attempt_counts_until_done),
        TEST(test_attempt_parallel_is_exact),
        TEST(test_rule_names_differ_by_case),
        TEST(test_state_of_another_kind_is_no_verdict),
        TEST(test_without_memory_is_no_verdict),
        TEST(test_key_too_long_is_no_verdict),
        TEST(test_unanswered_is_no_verdict),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
