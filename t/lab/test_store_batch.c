/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many documents changed as one, and read as one, in a real Redis: by the
 * daemon's functions, by redis-cli, and as a filter that follows sees it.
 */
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/store/batch.h"
#include "milter/store/listing.h"
#include "milter/store/redis.h"
#include "milter/store/replica.h"
#include "milter/store/sync.h"
#include "t/lab/redis_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define ON   "{\"enabled\":true}"
#define RULE "{\"fault\":{\"kind\":\"error\",\"code\":451}}"

static struct redis_server server;
static struct cm_pool *pool;
static struct cm_commits *commits;

static int
start_server(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    cm_log_set_level(CM_LOG_ERR);
    redis_server_start(&server);
    struct cm_link_opts opts = redis_server_opts(&server);
    assert_int_equal(cm_pool_new(&pool, &opts, 4, NULL), CM_OK);
    assert_int_equal(cm_commits_new(&commits, pool, "{cm}", true, 1000, NULL),
                     CM_OK);
    return 0;
}

static int
end_server(void **state)
{
    (void)state;
    cm_commits_free(&commits);
    cm_pool_free(&pool);
    redis_server_end(&server);
    return 0;
}

static int
flush(void **state)
{
    (void)state;
    redis_say(&server, "FLUSHALL", NULL);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    return 0;
}

static long long
number(const char *key)
{
    const struct redisReply *reply = redis_say(&server, "GET", key, NULL);
    return reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : 0;
}

static struct cm_change
set(enum cm_kind kind, const char *name, const char *doc)
{
    return (struct cm_change){.what = CM_CHANGE_SET,
                              .kind = kind,
                              .name = name,
                              .doc = doc,
                              .len = strlen(doc),
                              .rev = CM_REV_ANY,
                              .place = CM_PLACE_USUAL};
}

static struct cm_change
del(enum cm_kind kind, const char *name)
{
    return (struct cm_change){
        .what = CM_CHANGE_DEL, .kind = kind, .name = name, .rev = CM_REV_ANY};
}

static struct cm_change
at(enum cm_kind kind, int64_t last)
{
    return (struct cm_change){.what = CM_CHANGE_AT, .kind = kind, .rev = last};
}

static void
must(const struct cm_change *changes, size_t n)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_commit_batch(commits, changes, n, NULL, NULL, &err) != CM_OK)
        fail_msg("%s", err.msg);
}

/* "r1@7 r2@8", place after name. */
static char *
listed(enum cm_kind kind, int64_t *at_r)
{
    static char text[1024];
    struct cm_listing listing;
    size_t len = 0;
    text[0] = '\0';
    assert_int_equal(cm_commit_read(commits, kind, &listing, NULL), CM_OK);
    for (size_t i = 0; i < listing.n; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s@%d",
                                i > 0 ? " " : "", listing.docs[i].name,
                                (int)listing.docs[i].doc.ord);
    if (at_r)
        *at_r = listing.at;
    cm_listing_fini(&listing);
    return text;
}

/* --- batches --- */

static void
test_batch_applies_all_with_numbers_in_a_row(void **state)
{
    int64_t seq = 0, last = 0;
    (void)state;
    const struct cm_change first[] = {set(CM_KIND_RULE, "r1", RULE),
                                      set(CM_KIND_RULE, "r2", RULE),
                                      set(CM_KIND_INBOX, "A@b.c", ON)};
    assert_int_equal(cm_commit_batch(commits, first, 3, &seq, NULL, NULL),
                     CM_OK);
    assert_int_equal(seq, 3);
    const struct cm_change second[] = {del(CM_KIND_RULE, "r1"),
                                       set(CM_KIND_RULE, "r3", RULE),
                                       del(CM_KIND_RULE, "never")};
    assert_int_equal(cm_commit_batch(commits, second, 3, &seq, NULL, NULL),
                     CM_OK);
    assert_int_equal(seq, 5);
    assert_int_equal(number("{cm}:seq"), 5);
    assert_string_equal(listed(CM_KIND_RULE, &last), "r2@2 r3@5");
    assert_int_equal(last, 5);
    assert_string_equal(listed(CM_KIND_INBOX, &last), "a@b.c@-1");
    assert_int_equal(last, 3);
    assert_string_equal(listed(CM_KIND_FAULT, &last), "");
    assert_int_equal(last, 0);

    /* One entry each; all but the last of a batch say that more follows. */
    const struct redisReply *log =
        redis_say(&server, "XRANGE", "{cm}:log", "-", "+", NULL);
    static const bool more[] = {true, true, false, true, false};
    assert_int_equal(log->elements, 5);
    for (size_t i = 0; i < 5; i++) {
        const struct redisReply *fields = log->element[i]->element[1];
        assert_string_equal(fields->element[2]->str, "seq");
        assert_int_equal(atoi(fields->element[3]->str), i + 1);
        assert_int_equal(
            strcmp(fields->element[fields->elements - 2]->str, "more") == 0,
            more[i]);
    }
}

