/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll() over a table. Linking an HTTP library into the filter for one page was
 * rejected: what must be guarded in it is more than there is here to write. A
 * client has CM_SCRAPE_DEADLINE_MS for everything; when the table is full, the
 * one that came first makes room, so those who only linger keep nobody out.
 *
 * On loopback the Host must be a literal address or localhost: a page in a
 * browser may have its name point here (DNS rebinding), but it sends the name.
 */
#include "milter/filter/scrape.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/prom.h"
#include "milter/store/thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CM_SCRAPE_PAGE_BYTES ((size_t)512 * 1024)
#define CM_SCRAPE_BACKLOG    16
#define CM_SCRAPE_PAUSE_MS   50 /* when no descriptor is left */

struct client {
    int fd; /* -1: a free place */
    int64_t due_ms;
    char head[CM_SCRAPE_HEAD_BYTES + 1];
    size_t len;
    struct cm_buf answer; /* nothing in it: the head is still awaited */
    size_t sent;
    bool drains; /* answered; what it says until it hangs up is passed over */
};

struct cm_scrape {
    int fd, wake_fd;
    bool loopback, started;
    pthread_t thread;
    atomic_bool stopping;
    void (*page)(void *arg, struct cm_buf *buf);
    void *arg;
    struct client clients[CM_SCRAPE_CLIENTS];
};

/* --- what is answered --- */

static void
put_answer(struct client *client, const char *status, const char *more,
           const char *type, const char *body, size_t len)
{
    cm_buf_init(&client->answer, CM_SCRAPE_PAGE_BYTES + 1024);
    cm_buf_printf(&client->answer,
                  "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "X-Content-Type-Options: nosniff\r\nCache-Control: no-store"
                  "\r\nConnection: close\r\n%s\r\n",
                  status, type, len, more);
    cm_buf_add(&client->answer, body, len);
}

static void
refuse(struct client *client, const char *status, const char *more)
{
    char body[64];
    int len = snprintf(body, sizeof body, "%s\n", status);
    put_answer(client, status, more, "text/plain", body, (size_t)len);
}

static void
answer_page(struct cm_scrape *scrape, struct client *client)
{
    struct cm_buf page;
    cm_buf_init(&page, CM_SCRAPE_PAGE_BYTES);
    scrape->page(scrape->arg, &page);
    if (cm_buf_status(&page) == CM_OK && page.len > 0)
        put_answer(client, "200 OK", "", CM_PROM_TYPE, page.data, page.len);
    else
        refuse(client, "503 Service Unavailable", "Retry-After: 5\r\n");
    cm_buf_fini(&page);
}

/* --- what is asked --- */

/* The value of the one header of this name, cut off at its end; NULL: there is
 * none, or more than one. Changes the head. */
static char *
take_header(char *head, const char *name)
{
    char *found = NULL;
    size_t len = strlen(name);
    for (char *line = strstr(head, "\r\n"); line && line[2];
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, len) != 0 || line[2 + len] != ':')
            continue;
        if (found)
            return NULL;
        found = line + 2 + len + 1;
        found += strspn(found, " \t");
    }
    if (found)
        found[strcspn(found, "\r\n \t")] = '\0';
    return found;
}

/* Is it "localhost" or a literal address, with or without a port? */
static bool
is_no_name(char *host)
{
    unsigned char addr[sizeof(struct in6_addr)];
    char *port = strrchr(host, ':');
    if (host[0] == '[') {
        char *end = strchr(host, ']');
        if (!end || (end[1] != '\0' && end[1] != ':'))
            return false;
        *end = '\0';
        return inet_pton(AF_INET6, host + 1, addr) == 1;
    }
    if (port)
        *port = '\0';
    return strcasecmp(host, "localhost") == 0 ||
           inet_pton(AF_INET, host, addr) == 1;
}

