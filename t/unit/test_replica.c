/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/buf.h"
#include "milter/store/envelope.h"
#include "milter/store/hash.h"
#include "milter/store/map.h"
#include "milter/store/quote.h"
#include "milter/store/replica.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#define ON        "{\"enabled\":true,\"blackhole\":{\"enabled\":true}}"
#define ENV(r, s) "{\"rev\":" r ",\"seq\":" s ",\"doc\":" ON "}"
#define RULE(r, s)                                                             \
    "{\"rev\":" r ",\"seq\":" s ",\"ord\":" s ",\"doc\":" FAULT "}"
#define FAULT "{\"fault\":{\"kind\":\"error\"}}"

/* --- envelope --- */

static void
test_envelope_parse_table(void **state)
{
    static const struct {
        const char *text;
        enum cm_status st;
        int64_t rev, seq, ord;
        const char *doc;
    } cases[] = {
        {"{\"rev\":3,\"seq\":17,\"doc\":{}}", CM_OK, 3, 17, -1, "{}"},
        {"{\"rev\":1,\"seq\":2,\"ord\":9,\"doc\":{\"a\":1}}", CM_OK, 1, 2, 9,
         "{\"a\":1}"},
        {"{\"rev\":999999999999999,\"seq\":1,\"doc\":x}", CM_OK,
         999999999999999, 1, -1, "x"},
        {"{\"rev\":9999999999999999,\"seq\":1,\"doc\":x}", CM_EINVAL, 0, 0, 0,
         ""},
        {"{\"rev\":0,\"seq\":1,\"doc\":x}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":01,\"seq\":1,\"doc\":x}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":-1,\"seq\":1,\"doc\":x}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":1.0,\"seq\":1,\"doc\":x}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":,\"seq\":1,\"doc\":x}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":1,\"seq\":1,\"doc\":}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":1,\"seq\":1,\"doc\":x", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":1,\"seq\":1}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"seq\":1,\"rev\":1,\"doc\":{}}", CM_EINVAL, 0, 0, 0, ""},
        {" {\"rev\":1,\"seq\":1,\"doc\":{}}", CM_EINVAL, 0, 0, 0, ""},
        {"{\"rev\":1,\"seq\":1,\"doc\":{}} ", CM_EINVAL, 0, 0, 0, ""},
        {"", CM_EINVAL, 0, 0, 0, ""},
        {"{", CM_EINVAL, 0, 0, 0, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_envelope got;
        struct cm_buf buf;
        if (cm_envelope_parse(&got, cases[i].text, strlen(cases[i].text),
                              NULL) != cases[i].st)
            fail_msg("%s", cases[i].text);
        if (cases[i].st != CM_OK)
            continue;
        assert_int_equal(got.rev, cases[i].rev);
        assert_int_equal(got.seq, cases[i].seq);
        assert_int_equal(got.ord, cases[i].ord);
        assert_int_equal(got.doc_len, strlen(cases[i].doc));
        assert_memory_equal(got.doc, cases[i].doc, got.doc_len);
        cm_buf_init(&buf, 4096);
        cm_envelope_print(&buf, &got);
        assert_string_equal(buf.data, cases[i].text);
        cm_buf_fini(&buf);
    }
}

/* Every beginning of a sound envelope in memory of exactly its size: nothing is
 * read beyond the end, which the address sanitizer would tell. */
static void
test_envelope_parse_every_cut(void **state)
{
    const char whole[] = ENV("12", "34");
    (void)state;
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        struct cm_envelope got;
        char *cut = malloc(len ? len : 1);
        memcpy(cut, whole, len);
        enum cm_status st = cm_envelope_parse(&got, cut, len, NULL);
        if (st == CM_OK)
            assert_true(len > 25 && whole[len - 1] == '}');
        free(cut);
    }
}

/* --- quoting --- */