static void
test_batch_of_nothing_is_nothing(void **state)
{
    int64_t seq = -1;
    (void)state;
    assert_int_equal(cm_commit_batch(commits, NULL, 0, &seq, NULL, NULL),
                     CM_OK);
    assert_int_equal(seq, 0);
    const struct cm_change only_at = at(CM_KIND_RULE, 0);
    must(&only_at, 1);
    assert_int_equal(redis_say(&server, "DBSIZE", NULL)->integer, 0);
}

static void
test_batch_one_bad_change_applies_none(void **state)
{
    static char large[70000];
    struct cm_err err;
    (void)state;
    memset(large, ' ', sizeof large - 1);
    const struct cm_change good[] = {set(CM_KIND_RULE, "r1", RULE)};
    must(good, 1);
    struct cm_change stale = set(CM_KIND_RULE, "r1", RULE);
    stale.rev = 7;
    struct cm_change gone = set(CM_KIND_RULE, "r9", RULE);
    gone.rev = 1;
    struct cm_change taken = set(CM_KIND_RULE, "r1", RULE);
    taken.rev = CM_REV_NONE;
    struct cm_change placed = set(CM_KIND_INBOX, "x@y.z", ON);
    placed.place = 3;
    struct cm_change nowhere = set(CM_KIND_RULE, "r5", RULE);
    nowhere.place = 0;
    const struct {
        const char *name;
        struct cm_change bad;
        enum cm_status want;
    } cases[] = {
        {"stale revision", stale, CM_ECONFLICT},
        {"revision of nothing", gone, CM_ECONFLICT},
        {"there already", taken, CM_ECONFLICT},
        {"not JSON", set(CM_KIND_RULE, "r5", "{"), CM_EINVAL},
        {"no object", set(CM_KIND_RULE, "r5", "[]"), CM_EINVAL},
        {"too large", set(CM_KIND_RULE, "r5", large), CM_EINVAL},
        {"no name", set(CM_KIND_RULE, "", RULE), CM_EINVAL},
        {"no address", set(CM_KIND_INBOX, "nobody", ON), CM_EINVAL},
        {"no trigger", set(CM_KIND_TRIGGER, "data", ON), CM_EINVAL},
        {"no effect", set(CM_KIND_EFFECT, "loss", ON), CM_EINVAL},
        {"inboxes have no place", placed, CM_EINVAL},
        {"place 0", nowhere, CM_EINVAL},
        {"twice", set(CM_KIND_RULE, "r2", RULE), CM_EINVAL},
        {"set and deleted", del(CM_KIND_RULE, "r1"), CM_EINVAL},
        {"another state", at(CM_KIND_RULE, 0), CM_ECONFLICT},
        {"deleted name is none", del(CM_KIND_RULE, "-"), CM_EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct cm_change changes[] = {
            set(CM_KIND_INBOX, "a@b.c", ON), set(CM_KIND_RULE, "r2", RULE),
            cases[i].bad, set(CM_KIND_RULE, "r3", RULE)};
        /* "set and deleted" needs the name to be set as well. */
        struct cm_change all[4];
        memcpy(all, changes, sizeof all);
        if (strcmp(cases[i].name, "set and deleted") == 0)
            all[1] = set(CM_KIND_RULE, "r1", RULE);
        size_t failed = 99;
        enum cm_status st =
            cm_commit_batch(commits, all, 4, NULL, &failed, &err);
        if (st != cases[i].want || failed != 2)
            fail_msg("%s: %s, change %zu: %s", cases[i].name,
                     cm_status_name(st), failed, err.msg);
        assert_int_equal(number("{cm}:seq"), 1);
        assert_int_equal(redis_say(&server, "ZCARD", "{cm}:idx", NULL)->integer,
                         1);
        assert_int_equal(redis_say(&server, "XLEN", "{cm}:log", NULL)->integer,
                         1);
    }
}

static void
test_batch_at_guards_what_was_read(void **state)
{
    int64_t last = 0;
    size_t failed = 0;
    (void)state;
    const struct cm_change one = set(CM_KIND_FAULT, "f1", "{}");
    const struct cm_change other = set(CM_KIND_RULE, "r1", RULE);
    must(&one, 1);
    listed(CM_KIND_FAULT, &last);
    must(&other, 1); /* of another kind: does not matter */
    const struct cm_change replace[] = {at(CM_KIND_FAULT, last),
                                        del(CM_KIND_FAULT, "f1"),
                                        set(CM_KIND_FAULT, "f2", "{}")};
    must(replace, 3);
    assert_string_equal(listed(CM_KIND_FAULT, NULL), "f2@4");
    assert_int_equal(cm_commit_batch(commits, replace, 3, NULL, &failed, NULL),
                     CM_ECONFLICT);
    assert_int_equal(failed, 0);
    /* A deletion is a change, too. */
    const struct cm_change clear = del(CM_KIND_FAULT, "f2");
    must(&clear, 1);
    listed(CM_KIND_FAULT, &last);
    assert_int_equal(last, 5);
}

static void
test_batch_places_order_what_is_listed(void **state)
{
    (void)state;
    struct cm_change changes[] = {set(CM_KIND_FAULT, "a", "{}"),
                                  set(CM_KIND_FAULT, "b", "{}"),
                                  set(CM_KIND_FAULT, "c", "{}")};
    changes[0].place = 500;
    changes[1].place = 500;
    changes[2].place = 499;
    must(changes, 3);
    assert_string_equal(listed(CM_KIND_FAULT, NULL), "c@499 a@500 b@500");
    const struct cm_change again = set(CM_KIND_FAULT, "a", "{ }");
    must(&again, 1); /* keeps its place */
    struct cm_change move = set(CM_KIND_FAULT, "c", "{}");
    move.place = 999999999999999;
    must(&move, 1);
    int64_t last;
    struct cm_listing listing;
    assert_int_equal(cm_commit_read(commits, CM_KIND_FAULT, &listing, NULL),
                     CM_OK);
    assert_string_equal(listing.docs[0].name, "a");
    assert_string_equal(listing.docs[0].doc.text, "{ }");
    assert_int_equal(listing.docs[0].doc.rev, 2);
    assert_string_equal(listing.docs[2].name, "c");
    assert_true(listing.docs[2].doc.ord == 999999999999999);
    last = listing.at;
    cm_listing_fini(&listing);
    assert_int_equal(last, 5);
}

static void
test_batch_out_of_memory_applies_nothing(void **state)
{
    struct cm_change changes[3];
    size_t failed = 0;
    (void)state;
    const struct cm_change first = set(CM_KIND_RULE, "r0", RULE);
    must(&first, 1);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "1", NULL);
    for (int i = 0; i < 3; i++)
        changes[i] =
            set(CM_KIND_RULE, (const char *[]){"a", "b", "c"}[i], RULE);
    assert_int_equal(cm_commit_batch(commits, changes, 3, NULL, &failed, NULL),
                     CM_EPROTO);
    assert_int_equal(failed, 3);
    redis_say(&server, "CONFIG", "SET", "maxmemory", "0", NULL);
    assert_int_equal(number("{cm}:seq"), 1);
    assert_string_equal(listed(CM_KIND_RULE, NULL), "r0@1");
}

