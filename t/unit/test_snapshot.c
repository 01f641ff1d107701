/* SPDX-License-Identifier: BSD-2-Clause */
/* Covers P7, P8, P10 and P14 of the list of cases. */
#include "milter/store/replica.h"
#include "milter/store/snapshot.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOC(r, s, text)                                                        \
    "{\"rev\":" r ",\"seq\":" s ",\"doc\":{\"enabled\":true" text "}}"

static char dir[64];
static int dir_fd = -1;

static int
make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/chaosmilter-test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0;
}

static int
remove_dir(void **state)
{
    (void)state;
    unlinkat(dir_fd, "s", 0);
    unlinkat(dir_fd, "s.new", 0);
    unlinkat(dir_fd, "target", 0);
    close(dir_fd);
    return rmdir(dir); /* fails when anything was left behind */
}

static struct cm_replica *
new_replica(void)
{
    struct cm_replica *replica = NULL;
    assert_int_equal(cm_replica_new(&replica, 0), CM_OK);
    return replica;
}

static void
load(struct cm_replica *replica, const char *key, const char *text)
{
    assert_int_equal(cm_replica_load(replica, key, text, strlen(text)), CM_OK);
}

static struct cm_replica *
full_replica(void)
{
    struct cm_replica *replica = new_replica();
    assert_int_equal(cm_replica_begin(replica), CM_OK);
    load(replica, "inbox:a@example.com", DOC("1", "1", ""));
    load(replica, "inbox:\"a b\"@example.com",
         "{\"rev\":2,\"seq\":2,\"doc\":{\r\n\t\"enabled\" : true\n}}");
    load(replica, "rule:r1",
         "{\"rev\":1,\"seq\":3,\"ord\":3,\"doc\":{\"fault\":{\"kind\":"
         "\"error\"}}}");
    load(replica, "inbox:bad@example.com", "junk");
    assert_int_equal(cm_replica_swap(replica, "epoch-1", 17), CM_OK);
    return replica;
}

static struct cm_replica_state
state_of(struct cm_replica *replica)
{
    struct cm_replica_state state;
    cm_replica_state(replica, &state);
    return state;
}

static enum cm_status
read_it(struct cm_replica *replica)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status st = cm_snapshot_read(dir_fd, "s", replica, &err);
    if (st != CM_OK)
        print_message("  %s\n", err.msg);
    return st;
}

static void
test_write_then_read_is_the_same(void **state)
{
    struct cm_replica *one = full_replica(), *two = new_replica();
    struct stat status;
    (void)state;
    umask(0);
    assert_int_equal(cm_snapshot_write(dir_fd, "s", one, NULL), CM_OK);
    assert_int_equal(fstatat(dir_fd, "s", &status, 0), 0);
    assert_int_equal(status.st_mode & 07777, 0640);
    assert_int_equal(faccessat(dir_fd, "s.new", F_OK, 0), -1);
    assert_int_equal(read_it(two), CM_OK);
    assert_string_equal(state_of(two).epoch, "epoch-1");
    assert_int_equal(state_of(two).seq, 17);
    assert_int_equal(state_of(two).inboxes, 2);
    assert_int_equal(state_of(two).rules, 1);
    assert_int_equal(state_of(two).broken, 0);
    struct cm_view *view = cm_replica_view(two);
    struct cm_inbox *inbox = cm_view_inbox(view, "\"a b\"@example.com", 17);
    assert_non_null(inbox);
    cm_inbox_release(&inbox);
    cm_view_release(&view);
    /* And once more over the old one. */
    assert_int_equal(cm_snapshot_write(dir_fd, "s", two, NULL), CM_OK);
    assert_int_equal(read_it(one), CM_OK);
    assert_int_equal(state_of(one).digest, state_of(two).digest);
    cm_replica_free(&one);
    cm_replica_free(&two);
}

static void
test_write_empty_replica_reads_back(void **state)
{
    struct cm_replica *one = new_replica(), *two = full_replica();
    (void)state;
    assert_int_equal(cm_snapshot_write(dir_fd, "s", one, NULL), CM_OK);
    assert_int_equal(read_it(two), CM_OK);
    assert_int_equal(state_of(two).inboxes, 0);
    cm_replica_free(&one);
    cm_replica_free(&two);
}

static void
test_read_large_file_in_chunks(void **state)
{
    struct cm_replica *one = new_replica(), *two = new_replica();
    static char text[60000];
    char key[64];
    (void)state;
    assert_int_equal(cm_replica_begin(one), CM_OK);
    for (int i = 0; i < 40; i++) {
        int n =
            snprintf(text, sizeof text,
                     "{\"rev\":1,\"seq\":%d,\"doc\":{\"enabled\":true", i + 1);
        memset(text + n, ' ', sizeof text - (size_t)n);
        size_t len = 100 + (size_t)i * 1490;
        memcpy(text + len, "}}", 3);
        snprintf(key, sizeof key, "inbox:u%d@example.com", i);
        load(one, key, text);
    }
    assert_int_equal(cm_replica_swap(one, "e", 40), CM_OK);
    assert_int_equal(cm_snapshot_write(dir_fd, "s", one, NULL), CM_OK);
    assert_int_equal(read_it(two), CM_OK);
    assert_int_equal(state_of(two).digest, state_of(one).digest);
    cm_replica_free(&one);
    cm_replica_free(&two);
}