static void
test_quote_json_table(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        const char *expected;
    } cases[] = {
        {"plain", 5, "\"plain\""},
        {"a\"b\\c", 5, "\"a\\\"b\\\\c\""},
        {"\0\n\x7f", 3, "\"\\u0000\\u000a\\u007f\""},
        {"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", 9,
         "\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xff", 1, "\"?\""},
        {"\xc0\xaf", 2, "\"\?\?\""},             /* overlong */
        {"\xed\xa0\x80", 3, "\"\?\?\?\""},       /* surrogate */
        {"\xf4\x90\x80\x80", 4, "\"\?\?\?\?\""}, /* beyond Unicode */
        {"\xe2\x82", 2, "\"\?\?\""},             /* cut */
        {"", 0, "\"\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_buf buf;
        cm_buf_init(&buf, 4096);
        cm_quote_json(&buf, cases[i].text, cases[i].len);
        assert_string_equal(buf.data, cases[i].expected);
        cm_buf_fini(&buf);
    }
}

/* --- map and hash --- */

static void
count_free(void *arg, void *value)
{
    (void)value;
    ++*(size_t *)arg;
}

static void *
same(void *value)
{
    return value;
}

static void
test_map_many_keys(void **state)
{
    enum { N = 20000 };
    static int values[N];
    struct cm_map *map = NULL;
    size_t freed = 0;
    char key[32];
    (void)state;
    assert_int_equal(cm_map_new(&map, 7, count_free, &freed), CM_OK);
    for (int i = 0; i < N; i++) {
        int len = snprintf(key, sizeof key, "key-%d", i);
        assert_int_equal(cm_map_put(map, key, (size_t)len, 1, i, &values[i]),
                         CM_OK);
    }
    assert_int_equal(cm_map_count(map), N);
    for (int i = 0; i < N; i++) {
        int len = snprintf(key, sizeof key, "key-%d", i);
        assert_ptr_equal(cm_map_get(map, key, (size_t)len, same), &values[i]);
    }
    assert_null(cm_map_get(map, "key-20000", 9, same));
    assert_null(cm_map_get(map, "key-1", 4, same));
    for (int i = 0; i < N; i += 2) {
        int len = snprintf(key, sizeof key, "key-%d", i);
        assert_true(cm_map_remove(map, key, (size_t)len));
        assert_false(cm_map_remove(map, key, (size_t)len));
        assert_null(cm_map_get(map, key, (size_t)len, same));
    }
    assert_int_equal(cm_map_count(map), N / 2);
    assert_int_equal(freed, N / 2);
    cm_map_free(&map);
    assert_int_equal(freed, N);
}

static void
test_map_digest_is_order_free(void **state)
{
    struct cm_map *one = NULL, *two = NULL;
    size_t freed = 0;
    int value;
    (void)state;
    assert_int_equal(cm_map_new(&one, 7, count_free, &freed), CM_OK);
    assert_int_equal(cm_map_new(&two, 7, count_free, &freed), CM_OK);
    assert_int_equal(cm_map_digest(one), 0);
    assert_int_equal(cm_map_put(one, "a", 1, 1, 1, &value), CM_OK);
    assert_int_equal(cm_map_put(one, "b", 1, 1, 2, &value), CM_OK);
    assert_int_equal(cm_map_put(two, "b", 1, 1, 2, &value), CM_OK);
    assert_int_not_equal(cm_map_digest(one), cm_map_digest(two));
    assert_int_equal(cm_map_put(two, "a", 1, 5, 9, &value), CM_OK);
    assert_int_not_equal(cm_map_digest(one), cm_map_digest(two));
    assert_int_equal(cm_map_put(two, "a", 1, 1, 1, &value), CM_OK);
    assert_int_equal(cm_map_digest(one), cm_map_digest(two));
    /* The numbers exchanged are another state. */
    assert_int_equal(cm_map_put(two, "a", 1, 1, 2, &value), CM_OK);
    assert_int_equal(cm_map_put(two, "b", 1, 1, 1, &value), CM_OK);
    assert_int_not_equal(cm_map_digest(one), cm_map_digest(two));
    cm_map_remove(one, "a", 1);
    cm_map_remove(one, "b", 1);
    assert_int_equal(cm_map_digest(one), 0);
    cm_map_free(&one);
    cm_map_free(&two);
}

