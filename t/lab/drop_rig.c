/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/lab/drop_rig.h"
#include "milter/filter/drop_caps.h"
#include "milter/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct drop_rig rig;

/* --- what /proc says --- */

/* The rest of the line "NAME:\t..."; "" when there is none. */
void
proc_line(pid_t pid, const char *name, char *out, size_t cap)
{
    char path[64], line[512];
    size_t len = strlen(name);
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    out[0] = '\0';
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, cap, "%s", line + len + 2);
        }
    }
    if (f)
        fclose(f);
}

uint64_t
proc_hex(pid_t pid, const char *name)
{
    char text[64];
    proc_line(pid, name, text, sizeof text);
    return text[0] ? strtoull(text, NULL, 16) : UINT64_MAX;
}

/* The one child of that name, or 0. */
static pid_t
proc_child(pid_t parent, const char *name)
{
    char text[64];
    pid_t found = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc");
    while (dir && (entry = readdir(dir))) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0)
            continue;
        proc_line(pid, "PPid", text, sizeof text);
        if (atoi(text) != parent)
            continue;
        proc_line(pid, "State", text, sizeof text);
        if (text[0] == 'Z')
            continue;
        proc_line(pid, "Name", text, sizeof text);
        if (strcmp(text, name) == 0)
            found = pid;
    }
    if (dir)
        closedir(dir);
    return found;
}

/* A zombie is gone too: in a container nobody may collect it. */
bool
proc_is_gone(pid_t pid)
{
    char text[64];
    proc_line(pid, "State", text, sizeof text);
    return text[0] == '\0' || text[0] == 'Z';
}

pid_t
rig_keeper(pid_t filter)
{
    return proc_child(filter, "drop-keeper");
}

pid_t
rig_worker(pid_t filter)
{
    pid_t keeper = rig_keeper(filter);
    return keeper ? proc_child(keeper, "drop-worker") : 0;
}

int
proc_descriptors(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

int
rig_run_child(void (*body)(void))
{
    int how = 0;
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &how, 0) != pid)
        fail_msg("fork: %s", strerror(errno));
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

/* --- a dropper --- */

struct cm_dropper_opts
rig_usual(void)
{
    return (struct cm_dropper_opts){.fin = true,
                                    .user = RIG_USER,
                                    .ports = {1, rig.port},
                                    .nports = 2,
                                    .deadline_ms = RIG_DEADLINE_MS,
                                    .per_second = 100000};
}

void
rig_start(const struct cm_dropper_opts *opts)
{
    struct cm_err err = {CM_OK, ""};
    if (cm_dropper_start(&rig.dropper, opts, &err) != CM_OK)
        fail_msg("start: %s", err.msg);
}

int
rig_set_up(void **state)
{
    (void)state;
    struct cm_dropper_opts opts = rig_usual();
    rig_start(&opts);
    return 0;
}

int
rig_tear_down(void **state)
{
    (void)state;
    cm_dropper_stop(&rig.dropper);
    return 0;
}

enum cm_status
rig_drop_hinted(enum cm_drop_how how, const struct cm_tuple *tuple, pid_t hint)
{
    struct cm_err err = {CM_OK, ""};
    enum cm_status status =
        cm_dropper_drop(rig.dropper, how, tuple, hint, &err);
    if (status != CM_OK && !err.msg[0])
        fail_msg("%s without a reason", cm_status_name(status));
    return status;
}

enum cm_status
rig_drop(enum cm_drop_how how, const struct cm_tuple *tuple)
{
    return rig_drop_hinted(how, tuple, getpid());
}

bool
rig_is_up(void)
{
    return !cm_dropper_why_not(rig.dropper, CM_DROP_RST) &&
           !cm_dropper_why_not(rig.dropper, CM_DROP_FIN);
}

void
rig_check_process(pid_t pid, uint64_t caps, const char *seccomp)
{
    char text[64], uids[64];
    unsigned uid = (unsigned)getpwnam(RIG_USER)->pw_uid;
    assert_int_not_equal(pid, 0);
    assert_true(proc_hex(pid, "CapEff") == caps);
    assert_true(proc_hex(pid, "CapPrm") == caps);
    assert_true(proc_hex(pid, "CapInh") == 0);
    assert_true(proc_hex(pid, "CapBnd") == 0);
    assert_true(proc_hex(pid, "CapAmb") == 0);
    proc_line(pid, "NoNewPrivs", text, sizeof text);
    assert_string_equal(text, "1");
    proc_line(pid, "Seccomp", text, sizeof text);
    assert_string_equal(text, seccomp);
    proc_line(pid, "Groups", text, sizeof text);
    assert_int_equal(strspn(text, " "), strlen(text));
    snprintf(uids, sizeof uids, "%u\t%u\t%u\t%u", uid, uid, uid, uid);
    proc_line(pid, "Uid", text, sizeof text);
    assert_string_equal(text, uids);
}

bool
rig_is_ready(void)
{
    signal(SIGPIPE, SIG_IGN);
    cm_log_set_level(CM_LOG_ERR);
    /* Some groups to be dropped. */
    if (geteuid() != 0 || !(proc_hex(getpid(), "CapEff") & CM_CAP_NET_ADMIN) ||
        !tcp_kernel_destroys() || setgroups(2, (const gid_t[]){1, 2}) < 0) {
        fprintf(stderr, "needs root, CAP_NET_ADMIN and SOCK_DESTROY\n");
        return false;
    }
    rig.port = tcp_free_port();
    rig.other_port = tcp_free_port();
    return true;
}
