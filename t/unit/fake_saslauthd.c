/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/unit/fake_saslauthd.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUESTION_BYTES (4 * 65537)

static size_t
put_field(char *out, const char *text, size_t len)
{
    out[0] = (char)(len >> 8);
    out[1] = (char)len;
    memcpy(out + 2, text, len);
    return len + 2;
}

size_t
fake_saslauthd_ask(char *out, const char *login, const char *password,
                   size_t password_len, const char *realm)
{
    size_t n = put_field(out, login, strlen(login));
    n += put_field(out + n, password, password_len);
    n += put_field(out + n, "smtp", 4);
    return n + put_field(out + n, realm, strlen(realm));
}

/* n more bytes; false at the end. */
static bool
hear(int fd, char *to, size_t n)
{
    for (ssize_t got; n > 0; to += got, n -= (size_t)got)
        if ((got = recv(fd, to, n, 0)) <= 0)
            return false;
    return true;
}

static bool
hear_field(int fd, char *question, size_t *at, char *text, size_t cap)
{
    char *field = question + *at;
    if (!hear(fd, field, 2))
        return false;
    size_t len =
        (size_t)((unsigned char)field[0] << 8 | (unsigned char)field[1]);
    if (!hear(fd, field + 2, len))
        return false;
    snprintf(text, cap, "%.*s", (int)(len < cap ? len : cap - 1), field + 2);
    *at += 2 + len;
    return true;
}

static void
say(int fd, const char *text, size_t len, bool byte_by_byte)
{
    static char answer[QUESTION_BYTES];
    len = put_field(answer, text, len < 65535 ? len : 65535);
    for (size_t i = 0; byte_by_byte && i < len; i++)
        if (send(fd, answer + i, 1, MSG_NOSIGNAL) != 1)
            return;
    for (size_t at = 0; !byte_by_byte && at < len;) {
        ssize_t n = send(fd, answer + at, len - at, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        at += (size_t)n;
    }
}

static void
serve(int fd)
{
    static char shown[3 + QUESTION_BYTES];
    char *question = shown + 3;
    char login[512], password[512], rest[512];
    size_t len = 0;
    bool whole = hear_field(fd, question, &len, login, sizeof login);
    if (strcmp(login, "deaf") == 0) {
        say(fd, "NO", 2, false);
        return;
    }
    whole = whole &&
            hear_field(fd, question, &len, password, sizeof password) &&
            hear_field(fd, question, &len, rest, sizeof rest) &&
            hear_field(fd, question, &len, rest, sizeof rest);
    if (!whole || strcmp(login, "mute") == 0)
        return;
    while (strcmp(login, "stuck") == 0)
        pause();
    if (strcmp(login, "slow") == 0)
        usleep(200000);
    memcpy(shown, strcmp(password, "secret") == 0 ? "OK " : "NO ", 3);
    say(fd, shown, strcmp(login, "big") == 0 ? 65535 : 3 + len,
        strcmp(login, "drip") == 0);
}

static void
run(int listen_fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    while (getppid() == parent) {
        int fd = accept(listen_fd, NULL, NULL);
        if (fd >= 0 && fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve(fd);
            _exit(0);
        }
        close(fd);
    }
    _exit(0);
}

int
fake_saslauthd_start(struct fake_saslauthd *fake, const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    pid_t parent = getpid();
    snprintf(fake->path, sizeof fake->path, "%s", path);
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun) < 0)
        return -1;
    int ready[2];
    char byte;
    if (pipe(ready) < 0 || (fake->pid = fork()) < 0)
        return -1;
    if (fake->pid == 0) { /* who listens is who a peer sees */
        if (listen(fd, 0) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        run(fd, parent);
    }
    close(fd);
    close(ready[1]);
    int status = read(ready[0], &byte, 1) == 1 ? 0 : -1;
    close(ready[0]);
    return status;
}

void
fake_saslauthd_stop(struct fake_saslauthd *fake)
{
    if (fake->pid > 0) {
        kill(fake->pid, SIGKILL);
        waitpid(fake->pid, NULL, 0);
    }
    fake->pid = 0;
    unlink(fake->path);
}