static void
test_hash_is_fixed(void **state)
{
    (void)state;
    /* Digests are compared between hosts and versions. */
    assert_true(cm_hash("", 0, 0) == cm_hash("x", 0, 0));
    assert_true(cm_hash("abcdefgh", 8, 1) != cm_hash("abcdefgi", 8, 1));
    assert_true(cm_hash("abc", 3, 1) != cm_hash("abc", 3, 2));
    assert_true(cm_hash("a\0", 2, 1) != cm_hash("a", 1, 1));
    assert_int_equal(cm_hash("a@example.com", 13, 'i'), 0x6c18fcd888144c2cu);
}

/* --- replica --- */

static struct cm_replica *
new_replica(void)
{
    struct cm_replica *replica = NULL;
    assert_int_equal(cm_replica_new(&replica, 0), CM_OK);
    return replica;
}

static void
apply(struct cm_replica *replica, const char *key, const char *text)
{
    assert_int_equal(
        cm_replica_apply(replica, key, text, text ? strlen(text) : 0), CM_OK);
}

static bool
has(struct cm_replica *replica, const char *address)
{
    struct cm_view *view = cm_replica_view(replica);
    struct cm_inbox *inbox = cm_view_inbox(view, address, strlen(address));
    bool found = inbox != NULL;
    cm_inbox_release(&inbox);
    cm_view_release(&view);
    return found;
}

static size_t
rules(struct cm_replica *replica)
{
    struct cm_view *view = cm_replica_view(replica);
    struct cm_ruleset *set = cm_view_rules(view);
    size_t n = set ? cm_ruleset_count(set) : 0;
    cm_ruleset_release(&set);
    cm_view_release(&view);
    return n;
}

static struct cm_replica_state
state_of(struct cm_replica *replica)
{
    struct cm_replica_state state;
    cm_replica_state(replica, &state);
    return state;
}

static void
test_apply_set_change_delete(void **state)
{
    struct cm_replica *replica = new_replica();
    (void)state;
    assert_int_equal(state_of(replica).epoch[0], '\0');
    apply(replica, "inbox:a@x", ENV("1", "1"));
    apply(replica, "rule:r1", RULE("1", "2"));
    apply(replica, "box:a@x", ENV("1", "3"));
    apply(replica, "strange", "strange");
    assert_true(has(replica, "a@x"));
    assert_int_equal(rules(replica), 0); /* not before the batch is done */
    cm_replica_advance(replica, 3);
    assert_int_equal(rules(replica), 1);
    assert_int_equal(state_of(replica).seq, 3);
    assert_int_equal(state_of(replica).inboxes, 1);
    assert_int_equal(state_of(replica).rules, 1);
    apply(replica, "inbox:a@x", NULL);
    apply(replica, "inbox:a@x", NULL);
    apply(replica, "rule:r1", NULL);
    cm_replica_advance(replica, 5);
    assert_false(has(replica, "a@x"));
    assert_int_equal(rules(replica), 0);
    assert_int_equal(state_of(replica).digest, 0);
    cm_replica_free(&replica);
}

static void
test_apply_equal_documents_share_one(void **state)
{
    struct cm_replica *replica = new_replica();
    (void)state;
    apply(replica, "inbox:a@x", ENV("1", "1"));
    apply(replica, "inbox:b@x", ENV("5", "2"));
    struct cm_view *view = cm_replica_view(replica);
    struct cm_inbox *a = cm_view_inbox(view, "a@x", 3);
    struct cm_inbox *b = cm_view_inbox(view, "b@x", 3);
    assert_ptr_equal(a, b);
    /* A mail in hand keeps what it began with. */
    apply(replica, "inbox:a@x", NULL);
    apply(replica, "inbox:b@x", NULL);
    assert_null(cm_view_inbox(view, "a@x", 3));
    assert_true(a->enabled);
    cm_inbox_release(&a);
    cm_inbox_release(&b);
    cm_view_release(&view);
    cm_replica_free(&replica);
}

