/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum cm_status
cm_secret_open(struct cm_secret *secret_r, size_t cap)
{
    void *data = mmap(NULL, cap, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return CM_ENOMEM;
    /* Not vital: the process as a whole is not dumpable (privs.c). */
    (void)madvise(data, cap, MADV_DONTDUMP);
    *secret_r = (struct cm_secret){.data = data, .cap = cap};
    return CM_OK;
}

void
cm_secret_close(struct cm_secret *secret)
{
    if (!secret->data)
        return;
    explicit_bzero(secret->data, secret->len);
    munmap(secret->data, secret->cap);
    *secret = (struct cm_secret){NULL, 0, 0};
}

enum cm_secret_got
cm_secret_receive(struct cm_secret *secret, int fd)
{
    ssize_t n;
    if (secret->len == secret->cap)
        return CM_SECRET_NONE;
    do
        n = recv(fd, secret->data + secret->len, secret->cap - secret->len,
                 MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return CM_SECRET_NONE;
    if (n <= 0)
        return CM_SECRET_END;
    secret->len += (size_t)n;
    return CM_SECRET_SOME;
}

enum cm_status
cm_secret_send(struct cm_secret *secret, int fd)
{
    ssize_t n = 0;
    while (secret->len > 0) {
        n = send(fd, secret->data, secret->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            cm_secret_forget(secret, (size_t)n);
        else if (errno != EINTR)
            break;
    }
    return n >= 0 || errno == EAGAIN || errno == EWOULDBLOCK ? CM_OK : CM_EIO;
}

void
cm_secret_forget(struct cm_secret *secret, size_t n)
{
    size_t rest = secret->len - n;
    memmove(secret->data, secret->data + n, rest);
    explicit_bzero(secret->data + rest, n);
    secret->len = rest;
}
