/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the processes of the dropper may do, and what is said where they may
 * not: as root, as an ordinary user with and without the capabilities, and as
 * root of a namespace that does not own the network.
 */
#include "milter/filter/drop_caps.h"
#include "milter/privs.h"
#include "t/lab/drop_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* How many descriptors opendir() finds: ".", "..", and those that are meant. */
static void
check_descriptors(pid_t pid, int meant)
{
    assert_int_equal(proc_descriptors(pid), meant + 2);
}

static void
test_privileges_with_fin(void **state)
{
    (void)state;
    rig_check_process(rig_keeper(getpid()), RIG_BOTH_CAPS, "0");
    rig_check_process(rig_worker(getpid()), RIG_BOTH_CAPS, "2");
    check_descriptors(rig_keeper(getpid()), 4);
    check_descriptors(rig_worker(getpid()), 6); /* netlink and /proc too */
}

static void
test_privileges_without_fin(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = rig_usual();
    struct tcp_pair pair;
    cm_dropper_stop(&rig.dropper);
    opts.fin = false;
    rig_start(&opts);
    rig_check_process(rig_keeper(getpid()), CM_CAP_NET_ADMIN, "0");
    rig_check_process(rig_worker(getpid()), CM_CAP_NET_ADMIN, "2");
    check_descriptors(rig_worker(getpid()), 5);
    assert_null(cm_dropper_why_not(rig.dropper, CM_DROP_RST));
    assert_non_null(cm_dropper_why_not(rig.dropper, CM_DROP_FIN));
    int listener = tcp_listen(TCP_V4, rig.port);
    tcp_connect(&pair, listener, TCP_V4, rig.port);
    assert_int_equal(rig_drop(CM_DROP_FIN, &pair.tuple), CM_EIO);
    assert_true(tcp_works(&pair));
    assert_int_equal(rig_drop(CM_DROP_RST, &pair.tuple), CM_OK);
    assert_int_equal(tcp_client_end(&pair), TCP_RESET);
    tcp_close(&pair);
    close(listener);
}

/* As in main: start, give up everything, and then drop. */
static void
filter_without_privileges(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = rig_usual();
    struct tcp_pair pair;
    struct cm_err err;
    const enum cm_drop_how hows[] = {CM_DROP_RST, CM_DROP_FIN};
    int listener = tcp_listen(TCP_V4, rig.port);
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    CHECK(cm_privs_drop(RIG_USER, NULL, &err) == CM_OK);
    CHECK(proc_hex(getpid(), "CapEff") == 0);
    CHECK(proc_hex(getpid(), "CapPrm") == 0);
    for (int i = 0; i < 2; i++) {
        tcp_connect(&pair, listener, TCP_V4, rig.port);
        CHECK(cm_dropper_drop(mine, hows[i], &pair.tuple, 0, &err) == CM_OK);
        CHECK(tcp_client_end(&pair) == (i ? TCP_EOF : TCP_RESET));
        tcp_close(&pair);
    }
    cm_dropper_stop(&mine);
    CHECK(mine == NULL);
}

static void
test_filter_itself_needs_no_privileges(void **state)
{
    (void)state;
    assert_int_equal(rig_run_child(filter_without_privileges), 0);
}

static void
ordinary_user(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = rig_usual();
    struct cm_tuple tuple = {
        .client = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = 1},
        .mta = {.family = AF_INET, .addr = {127, 0, 0, 1}, .port = rig.port}};
    struct cm_err err;
    CHECK(cm_privs_drop(RIG_USER, NULL, &err) == CM_OK);
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    const char *rst = cm_dropper_why_not(mine, CM_DROP_RST);
    const char *fin = cm_dropper_why_not(mine, CM_DROP_FIN);
    CHECK(rst && strstr(rst, "CAP_NET_ADMIN"));
    CHECK(fin && strstr(fin, "CAP_SYS_PTRACE"));
    CHECK(cm_dropper_drop(mine, CM_DROP_RST, &tuple, 0, &err) == CM_EIO);
    CHECK(strcmp(err.msg, rst) == 0);
    CHECK(rig_keeper(getpid()) == 0);
    cm_dropper_stop(&mine);
}