static void
test_batch_over_wrong_types_is_refused(void **state)
{
    static const char *const keys[] = {"{cm}:seq", "{cm}:epoch", "{cm}:idx",
                                       "{cm}:log", "{cm}:kinds"};
    const struct cm_change changes[] = {at(CM_KIND_RULE, 0),
                                        set(CM_KIND_RULE, "r1", RULE)};
    struct cm_err err;
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        redis_say(&server, "FLUSHALL", NULL);
        redis_say(&server, "RPUSH", keys[i], "junk", NULL);
        assert_int_equal(cm_commit_batch(commits, changes, 2, NULL, NULL, &err),
                         CM_EPROTO);
        assert_non_null(strstr(err.msg, keys[i]));
        assert_int_equal(redis_say(&server, "DBSIZE", NULL)->integer, 1);
    }
}

static void
test_batch_ceilings(void **state)
{
    static struct cm_change changes[CM_BATCH_CHANGES_MAX + 1];
    static char names[CM_BATCH_CHANGES_MAX + 1][16], doc[60001];
    struct cm_err err;
    size_t failed = 0;
    (void)state;
    for (size_t i = 0; i <= CM_BATCH_CHANGES_MAX; i++) {
        snprintf(names[i], sizeof names[i], "f%05zu", i);
        changes[i] = set(CM_KIND_FAULT, names[i],
                         "{\"inbox\":\"someone@example.com\",\"probability\":0."
                         "25}");
    }
    assert_int_equal(cm_commit_batch(commits, changes, CM_BATCH_CHANGES_MAX + 1,
                                     NULL, NULL, &err),
                     CM_EINVAL);
    int64_t start = cm_clock_mono_us();
    assert_int_equal(cm_commit_batch(commits, changes, 1000, NULL, NULL, &err),
                     CM_OK);
    print_message("  1,000 changes: %d us\n",
                  (int)(cm_clock_mono_us() - start));
    start = cm_clock_mono_us();
    if (cm_commit_batch(commits, changes, CM_BATCH_CHANGES_MAX, NULL, NULL,
                        &err) != CM_OK)
        fail_msg("%s", err.msg);
    print_message("  %d changes: %d us\n", CM_BATCH_CHANGES_MAX,
                  (int)(cm_clock_mono_us() - start));
    struct cm_listing listing;
    start = cm_clock_mono_us();
    assert_int_equal(cm_commit_read(commits, CM_KIND_FAULT, &listing, NULL),
                     CM_OK);
    print_message("  read: %d us\n", (int)(cm_clock_mono_us() - start));
    assert_int_equal(listing.n, CM_BATCH_CHANGES_MAX);
    for (size_t i = 0; i < listing.n; i++)
        assert_string_equal(listing.docs[i].name, names[i]);
    cm_listing_fini(&listing);

    /* 4 MiB of documents: 69 of 60,000 bytes fit, 70 do not. */
    memset(doc, ' ', sizeof doc - 1);
    memcpy(doc, "{\"a\":1", 6);
    doc[sizeof doc - 2] = '}';
    for (size_t i = 0; i < 70; i++)
        changes[i] = set(CM_KIND_FAULT, names[i], doc);
    assert_int_equal(cm_commit_batch(commits, changes, 70, NULL, &failed, &err),
                     CM_EINVAL);
    assert_int_equal(failed, 69);
    assert_int_equal(cm_commit_batch(commits, changes, 69, NULL, NULL, &err),
                     CM_OK);
}