static void
test_read_none_is_notfound(void **state)
{
    struct cm_replica *replica = full_replica();
    (void)state;
    assert_int_equal(read_it(replica), CM_NOTFOUND);
    assert_int_equal(state_of(replica).inboxes, 2);
    cm_replica_free(&replica);
}

static void
put_file(const char *text, size_t len)
{
    int fd = openat(dir_fd, "s", O_WRONLY | O_CREAT | O_TRUNC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0640), 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
}

/* body, then the right checksum, so that what is wrong is the body. */
static void
put_body(const char *body, size_t len)
{
    static char text[300000];
    unsigned char md[32];
    assert_int_equal(EVP_Digest(body, len, md, NULL, EVP_sha256(), NULL), 1);
    memcpy(text, body, len);
    size_t at = len + (size_t)sprintf(text + len, "sha256 ");
    for (int i = 0; i < 32; i++)
        at += (size_t)sprintf(text + at, "%02x", md[i]);
    text[at++] = '\n';
    put_file(text, at);
}

#define HEAD "chaosmilter-snapshot 1\nepoch e\nseq 1\n"

static void
test_read_wrong_body_changes_nothing(void **state)
{
    static const struct {
        const char *body;
        size_t len;
    } cases[] = {
#define BODY(text) {text, sizeof text - 1}
        BODY(""),
        BODY("\n"),
        BODY("chaosmilter-snapshot 2\nepoch e\nseq 1\n"),
        BODY("chaosmilter-snapshot 1x\nepoch e\nseq 1\n"),
        BODY("chaosmilter-snapshot 1\nepoch\nseq 1\n"),
        BODY("chaosmilter-snapshot 1\nepoch e\nseq -1\n"),
        BODY("chaosmilter-snapshot 1\nepoch e\nseq x\n"),
        BODY("chaosmilter-snapshot 1\nepoch e\nseq 99999999999999999999\n"),
        BODY("chaosmilter-snapshot 1\nepoch e\nseq "
             "11111111111111111111111111111111\n"),
        BODY("chaosmilter-snapshot 1\nepoch "
             "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
             "eeeeeeeeeeee\nseq 1\n"),
        BODY(HEAD "no tab\n"),
        BODY(HEAD "inbox:\0a@x\t{}\n"),
        BODY("something else\n"),
    };
    struct cm_replica *replica = full_replica();
    uint64_t digest = state_of(replica).digest;
    (void)state;
    put_body(HEAD, strlen(HEAD)); /* the method works */
    assert_int_equal(read_it(replica), CM_OK);
    cm_replica_free(&replica);
    replica = full_replica();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_body(cases[i].body, cases[i].len);
        assert_int_equal(read_it(replica), CM_EPROTO);
        assert_true(state_of(replica).digest == digest);
        assert_int_equal(state_of(replica).inboxes, 2);
    }
    cm_replica_free(&replica);
}

static void
test_read_line_without_end_is_bounded(void **state)
{
    static char body[200000];
    struct cm_replica *replica = full_replica();
    (void)state;
    memset(body, 'x', sizeof body);
    memcpy(body, HEAD, strlen(HEAD));
    put_file(body, sizeof body);
    assert_int_equal(read_it(replica), CM_EPROTO);
    cm_replica_free(&replica);
}

static void
test_read_every_damage_is_found(void **state)
{
    static char whole[65536], damaged[65536];
    struct cm_replica *replica = full_replica();
    struct cm_err err;
    (void)state;
    assert_int_equal(cm_snapshot_write(dir_fd, "s", replica, NULL), CM_OK);
    int fd = openat(dir_fd, "s", O_RDONLY);
    ssize_t len = read(fd, whole, sizeof whole);
    close(fd);
    assert_true(len > 100);
    uint64_t digest = state_of(replica).digest;
    for (ssize_t cut = 0; cut < len; cut++) {
        put_file(whole, (size_t)cut);
        assert_int_equal(cm_snapshot_read(dir_fd, "s", replica, &err),
                         CM_EPROTO);
    }
    for (ssize_t at = 0; at < len; at++) {
        memcpy(damaged, whole, (size_t)len);
        damaged[at] = (char)(damaged[at] ^ 1);
        put_file(damaged, (size_t)len);
        if (cm_snapshot_read(dir_fd, "s", replica, &err) != CM_EPROTO)
            fail_msg("byte %d: %s", (int)at, err.msg);
    }
    memcpy(damaged, whole, (size_t)len);
    damaged[len] = 'x';
    put_file(damaged, (size_t)len + 1);
    assert_int_equal(read_it(replica), CM_EPROTO);
    assert_true(state_of(replica).digest == digest);
    cm_replica_free(&replica);
}