static void
test_without_capabilities_says_why(void **state)
{
    (void)state;
    assert_int_equal(rig_run_child(ordinary_user), 0);
}

/* As a service manager starts us: an ordinary user, with the capabilities. */
static void
ordinary_user_with_capabilities(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = rig_usual();
    struct cm_drop_user user;
    struct tcp_pair pair;
    struct cm_err err;
    const enum cm_drop_how hows[] = {CM_DROP_RST, CM_DROP_FIN};
    int listener = tcp_listen(TCP_V4, rig.port);
    CHECK(cm_drop_caps_user(&user, RIG_USER, &err) == CM_OK);
    CHECK(cm_drop_caps_keep(&user, RIG_BOTH_CAPS, &err) == CM_OK);
    opts.user = "";
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    CHECK(proc_hex(rig_worker(getpid()), "CapEff") == RIG_BOTH_CAPS);
    for (int i = 0; i < 2; i++) {
        tcp_connect(&pair, listener, TCP_V4, rig.port);
        CHECK(cm_dropper_drop(mine, hows[i], &pair.tuple, 0, &err) == CM_OK);
        CHECK(tcp_client_end(&pair) == (i ? TCP_EOF : TCP_RESET));
        tcp_close(&pair);
    }
    cm_dropper_stop(&mine);
}

static void
test_capabilities_without_root_are_enough(void **state)
{
    (void)state;
    assert_int_equal(rig_run_child(ordinary_user_with_capabilities), 0);
}

static int to_child[2], to_parent[2];

/* Root of a user namespace holds every capability, but not over this network:
 * only the self-test can tell. */
static void
root_of_a_namespace(void)
{
    struct cm_dropper *mine = NULL;
    struct cm_dropper_opts opts = rig_usual();
    struct cm_err err;
    char c = 'u';
    if (unshare(CLONE_NEWUSER) < 0)
        _exit(77);
    CHECK(write(to_parent[1], &c, 1) == 1 && read(to_child[0], &c, 1) == 1);
    CHECK(setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0);
    CHECK(cm_drop_caps_permitted() & CM_CAP_NET_ADMIN);
    opts.fin = false;
    CHECK(cm_dropper_start(&mine, &opts, &err) == CM_OK);
    const char *rst = cm_dropper_why_not(mine, CM_DROP_RST);
    CHECK(rst && strstr(rst, strerror(EPERM)));
    CHECK(rig_keeper(getpid()) == 0); /* of no use, so not kept */
    cm_dropper_stop(&mine);
}

static bool
write_map(pid_t pid, const char *which)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, "0 0 65536\n", 10) == 10;
    if (fd >= 0)
        close(fd);
    return ok;
}

static void
test_selftest_finds_that_the_capability_does_not_reach(void **state)
{
    (void)state;
    int how = 0;
    char c;
    if (pipe2(to_child, O_CLOEXEC) < 0 || pipe2(to_parent, O_CLOEXEC) < 0)
        fail_msg("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        root_of_a_namespace();
        _exit(0);
    }
    close(to_parent[1]);
    if (read(to_parent[0], &c, 1) == 1) {
        assert_true(write_map(pid, "uid_map") && write_map(pid, "gid_map"));
        assert_int_equal(write(to_child[1], &c, 1), 1);
    }
    close(to_child[0]);
    close(to_child[1]);
    close(to_parent[0]);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how));
    if (WEXITSTATUS(how) == 77)
        skip(); /* a kernel without user namespaces */
    assert_int_equal(WEXITSTATUS(how), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_privileges_with_fin),
        RIG_TEST(test_privileges_without_fin),
        RIG_TEST(test_filter_itself_needs_no_privileges),
        RIG_TEST(test_without_capabilities_says_why),
        RIG_TEST(test_capabilities_without_root_are_enough),
        RIG_TEST(test_selftest_finds_that_the_capability_does_not_reach),
    };
    return rig_is_ready() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