static void
test_apply_broken_document_is_kept_as_broken(void **state)
{
    struct cm_replica *replica = new_replica();
    struct cm_buf buf;
    (void)state;
    apply(replica, "inbox:a@x", ENV("1", "1"));
    uint64_t sound = state_of(replica).digest;
    apply(replica, "inbox:a@x", "{\"rev\":2,\"seq\":2,\"doc\":[]}");
    assert_false(has(replica, "a@x"));
    assert_int_equal(state_of(replica).broken, 1);
    assert_int_equal(state_of(replica).inboxes, 0);
    assert_true(state_of(replica).digest != sound);
    apply(replica, "inbox:A@x", ENV("1", "3"));
    assert_int_equal(cm_replica_apply_broken(replica, "rule:r1", "too large"),
                     CM_OK);
    assert_int_equal(cm_replica_apply_broken(replica, "box:a@x", "no matter"),
                     CM_OK);
    assert_int_equal(state_of(replica).broken, 3);
    cm_buf_init(&buf, 65536);
    cm_replica_broken_json(replica, &buf, 10);
    assert_non_null(strstr(buf.data, "must be written inbox:a@x"));
    assert_non_null(
        strstr(buf.data, "{\"key\":\"rule:r1\",\"why\":\"too large\"}"));
    cm_buf_reset(&buf);
    cm_replica_broken_json(replica, &buf, 0);
    assert_string_equal(buf.data, "[]");
    cm_buf_reset(&buf);
    cm_replica_broken_json(replica, &buf, 1);
    assert_null(strstr(buf.data, "},{"));
    cm_buf_fini(&buf);
    apply(replica, "inbox:a@x", ENV("1", "1"));
    apply(replica, "inbox:A@x", NULL);
    apply(replica, "rule:r1", NULL);
    assert_int_equal(state_of(replica).broken, 0);
    assert_true(state_of(replica).digest == sound);
    cm_replica_free(&replica);
}

static void
test_apply_broken_rule_leaves_the_others(void **state)
{
    struct cm_replica *replica = new_replica();
    (void)state;
    apply(replica, "rule:r1", RULE("1", "1"));
    apply(replica, "rule:r2", RULE("1", "2"));
    cm_replica_advance(replica, 2);
    assert_int_equal(rules(replica), 2);
    apply(replica, "rule:r1",
          "{\"rev\":2,\"seq\":3,\"ord\":1,\"doc\":{\"fault\":1}}");
    cm_replica_advance(replica, 3);
    assert_int_equal(rules(replica), 1);
    assert_int_equal(state_of(replica).broken, 1);
    cm_replica_free(&replica);
}