/* --- reading while others write --- */

static void
test_read_more_than_a_page(void **state)
{
    char name[16];
    static char doc[60001];
    struct cm_listing listing;
    (void)state;
    memset(doc, 'x', sizeof doc - 1);
    memcpy(doc, "{\"a\":\"", 6);
    memcpy(doc + sizeof doc - 3, "\"}", 2);
    for (int i = 0; i < 300; i++) { /* 18 MB: three pages */
        snprintf(name, sizeof name, "f%03d", i);
        const struct cm_change change = set(CM_KIND_FAULT, name, doc);
        must(&change, 1);
    }
    assert_int_equal(cm_commit_read(commits, CM_KIND_FAULT, &listing, NULL),
                     CM_OK);
    assert_int_equal(listing.n, 300);
    assert_int_equal(listing.at, 300);
    assert_string_equal(listing.docs[299].name, "f299");
    assert_int_equal(listing.docs[299].doc.len, sizeof doc - 1);
    cm_listing_fini(&listing);
}

static void
test_read_shows_what_is_no_document(void **state)
{
    struct cm_listing listing;
    (void)state;
    const struct cm_change changes[] = {set(CM_KIND_FAULT, "a", "{}"),
                                        set(CM_KIND_FAULT, "b", "{}"),
                                        set(CM_KIND_FAULT, "c", "{}")};
    must(changes, 3);
    redis_say(&server, "SET", "{cm}:cfg:fault:a", "garbage", NULL);
    redis_say(&server, "DEL", "{cm}:cfg:fault:b", NULL);
    redis_say(&server, "RPUSH", "{cm}:cfg:fault:b", "x", NULL);
    assert_int_equal(cm_commit_read(commits, CM_KIND_FAULT, &listing, NULL),
                     CM_OK);
    assert_int_equal(listing.n, 3);
    assert_null(listing.docs[0].doc.text);
    assert_null(listing.docs[1].doc.text);
    assert_string_equal(listing.docs[2].name, "c");
    assert_string_equal(listing.docs[2].doc.text, "{}");
    cm_listing_fini(&listing);
}