/* The head is complete, and ends in an empty line. */
static void
judge(struct cm_scrape *scrape, struct client *client)
{
    char *head = client->head;
    size_t line = strcspn(head, "\r");
    char *host = NULL;
    bool get = strncmp(head, "GET ", 4) == 0;
    bool http = line > 9 && (memcmp(head + line - 9, " HTTP/1.1", 9) == 0 ||
                             memcmp(head + line - 9, " HTTP/1.0", 9) == 0);
    bool whole = strlen(head) == client->len; /* no NUL */
    if (!whole || !http || !(host = take_header(head, "Host")) || !*host)
        refuse(client, "400 Bad Request", "");
    else if (scrape->loopback && !is_no_name(host))
        refuse(client, "421 Misdirected Request", "");
    else if (!get)
        refuse(client, "405 Method Not Allowed", "Allow: GET\r\n");
    else if (line != sizeof "GET /metrics HTTP/1.1" - 1 ||
             strncmp(head + 4, "/metrics ", 9) != 0)
        refuse(client, "404 Not Found", "");
    else
        answer_page(scrape, client);
}

/* --- a client --- */

static void
drop(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    cm_buf_fini(&client->answer);
    memset(client, 0, sizeof *client);
    client->fd = -1;
}

/* Who cannot be let in stays at the door, and poll() would say so again at
 * once, for as long as that lasts. */
static void
pause_for_want(struct cm_scrape *scrape, int error)
{
    struct pollfd wake = {.fd = scrape->wake_fd, .events = POLLIN};
    if (error == EMFILE || error == ENFILE || error == ENOBUFS ||
        error == ENOMEM)
        (void)poll(&wake, 1, CM_SCRAPE_PAUSE_MS);
}

static void
greet(struct cm_scrape *scrape)
{
    struct client *place = &scrape->clients[0];
    int fd = accept4(scrape->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        pause_for_want(scrape, errno);
        return;
    }
    for (size_t i = 0; i < CM_SCRAPE_CLIENTS; i++) {
        struct client *other = &scrape->clients[i];
        if (place->fd >= 0 && (other->fd < 0 || other->due_ms < place->due_ms))
            place = other;
    }
    drop(place);
    place->fd = fd;
    place->due_ms = cm_clock_mono_ms() + CM_SCRAPE_DEADLINE_MS;
}

static void
hear(struct cm_scrape *scrape, struct client *client)
{
    size_t room = CM_SCRAPE_HEAD_BYTES - client->len;
    ssize_t n = recv(client->fd, client->head + client->len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(client);
        return;
    }
    if (client->drains)
        return; /* over the same bytes again */
    client->len += (size_t)n;
    client->head[client->len] = '\0';
    if (memmem(client->head, client->len, "\r\n\r\n", 4))
        judge(scrape, client);
    else if (client->len == CM_SCRAPE_HEAD_BYTES)
        refuse(client, "431 Request Header Fields Too Large", "");
    if (cm_buf_status(&client->answer) != CM_OK)
        drop(client); /* no memory to answer with */
}

/* Closing a socket with unread bytes in it resets the connection, and the
 * answer may be lost with it: so we hang up first, and close when the client
 * has done so too or its time is over. */
static void
say(struct client *client)
{
    ssize_t n = send(client->fd, client->answer.data + client->sent,
                     client->answer.len - client->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        drop(client);
    if (n <= 0)
        return;
    client->sent += (size_t)n;
    if (client->sent < client->answer.len)
        return;
    shutdown(client->fd, SHUT_WR);
    cm_buf_fini(&client->answer);
    client->drains = true;
    client->len = 0;
}

/* --- the thread --- */

static short
events_of(const struct client *client)
{
    return client->answer.len > 0 ? POLLOUT : POLLIN;
}

static int
until_next_deadline(const struct cm_scrape *scrape)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < CM_SCRAPE_CLIENTS; i++)
        if (scrape->clients[i].fd >= 0 && scrape->clients[i].due_ms < next)
            next = scrape->clients[i].due_ms;
    if (next == INT64_MAX)
        return -1;
    int64_t left = next - cm_clock_mono_ms();
    return left > 0 ? (int)left : 0;
}

static void
attend(struct cm_scrape *scrape, struct client *client, short revents)
{
    if (client->due_ms <= cm_clock_mono_ms())
        drop(client);
    else if (revents && client->answer.len > 0)
        say(client);
    else if (revents)
        hear(scrape, client);
}