static void
test_rules_are_sorted_by_ord_then_id(void **state)
{
    static const char *const expected[] = {"c", "a", "b", "d"};
    struct cm_replica *replica = new_replica();
    (void)state;
    apply(replica, "rule:d",
          "{\"rev\":1,\"seq\":90,\"ord\":10,\"doc\":" FAULT "}");
    apply(replica, "rule:b",
          "{\"rev\":1,\"seq\":91,\"ord\":9,\"doc\":" FAULT "}");
    apply(replica, "rule:a",
          "{\"rev\":1,\"seq\":92,\"ord\":9,\"doc\":" FAULT "}");
    apply(replica, "rule:c", "{\"rev\":1,\"seq\":2,\"doc\":" FAULT "}");
    cm_replica_advance(replica, 92);
    struct cm_view *view = cm_replica_view(replica);
    struct cm_ruleset *set = cm_view_rules(view);
    assert_int_equal(cm_ruleset_count(set), 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(cm_ruleset_at(set, i)->id, expected[i]);
    cm_view_release(&view);
    cm_replica_free(&replica);
    assert_string_equal(cm_ruleset_at(set, 0)->id, "c"); /* outlives all */
    cm_ruleset_release(&set);
}

/* Whatever the numbers say: our own rules, faults, triggers, effects. */
static void
test_rules_of_all_faces_in_order_of_authority(void **state)
{
    static const char *const expected[] = {"z",
                                           "fault:2",
                                           "fault:1",
                                           "trigger:sender",
                                           "trigger:recipient",
                                           "effect:latency"};
    static const struct {
        const char *key, *ord, *doc;
    } docs[] = {
        {"effect:latency", "", "{\"latency\":5}"},
        {"trigger:sender", "", "{\"ErrorCode\":451,\"Probability\":1}"},
        {"trigger:recipient", "", "{\"Probability\":100}"},
        {"trigger:authentication", "", "{\"Probability\":0}"},
        {"fault:1", ",\"ord\":8", "{}"},
        {"fault:2", ",\"ord\":7", "{\"service\":\"a@b\"}"},
        {"rule:z", ",\"ord\":9", FAULT},
        {"box:a@b", "", "{}"},
    };
    struct cm_replica *replica = new_replica();
    char text[256], name[CM_RULE_NAME_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof docs / sizeof *docs; i++) {
        snprintf(text, sizeof text, "{\"rev\":1,\"seq\":%zu%s,\"doc\":%s}",
                 i + 1, docs[i].ord, docs[i].doc);
        apply(replica, docs[i].key, text);
    }
    cm_replica_advance(replica, 8);
    assert_int_equal(state_of(replica).rules, 7);
    assert_int_equal(state_of(replica).broken, 0);
    struct cm_view *view = cm_replica_view(replica);
    struct cm_ruleset *set = cm_view_rules(view);
    assert_int_equal(cm_ruleset_count(set), 6); /* one never fires */
    for (size_t i = 0; i < 6; i++) {
        cm_rule_print_name(cm_ruleset_at(set, i), name, sizeof name);
        assert_string_equal(name, expected[i]);
    }
    cm_ruleset_release(&set);
    cm_view_release(&view);
    for (size_t i = 0; i < sizeof docs / sizeof *docs; i++)
        apply(replica, docs[i].key, NULL);
    cm_replica_advance(replica, 16);
    assert_int_equal(state_of(replica).digest, 0);
    assert_int_equal(rules(replica), 0);
    cm_replica_free(&replica);
}

/* One name in two kinds is two documents. */
static void
test_faces_do_not_share_names(void **state)
{
    struct cm_replica *replica = new_replica();
    (void)state;
    apply(replica, "rule:x", RULE("1", "1"));
    apply(replica, "fault:x", "{\"rev\":1,\"seq\":2,\"doc\":{}}");
    cm_replica_advance(replica, 2);
    assert_int_equal(rules(replica), 2);
    apply(replica, "rule:x", NULL);
    cm_replica_advance(replica, 3);
    assert_int_equal(rules(replica), 1);
    assert_int_equal(state_of(replica).rules, 1);
    cm_replica_free(&replica);
}

static void
test_faces_broken_documents_hurt_nobody(void **state)
{
    static const struct {
        const char *key, *doc;
    } cases[] = {
        {"fault:1", "{\"nonsense\":1}"},
        {"fault:1", "{\"error\":{\"message\":\"a\\nb\"}}"},
        {"trigger:sender", "{\"Probability\":101}"},
        {"trigger:data", "{\"Probability\":100}"},
        {"effect:latency", "{\"latency\":-1}"},
        {"effect:loss", "{\"latency\":1}"},
    };
    struct cm_replica *replica = new_replica();
    char text[256];
    (void)state;
    apply(replica, "rule:r1", RULE("1", "1"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\"rev\":1,\"seq\":2,\"doc\":%s}",
                 cases[i].doc);
        apply(replica, cases[i].key, text);
        cm_replica_advance(replica, 2);
        if (state_of(replica).broken != 1 || rules(replica) != 1)
            fail_msg("%s %s", cases[i].key, cases[i].doc);
        apply(replica, cases[i].key, NULL);
    }
    cm_replica_free(&replica);
}

static void
test_swap_replaces_all_and_views_stay(void **state)
{
    struct cm_replica *replica = new_replica();
    (void)state;
    apply(replica, "inbox:old@x", ENV("1", "1"));
    apply(replica, "rule:old", RULE("1", "2"));
    cm_replica_advance(replica, 2);
    struct cm_view *before = cm_replica_view(replica);
    assert_int_equal(cm_replica_begin(replica), CM_OK);
    assert_int_equal(cm_replica_load(replica, "inbox:new@x", ENV("1", "3"),
                                     strlen(ENV("1", "3"))),
                     CM_OK);
    assert_int_equal(cm_replica_load_broken(replica, "inbox:bad@x", "bad"),
                     CM_OK);
    assert_false(has(replica, "new@x"));
    assert_int_equal(cm_replica_swap(replica, "epoch-2", 3), CM_OK);
    assert_true(has(replica, "new@x"));
    assert_false(has(replica, "old@x"));
    assert_int_equal(rules(replica), 0);
    assert_int_equal(state_of(replica).broken, 1);
    assert_string_equal(state_of(replica).epoch, "epoch-2");
    struct cm_inbox *old = cm_view_inbox(before, "old@x", 5);
    assert_non_null(old);
    assert_true(cm_view_has_inboxes(before));
    cm_inbox_release(&old);
    cm_view_release(&before);
    cm_replica_tidy(replica);
    /* Thrown away, nothing has happened. */
    assert_int_equal(cm_replica_begin(replica), CM_OK);
    cm_replica_abandon(replica);
    assert_true(has(replica, "new@x"));
    cm_replica_free(&replica);
}

struct collected {
    size_t n, stop_at;
    char text[8][256];
};

static bool
collect(void *arg, const char *key, const char *text, size_t len)
{
    struct collected *all = arg;
    assert_int_equal(strlen(text), len);
    snprintf(all->text[all->n++], sizeof all->text[0], "%s %s", key, text);
    return all->n != all->stop_at;
}

static void
test_each_gives_back_every_envelope(void **state)
{
    struct cm_replica *replica = new_replica();
    struct collected all = {0, 0, {""}};
    size_t found = 0;
    static const char *const expected[] = {"inbox:a@x " ENV("1", "1"),
                                           "inbox:b@x " ENV("7", "2"),
                                           "rule:r1 " RULE("4", "3")};
    (void)state;
    apply(replica, "inbox:a@x", ENV("1", "1"));
    apply(replica, "inbox:b@x", ENV("7", "2"));
    apply(replica, "rule:r1", RULE("4", "3"));
    apply(replica, "inbox:broken@x", "junk");
    assert_int_equal(cm_replica_each(replica, collect, &all), CM_OK);
    assert_int_equal(all.n, 3);
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++)
            found += strcmp(expected[i], all.text[j]) == 0;
    assert_int_equal(found, 3);
    all.n = 0;
    all.stop_at = 1;
    assert_int_equal(cm_replica_each(replica, collect, &all), CM_OK);
    assert_int_equal(all.n, 1);
    cm_replica_free(&replica);
}