static void
test_read_untrusted_file_is_refused(void **state)
{
    struct cm_replica *replica = full_replica();
    (void)state;
    assert_int_equal(cm_snapshot_write(dir_fd, "s", replica, NULL), CM_OK);
    assert_int_equal(fchmodat(dir_fd, "s", 0660, 0), 0);
    assert_int_equal(read_it(replica), CM_EPROTO);
    assert_int_equal(fchmodat(dir_fd, "s", 0642, 0), 0);
    assert_int_equal(read_it(replica), CM_EPROTO);
    assert_int_equal(fchmodat(dir_fd, "s", 0640, 0), 0);
    assert_int_equal(read_it(replica), CM_OK);
    if (geteuid() == 0) {
        assert_int_equal(fchownat(dir_fd, "s", 12345, 0, 0), 0);
        assert_int_equal(read_it(replica), CM_EPROTO);
        assert_int_equal(fchownat(dir_fd, "s", 0, 0, 0), 0);
    }
    assert_int_equal(renameat(dir_fd, "s", dir_fd, "target"), 0);
    assert_int_equal(symlinkat("target", dir_fd, "s"), 0);
    assert_int_equal(read_it(replica), CM_EPROTO);
    unlinkat(dir_fd, "s", 0);
    assert_int_equal(mkdirat(dir_fd, "s", 0700), 0);
    assert_int_equal(read_it(replica), CM_EPROTO);
    unlinkat(dir_fd, "s", AT_REMOVEDIR);
    assert_int_equal(mkfifoat(dir_fd, "s", 0600), 0); /* would block */
    assert_int_equal(read_it(replica), CM_EPROTO);
    cm_replica_free(&replica);
}

static void
test_write_follows_no_link(void **state)
{
    struct cm_replica *replica = full_replica();
    struct stat status;
    (void)state;
    /* Left behind, or put there: the name of the temporary file. */
    assert_int_equal(symlinkat("target", dir_fd, "s.new"), 0);
    assert_int_equal(cm_snapshot_write(dir_fd, "s", replica, NULL), CM_OK);
    assert_int_equal(faccessat(dir_fd, "target", F_OK, 0), -1);
    assert_int_equal(fstatat(dir_fd, "s", &status, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_int_equal(cm_snapshot_write(dir_fd, "../s", replica, NULL),
                     CM_EINVAL);
    cm_replica_free(&replica);
}

static void
test_write_disk_full_keeps_old_file(void **state)
{
    struct cm_replica *replica = full_replica(), *other = new_replica();
    struct cm_err err = {CM_OK, ""};
    struct rlimit old, small = {100, 100};
    (void)state;
    assert_int_equal(cm_snapshot_write(dir_fd, "s", replica, NULL), CM_OK);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum cm_status st = cm_snapshot_write(dir_fd, "s", replica, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(st, CM_EIO);
    print_message("  %s\n", err.msg);
    assert_int_equal(faccessat(dir_fd, "s.new", F_OK, 0), -1);
    assert_int_equal(read_it(other), CM_OK);
    assert_int_equal(state_of(other).inboxes, 2);
    cm_replica_free(&replica);
    cm_replica_free(&other);
}

static void
test_out_of_memory_at_every_call(void **state)
{
    struct cm_replica *replica = full_replica(), *other = new_replica();
    struct cm_err err;
    long n;
    bool failed = true;
    (void)state;
    assert_int_equal(cm_snapshot_write(dir_fd, "s", replica, NULL), CM_OK);
    for (n = 1; failed; n++) {
        failing_alloc_arm(n);
        enum cm_status st = cm_snapshot_write(dir_fd, "s", replica, &err);
        failed = failing_alloc_disarm();
        assert_int_equal(st, failed ? CM_ENOMEM : CM_OK);
        assert_int_equal(faccessat(dir_fd, "s.new", F_OK, 0), -1);
    }
    assert_true(n > 3);
    failed = true;
    for (n = 1; failed; n++) {
        failing_alloc_arm(n);
        enum cm_status st = cm_snapshot_read(dir_fd, "s", other, &err);
        failed = failing_alloc_disarm();
        if (st != CM_OK) {
            assert_int_equal(st, CM_ENOMEM);
            assert_int_equal(state_of(other).inboxes, 0);
        }
        if (st == CM_OK && failed) { /* a hash that could not grow */
            cm_replica_free(&other);
            other = new_replica();
        }
    }
    assert_true(n > 10);
    cm_replica_free(&replica);
    cm_replica_free(&other);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_write_then_read_is_the_same),
        TEST(test_write_empty_replica_reads_back),
        TEST(test_read_large_file_in_chunks),
        TEST(test_read_none_is_notfound),
        TEST(test_read_wrong_body_changes_nothing),
        TEST(test_read_line_without_end_is_bounded),
        TEST(test_read_every_damage_is_found),
        TEST(test_read_untrusted_file_is_refused),
        TEST(test_write_follows_no_link),
        TEST(test_write_disk_full_keeps_old_file),
        TEST(test_out_of_memory_at_every_call),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