/* --- as a filter sees it --- */

struct watch {
    struct cm_replica *replica;
    _Atomic bool stop;
    _Atomic int torn, seen;
};

/* Every rule of the list carries the same code: the list is one batch's. */
static void *
watch_main(void *arg)
{
    struct watch *watch = arg;
    while (!watch->stop) {
        struct cm_view *view = cm_replica_view(watch->replica);
        struct cm_ruleset *set = cm_view_rules(view);
        size_t n = cm_ruleset_count(set);
        if (n != 0 && n != 1500)
            watch->torn++;
        for (size_t i = 1; i < n; i++)
            if (cm_ruleset_at(set, i)->probability_ppb !=
                cm_ruleset_at(set, 0)->probability_ppb) {
                watch->torn++;
                break;
            }
        watch->seen++;
        cm_ruleset_release(&set);
        cm_view_release(&view);
    }
    return NULL;
}

static void
replace_rules(int round)
{
    static struct cm_change changes[3000];
    static char names[3000][32], doc[96];
    size_t n = 0;
    snprintf(doc, sizeof doc,
             "{\"probability\":0.%d,\"fault\":{\"kind\":\"error\"}}",
             round + 1);
    for (int i = 0; i < 1500; i++) {
        snprintf(names[n], sizeof names[n], "r%d.%d", round - 1, i);
        changes[n] = del(CM_KIND_RULE, names[n]);
        n++;
        snprintf(names[n], sizeof names[n], "r%d.%d", round, i);
        changes[n] = set(CM_KIND_RULE, names[n], doc);
        n++;
    }
    must(changes, n);
}

static void
test_filter_never_holds_half_a_batch(void **state)
{
    struct watch watch = {.torn = 0};
    struct cm_sync *sync = NULL;
    struct cm_sync_opts opts = {.link = redis_server_opts(&server),
                                .prefix = "{cm}",
                                .host_id = "h1",
                                .version = "1",
                                .snapshot_dir_fd = -1};
    struct cm_replica_state now;
    pthread_t thread;
    (void)state;
    assert_int_equal(cm_replica_new(&watch.replica, 0), CM_OK);
    assert_int_equal(cm_sync_start(&sync, &opts, watch.replica, NULL), CM_OK);
    WAIT_UNTIL(cm_sync_synced(sync), 3000);
    assert_int_equal(pthread_create(&thread, NULL, watch_main, &watch), 0);
    for (int round = 0; round < 8; round++) {
        replace_rules(round);
        int64_t want = number("{cm}:seq");
        WAIT_UNTIL((cm_replica_state(watch.replica, &now), now.seq == want),
                   5000);
    }
    watch.stop = true;
    pthread_join(thread, NULL);
    assert_true(watch.seen > 8);
    assert_int_equal(watch.torn, 0);
    assert_int_equal(now.rules, 1500);
    cm_sync_stop(sync);
    cm_sync_free(&sync);
    cm_replica_free(&watch.replica);
}