static void *
scrape_main(void *arg)
{
    struct cm_scrape *scrape = arg;
    struct pollfd fds[2 + CM_SCRAPE_CLIENTS];
    while (!atomic_load(&scrape->stopping)) {
        fds[0] = (struct pollfd){.fd = scrape->wake_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = scrape->fd, .events = POLLIN};
        for (size_t i = 0; i < CM_SCRAPE_CLIENTS; i++)
            fds[2 + i] =
                (struct pollfd){.fd = scrape->clients[i].fd,
                                .events = events_of(&scrape->clients[i])};
        int n = poll(fds, 2 + CM_SCRAPE_CLIENTS, until_next_deadline(scrape));
        if (n < 0 && errno != EINTR)
            break;
        for (size_t i = 0; i < CM_SCRAPE_CLIENTS; i++)
            if (scrape->clients[i].fd >= 0)
                attend(scrape, &scrape->clients[i],
                       n > 0 ? fds[2 + i].revents : 0);
        if (n > 0 && fds[1].revents)
            greet(scrape);
    }
    return NULL;
}

/* --- start and stop --- */

static bool
is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)sa)
                         ->sin_addr.s_addr) >>
                   24 ==
               127;
    return IN6_IS_ADDR_LOOPBACK(
        &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static enum cm_status
listen_on(struct cm_scrape *scrape, const char *address, struct cm_err *err)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    size_t bracket = address[0] == '[';
    size_t len = colon ? (size_t)(colon - address) : 0;
    struct addrinfo *ai = NULL,
                    hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags =
                                 AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    if (len <= 2 * bracket || len >= sizeof host)
        return cm_err_set(err, CM_EINVAL, "must be address:port");
    snprintf(host, sizeof host, "%.*s", (int)(len - 2 * bracket),
             address + bracket);
    if (getaddrinfo(host, colon + 1, &hints, &ai) != 0)
        return cm_err_set(err, CM_EINVAL, "must be address:port");
    int on = 1;
    enum cm_status status = CM_OK;
    scrape->loopback = is_loopback(ai->ai_addr);
    scrape->fd =
        socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (scrape->fd >= 0)
        setsockopt(scrape->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (scrape->fd < 0 || bind(scrape->fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
        listen(scrape->fd, CM_SCRAPE_BACKLOG) < 0)
        status = cm_err_set(err, CM_EIO, "cannot listen on %s: %m", address);
    freeaddrinfo(ai);
    return status;
}

enum cm_status
cm_scrape_open(struct cm_scrape **scrape_r, const char *address,
               struct cm_err *err)
{
    struct cm_scrape *scrape = calloc(1, sizeof *scrape);
    if (!scrape)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    scrape->fd = -1;
    for (size_t i = 0; i < CM_SCRAPE_CLIENTS; i++)
        scrape->clients[i].fd = -1;
    scrape->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum cm_status status = CM_OK;
    if (scrape->wake_fd < 0)
        status = cm_err_set(err, CM_EIO, "no descriptor left");
    if (status == CM_OK)
        status = listen_on(scrape, address, err);
    if (status != CM_OK)
        cm_scrape_close(&scrape);
    else if (!scrape->loopback)
        cm_log_warn("metrics are open to all who reach %s", address);
    *scrape_r = scrape;
    return status;
}

enum cm_status
cm_scrape_start(struct cm_scrape *scrape,
                void (*page)(void *arg, struct cm_buf *buf), void *arg,
                struct cm_err *err)
{
    scrape->page = page;
    scrape->arg = arg;
    enum cm_status status =
        cm_thread_start(&scrape->thread, scrape_main, scrape, err);
    scrape->started = status == CM_OK;
    return status;
}

void
cm_scrape_close(struct cm_scrape **scrape_p)
{
    struct cm_scrape *scrape = *scrape_p;
    uint64_t one = 1;
    if (!scrape)
        return;
    atomic_store(&scrape->stopping, true);
    if (scrape->started) {
        if (write(scrape->wake_fd, &one, sizeof one) < 0) {
            /* Full already, which wakes as well. */
        }
        pthread_join(scrape->thread, NULL);
    }
    for (size_t i = 0; i < CM_SCRAPE_CLIENTS; i++)
        drop(&scrape->clients[i]);
    if (scrape->fd >= 0)
        close(scrape->fd);
    if (scrape->wake_fd >= 0)
        close(scrape->wake_fd);
    free(scrape);
    *scrape_p = NULL;
}