/* --- without memory --- */

static enum cm_status
live_a_little(struct cm_replica *replica)
{
    enum cm_status st = cm_replica_apply(replica, "inbox:a@x", ENV("2", "4"),
                                         strlen(ENV("2", "4")));
    if (st == CM_OK)
        st = cm_replica_apply(replica, "rule:r2", RULE("1", "5"),
                              strlen(RULE("1", "5")));
    if (st == CM_OK)
        st = cm_replica_apply(replica, "inbox:bad@x", "junk", 4);
    if (st == CM_OK)
        st = cm_replica_begin(replica);
    if (st == CM_OK)
        st = cm_replica_load(replica, "inbox:n@x", ENV("1", "1"),
                             strlen(ENV("1", "1")));
    if (st == CM_OK)
        st = cm_replica_load(replica, "rule:n", RULE("1", "2"),
                             strlen(RULE("1", "2")));
    if (st == CM_OK)
        st = cm_replica_swap(replica, "e", 9);
    return st;
}

static void
test_out_of_memory_at_every_call(void **state)
{
    (void)state;
    long n = 1;
    for (bool failed = true; failed; n++) {
        struct cm_replica *replica = NULL;
        failing_alloc_arm(n);
        enum cm_status st = cm_replica_new(&replica, 0);
        failed = failing_alloc_disarm();
        assert_int_equal(st, failed ? CM_ENOMEM : CM_OK);
        assert_true(failed == (replica == NULL));
        cm_replica_free(&replica);
    }
    long calls = 0;
    for (bool failed = true; failed; calls++) {
        struct cm_replica *replica = new_replica();
        apply(replica, "inbox:a@x", ENV("1", "1"));
        apply(replica, "rule:r1", RULE("1", "2"));
        cm_replica_advance(replica, 2);
        failing_alloc_arm(calls + 1);
        enum cm_status st = live_a_little(replica);
        failed = failing_alloc_disarm();
        if (st == CM_OK) { /* a hash that could not grow is no failure */
            assert_true(has(replica, "n@x"));
            assert_int_equal(rules(replica), 1);
        } else {
            assert_true(failed);
            assert_int_equal(st, CM_ENOMEM);
            assert_true(has(replica, "a@x"));
            assert_int_equal(rules(replica), 1);
        }
        cm_replica_free(&replica);
    }
    assert_true(calls > 20);
}