/* --- by hand --- */

static void
expect_cli(const char *command, const char *output)
{
    char *said = redis_cli(&server, command);
    if (strcmp(said, output) != 0)
        fail_msg("%s\nsaid: %s\nwant: %s", command, said, output);
    free(said);
}

static void
test_batch_by_redis_cli(void **state)
{
    (void)state;
    assert_int_equal(cm_commits_load_library(commits, NULL), CM_OK);
    expect_cli("FCALL cm_batch 0 tester set inbox a@b.c '*' '*' '" ON
               "' set rule r1 0 7 '" RULE "' del rule r2 '*'",
               "changes\n2\nseq\n2");
    expect_cli("FCALL cm_read 0 rule",
               "at\n2\nmore\n0\ndocuments\nr1\n"
               "{\"rev\":1,\"seq\":2,\"ord\":7,\"doc\":" RULE "}");
    expect_cli("FCALL cm_batch 0 tester at rule 2 del rule r1 1",
               "changes\n1\nseq\n3");
    expect_cli("FCALL_RO cm_read 0 rule r0 | head -5",
               "at\n3\nmore\n0\ndocuments");
    expect_cli("XREVRANGE '{cm}:log' + - COUNT 2 | grep -c tester", "2");
    expect_cli("FCALL cm_batch 0 ''", "changes\n0\nseq\n3");
    expect_cli("FCALL cm_batch 0 '' at rule 2",
               "CMCONFLICT change 1: the last change of any rule is 3, wanted "
               "it 2");
    expect_cli("FCALL cm_batch 0 '' set rule r1 '*' '*'",
               "CMINVALID change 1: set has 5 words after it");
    expect_cli("FCALL cm_batch 0 '' put rule r1",
               "CMINVALID change 1: a change begins with set, del, move or at");
    expect_cli("FCALL cm_batch 0 '' del rule r1 '*' at rules 0",
               "CMINVALID change 2: the kind must be inbox, rule, fault, "
               "trigger, effect or box");
    expect_cli("FCALL cm_set 0 rule r2 '" RULE "' '*' tester 5",
               "rev\n1\nseq\n4\nkey\nrule:r2");
    expect_cli("FCALL cm_get 0 rule r2",
               "{\"rev\":1,\"seq\":4,\"ord\":5,\"doc\":" RULE "}");
    expect_cli("FCALL cm_set 0 trigger Sender '{}' '*' tester 5",
               "CMINVALID the place must be * or a number, and only rules and "
               "faults have one");
    expect_cli("FCALL cm_set 0 trigger Sender '{}'",
               "rev\n1\nseq\n5\nkey\ntrigger:sender");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_batch_applies_all_with_numbers_in_a_row,
                               flush),
        cmocka_unit_test_setup(test_batch_of_nothing_is_nothing, flush),
        cmocka_unit_test_setup(test_batch_one_bad_change_applies_none, flush),
        cmocka_unit_test_setup(test_batch_at_guards_what_was_read, flush),
        cmocka_unit_test_setup(test_batch_places_order_what_is_listed, flush),
        cmocka_unit_test_setup(test_batch_out_of_memory_applies_nothing, flush),
        cmocka_unit_test_setup(test_batch_over_wrong_types_is_refused, flush),
        cmocka_unit_test_setup(test_batch_ceilings, flush),
        cmocka_unit_test_setup(test_read_more_than_a_page, flush),
        cmocka_unit_test_setup(test_read_shows_what_is_no_document, flush),
        cmocka_unit_test_setup(test_filter_never_holds_half_a_batch, flush),
        cmocka_unit_test_setup(test_batch_by_redis_cli, flush),
    };
    return cmocka_run_group_tests(tests, start_server, end_server);
}
