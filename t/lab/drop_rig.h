/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef DROP_RIG_H
#define DROP_RIG_H

#include "milter/clock.h"
#include "milter/filter/drop_caps.h"
#include "milter/filter/dropper.h"
#include "t/lab/tcp_pair.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

/*
 * What the tests of the dropper share: a dropper of the usual settings for each
 * test, and what /proc tells of its processes. As root; where the kernel has no
 * SOCK_DESTROY or we are not root, which is found out without the code under
 * test, a program ends with 77.
 */
#define RIG_USER        "nobody"
#define RIG_DEADLINE_MS 1000 /* the machine may be busy */
#define RIG_BOTH_CAPS   (CM_CAP_NET_ADMIN | CM_CAP_SYS_PTRACE)

#define WAIT_UNTIL(condition, ms)                                              \
    do {                                                                       \
        int64_t until_ = cm_clock_mono_ms() + (ms);                            \
        while (!(condition)) {                                                 \
            if (cm_clock_mono_ms() >= until_)                                  \
                fail_msg("not within %d ms: %s", (int)(ms), #condition);       \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

/* In a forked child cmocka's asserts would run on into the next test. */
#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "child: line %d: %s\n", __LINE__, #condition);     \
            _exit(1);                                                          \
        }                                                                      \
    } while (0)

#define RIG_TEST(name)                                                         \
    cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)

struct drop_rig {
    uint16_t port;       /* allowed */
    uint16_t other_port; /* not allowed */
    struct cm_dropper *dropper;
};
extern struct drop_rig rig;

/* rig_is_ready - once, in main; false: this host or this user will not do. */
bool rig_is_ready(void);

/* Start and stop rig.dropper, as each test finds and leaves it. */
int rig_set_up(void **state);
int rig_tear_down(void **state);

struct cm_dropper_opts rig_usual(void);
void rig_start(const struct cm_dropper_opts *opts);
bool rig_is_up(void);

/* rig_drop - by rig.dropper, with this process as the hint or another. */
enum cm_status rig_drop(enum cm_drop_how how, const struct cm_tuple *tuple);
enum cm_status rig_drop_hinted(enum cm_drop_how how,
                               const struct cm_tuple *tuple, pid_t hint);

/* The filter's children; 0: there is none. */
pid_t rig_keeper(pid_t filter);
pid_t rig_worker(pid_t filter);

/* rig_check_process - of RIG_USER, with exactly these capabilities, no groups,
 * and Seccomp as /proc says it. */
void rig_check_process(pid_t pid, uint64_t caps, const char *seccomp);

/* rig_run_child - body() in a forked process; its exit status, -1: killed. */
int rig_run_child(void (*body)(void));

/* Of /proc/PID/status the rest of the line "NAME:\t..."; "" and UINT64_MAX when
 * there is none. */
void proc_line(pid_t pid, const char *name, char *out, size_t cap);
uint64_t proc_hex(pid_t pid, const char *name);
/* proc_is_gone - also a zombie: in a container nobody may collect it. */
bool proc_is_gone(pid_t pid);
/* proc_descriptors - open ones, and the two of every folder. */
int proc_descriptors(pid_t pid);

#endif