static void
test_advance_out_of_memory_keeps_rules_and_seq(void **state)
{
    struct cm_replica *replica = new_replica();
    (void)state;
    apply(replica, "rule:r1", RULE("1", "1"));
    cm_replica_advance(replica, 1);
    apply(replica, "rule:r2", RULE("1", "2"));
    failing_alloc_arm_from(1);
    cm_replica_advance(replica, 2);
    assert_true(failing_alloc_disarm());
    assert_int_equal(rules(replica), 1);
    assert_int_equal(state_of(replica).seq, 1);
    cm_replica_advance(replica, 2);
    assert_int_equal(rules(replica), 2);
    assert_int_equal(state_of(replica).seq, 2);
    cm_replica_free(&replica);
}

/* --- readers beside the writer --- */

static atomic_bool stop_reading;

static void *
read_on(void *arg)
{
    struct cm_replica *replica = arg;
    uintptr_t n = 0;
    struct cm_replica_state now;
    while (!stop_reading) {
        struct cm_view *view = cm_replica_view(replica);
        struct cm_inbox *inbox = cm_view_inbox(view, "a@x", 3);
        struct cm_ruleset *set = cm_view_rules(view);
        if (inbox && !inbox->enabled)
            abort();
        n += set ? cm_ruleset_count(set) : 0;
        cm_inbox_release(&inbox);
        cm_ruleset_release(&set);
        cm_view_release(&view);
        cm_replica_state(replica, &now);
    }
    return (void *)n;
}

static void
test_readers_beside_writer(void **state)
{
    struct cm_replica *replica = new_replica();
    pthread_t threads[3];
    char key[64];
    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, replica),
                         0);
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "inbox:u%d@x", i % 500);
        apply(replica, "inbox:a@x", i % 2 ? ENV("1", "1") : NULL);
        apply(replica, key, ENV("1", "1"));
        apply(replica, "rule:r1", i % 3 ? RULE("1", "2") : NULL);
        cm_replica_advance(replica, i);
        if (i % 100 == 0) {
            assert_int_equal(cm_replica_begin(replica), CM_OK);
            assert_int_equal(cm_replica_load(replica, "inbox:a@x",
                                             ENV("1", "1"),
                                             strlen(ENV("1", "1"))),
                             CM_OK);
            assert_int_equal(cm_replica_swap(replica, "e", i), CM_OK);
        }
    }
    stop_reading = true;
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    cm_replica_free(&replica);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_envelope_parse_table),
        cmocka_unit_test(test_envelope_parse_every_cut),
        cmocka_unit_test(test_quote_json_table),
        cmocka_unit_test(test_map_many_keys),
        cmocka_unit_test(test_map_digest_is_order_free),
        cmocka_unit_test(test_hash_is_fixed),
        cmocka_unit_test(test_apply_set_change_delete),
        cmocka_unit_test(test_apply_equal_documents_share_one),
        cmocka_unit_test(test_apply_broken_document_is_kept_as_broken),
        cmocka_unit_test(test_apply_broken_rule_leaves_the_others),
        cmocka_unit_test(test_rules_are_sorted_by_ord_then_id),
        cmocka_unit_test(test_rules_of_all_faces_in_order_of_authority),
        cmocka_unit_test(test_faces_do_not_share_names),
        cmocka_unit_test(test_faces_broken_documents_hurt_nobody),
        cmocka_unit_test(test_swap_replaces_all_and_views_stay),
        cmocka_unit_test(test_each_gives_back_every_envelope),
        cmocka_unit_test(test_out_of_memory_at_every_call),
        cmocka_unit_test(test_advance_out_of_memory_keeps_rules_and_seq),
        cmocka_unit_test(test_readers_beside_writer),
    };
    return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
