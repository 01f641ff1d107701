/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Why. Debian builds libmilter with a pool of workers, and one worker may be
 * handed several sessions that are ready at once. A callback that sleeps makes
 * the others wait: with 500 sessions of 3 s each, another session's option
 * negotiation was answered 3.0 s late. A delayed mail would delay mail that
 * nobody asked to delay.
 *
 * How. libmilter writes a reply with writev(2), on the callback's own thread,
 * right after the callback; it reads a command with read(2) on that thread
 * right before. This file defines both, and close(2): the executable's symbols
 * come before libc's when the shared libmilter is bound (ELF symbol
 * precedence), and a static libmilter.a is linked against them anyway. A
 * thread-local note, set by the callback, says "hold what is written to this
 * descriptor next". One timer thread sends it when due, and progress packets
 * before that.
 *
 * What could go wrong, and what is done about it:
 *  - A libmilter that writes otherwise: proved on each session by its reply to
 * the option negotiation (cm_hold_watch); if it did not pass here, the callback
 *    sleeps instead, and status says so.
 *  - The session ends while its reply is held: close() drops the hold under the
 *    lock, before the descriptor number can be used again.
 *  - A callback that reads from another socket (Redis): the descriptor is taken
 * on entry, before that. Rejected: sleeping; a relay in front of libmilter
 * (half the throughput, three descriptors a session).
 */
#include "milter/filter/hold.h"
#include "milter/clock.h"
#include "milter/log.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CM_HOLD_FDS_MAX (1 << 20)
#define CM_HOLD_BYTES_MAX                                                      \
    65536                      /* a reply is under 36 KiB: 32 lines of 1 KiB   \
                                */
#define CM_HOLD_RETRY_US 5000  /* the MTA's socket buffer was full */
#define CM_HOLD_NAP_US   50000 /* between looks whether to stop */
#define CM_HOLD_WAIT_US  50000 /* before accept() is tried again */
#define CM_HOLD_NO_FD    (-1)

struct hold {
    int fd;
    size_t heap_at;  /* index in the heap */
    int64_t next_us; /* when the timer looks at it again */
    int64_t due_us;  /* when the reply goes out */
    int64_t began_us, sent_us;
    size_t progress_left; /* bytes of a progress packet still to be sent */
    unsigned char *data;
    size_t len, sent;
    struct cm_hold_wish wish;
    enum cm_hold_end end; /* SENT, unless it is cut short */
};

struct slot {
    atomic_bool verified; /* the negotiation's reply passed our writev */
    atomic_bool tcp;      /* acknowledge at once */
    atomic_bool held;     /* hold is set; read without the lock */
    struct hold *hold;    /* under lock */
};

/* What this thread heard: the descriptor it read from last, and the one that
 * the callback in hand was entered with. */
static _Thread_local struct {
    int read_fd;
    int session_fd;
} heard = {CM_HOLD_NO_FD, CM_HOLD_NO_FD};

/* What the callback in hand asked for; CM_HOLD_NO_FD: nothing. */
static _Thread_local struct {
    int watch_fd;
    int hold_fd;
    struct cm_hold_wish wish;
} asked = {.watch_fd = CM_HOLD_NO_FD, .hold_fd = CM_HOLD_NO_FD};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool started;         /* under lock */
    atomic_bool stopping; /* set under lock */
    atomic_bool released; /* set under lock: nothing may be held */
    struct slot *slots;
    size_t nslots;
    struct hold **heap; /* by next_us; max_held entries */
    size_t n, max_held;
    int64_t tick_us;
    atomic_size_t promised; /* notes taken or held, for the cap */
    atomic_bool slept;
} self = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const unsigned char progress_packet[] = {0, 0, 0, 1, 'p'};

static struct slot *
slot_of(int fd)
{
    return fd >= 0 && (size_t)fd < self.nslots ? &self.slots[fd] : NULL;
}

/* --- the heap: earliest next_us first --- */

static void
heap_put(size_t i, struct hold *hold)
{
    self.heap[i] = hold;
    hold->heap_at = i;
}

static void
heap_up(size_t i)
{
    struct hold *hold = self.heap[i];
    while (i > 0 && self.heap[(i - 1) / 2]->next_us > hold->next_us) {
        heap_put(i, self.heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_put(i, hold);
}

static void
heap_down(size_t i)
{
    struct hold *hold = self.heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= self.n)
            break;
        if (child + 1 < self.n &&
            self.heap[child + 1]->next_us < self.heap[child]->next_us)
            child++;
        if (self.heap[child]->next_us >= hold->next_us)
            break;
        heap_put(i, self.heap[child]);
        i = child;
    }
    heap_put(i, hold);
}

static void
heap_remove(struct hold *hold)
{
    size_t i = hold->heap_at;
    struct hold *last = self.heap[--self.n];
    if (last == hold)
        return;
    heap_put(i, last);
    heap_up(i);
    heap_down(last->heap_at);
}

static void
heap_add(struct hold *hold)
{
    heap_put(self.n++, hold);
    heap_up(hold->heap_at);
}

/* --- one hold --- */

/* A place among max_held, from the promise until the hold is detached. */
static bool
take_place(void)
{
    if (atomic_fetch_add(&self.promised, 1) < self.max_held)
        return true;
    atomic_fetch_sub(&self.promised, 1);
    return false;
}

static void
free_place(void)
{
    atomic_fetch_sub(&self.promised, 1);
}

/* Takes the hold out of the tables; the caller then finishes it unlocked. */
static void
detach(struct hold *hold)
{
    struct slot *slot = slot_of(hold->fd);
    assert(slot->hold == hold); /* one hold for a session */
    slot->hold = NULL;
    atomic_store(&slot->held, false);
    heap_remove(hold);
    free_place();
}

/* Until the reply went out: what this thread was kept from doing afterwards is
 * no delay to anybody. */
static int64_t
measured_ms(const struct hold *hold)
{
    int64_t end_us = hold->sent_us ? hold->sent_us : cm_clock_mono_us();
    return (end_us - hold->began_us) / 1000;
}

static void
finish(struct hold *hold, enum cm_hold_end end)
{
    hold->wish.done(hold->wish.arg, end, measured_ms(hold));
    free(hold->data);
    free(hold);
}

enum push { PUSH_DONE, PUSH_AGAIN, PUSH_BROKEN };

/* Sends as much of data[*sent..len) as the socket takes at once. */
static enum push
push(int fd, const unsigned char *data, size_t len, size_t *sent)
{
    while (*sent < len) {
        ssize_t n =
            send(fd, data + *sent, len - *sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            *sent += (size_t)n;
        else if (n < 0 && errno == EINTR)
            continue;
        else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return PUSH_AGAIN;
        else
            return PUSH_BROKEN;
    }
    return PUSH_DONE;
}

/* A packet that was begun is finished before anything else is sent. */
static enum push
push_progress(struct hold *hold)
{
    size_t sent = sizeof progress_packet - hold->progress_left;
    enum push result =
        push(hold->fd, progress_packet, sizeof progress_packet, &sent);
    hold->progress_left = sizeof progress_packet - sent;
    return result;
}

static enum push
push_reply(struct hold *hold)
{
    hold->sent_us = cm_clock_mono_us();
    return push(hold->fd, hold->data, hold->len, &hold->sent);
}

static int64_t
next_look(const struct hold *hold, int64_t now_us)
{
    bool ticks = hold->wish.progress || hold->wish.look;
    if (!ticks || hold->due_us - now_us <= self.tick_us)
        return hold->due_us;
    return now_us + self.tick_us;
}

/* When nothing may be held, or nobody waits any more, now is when the reply is
 * due: the MTA then sees for itself. */
static void
cut_short(struct hold *hold, int64_t now_us)
{
    bool early = now_us < hold->due_us;
    enum cm_hold_end end = hold->end;
    if (end != CM_HOLD_SENT)
        return;
    if (atomic_load(&self.released))
        end = CM_HOLD_RELEASED;
    else if (hold->wish.look &&
             !hold->wish.look(hold->wish.arg, measured_ms(hold)))
        end = CM_HOLD_LEFT;
    if (end == CM_HOLD_SENT || !early)
        return;
    hold->end = end;
    hold->due_us = now_us;
}

/* Does what is due for one hold: true when it is over (broken or sent). */
static bool
attend(struct hold *hold, int64_t now_us, enum cm_hold_end *end_r)
{
    enum push result = PUSH_DONE;
    cut_short(hold, now_us);
    bool due = now_us >= hold->due_us;
    if (hold->progress_left == 0 && !due && hold->wish.progress)
        hold->progress_left = sizeof progress_packet;
    if (hold->progress_left > 0)
        result = push_progress(hold);
    if (result == PUSH_DONE && due) {
        result = push_reply(hold);
        if (result == PUSH_DONE) {
            *end_r = hold->end;
            return true;
        }
    }
    if (result == PUSH_BROKEN) {
        /* libmilter notices the closed socket itself, at its next poll. */
        *end_r = CM_HOLD_GONE;
        return true;
    }
    hold->next_us = result == PUSH_AGAIN ? now_us + CM_HOLD_RETRY_US
                                         : next_look(hold, now_us);
    return false;
}

/* --- the timer thread --- */

static void
wait_until_us(int64_t us)
{
    struct timespec ts = {.tv_sec = us / 1000000,
                          .tv_nsec = us % 1000000 * 1000};
    pthread_cond_timedwait(&self.wake, &self.lock, &ts);
}

static void *
timer_main(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&self.lock);
    while (!atomic_load(&self.stopping)) {
        if (self.n == 0) {
            pthread_cond_wait(&self.wake, &self.lock);
            continue;
        }
        struct hold *hold = self.heap[0];
        int64_t now_us = cm_clock_mono_us();
        if (hold->next_us > now_us) {
            wait_until_us(hold->next_us);
            continue;
        }
        enum cm_hold_end end;
        if (attend(hold, now_us, &end)) {
            detach(hold);
            pthread_mutex_unlock(&self.lock);
            finish(hold, end);
            pthread_mutex_lock(&self.lock);
        } else {
            heap_down(0);
        }
    }
    pthread_mutex_unlock(&self.lock);
    return NULL;
}

enum cm_status
cm_hold_start(const struct cm_hold_opts *opts, struct cm_err *err)
{
    struct rlimit limit;
    self.nslots = CM_HOLD_FDS_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
        limit.rlim_cur < CM_HOLD_FDS_MAX)
        self.nslots = (size_t)limit.rlim_cur;
    self.max_held = opts->max_held;
    self.tick_us = opts->tick_ms * 1000;
    self.slots = calloc(self.nslots, sizeof *self.slots);
    self.heap = calloc(self.max_held, sizeof(struct hold *));
    if (!self.slots || !self.heap) {
        self.nslots = 0;
        free(self.slots);
        free(self.heap);
        return cm_err_set(err, CM_ENOMEM, "no memory for the table of holds");
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&self.wake, &attr);
    pthread_condattr_destroy(&attr);
    int failed = pthread_create(&self.thread, NULL, timer_main, NULL);
    if (failed)
        return cm_err_set(err, CM_EIO, "cannot start the timer thread: %s",
                          strerror(failed));
    self.started = true;
    return CM_OK;
}

/* Sends one reply before its time; the socket is given 50 ms to take it. */
static enum cm_hold_end
send_now(struct hold *hold)
{
    enum push result = PUSH_DONE;
    for (int tries = 0; tries < 10; tries++) {
        if (hold->progress_left > 0)
            result = push_progress(hold);
        if (result == PUSH_DONE)
            result = push_reply(hold);
        if (result != PUSH_AGAIN)
            break;
        usleep(CM_HOLD_RETRY_US);
    }
    return result == PUSH_DONE ? CM_HOLD_CUT : CM_HOLD_GONE;
}

void
cm_hold_stop(void)
{
    pthread_mutex_lock(&self.lock);
    if (!self.started || atomic_load(&self.stopping)) {
        pthread_mutex_unlock(&self.lock);
        return;
    }
    atomic_store(&self.stopping, true);
    while (self.n > 0) {
        struct hold *hold = self.heap[0];
        enum cm_hold_end end = send_now(hold);
        detach(hold);
        pthread_mutex_unlock(&self.lock);
        finish(hold, end);
        pthread_mutex_lock(&self.lock);
    }
    pthread_cond_broadcast(&self.wake);
    pthread_mutex_unlock(&self.lock);
    pthread_join(self.thread, NULL);
}

void
cm_hold_release(bool released)
{
    pthread_mutex_lock(&self.lock);
    atomic_store(&self.released, released);
    /* All alike is a heap as well. */
    for (size_t i = 0; released && i < self.n; i++)
        self.heap[i]->next_us = 0;
    if (self.started)
        pthread_cond_signal(&self.wake);
    pthread_mutex_unlock(&self.lock);
}

/* --- what the callbacks say --- */

/* Takes back what the callback asked for, and says why to whoever asked. */
static void
withdraw(enum cm_hold_end end)
{
    if (asked.hold_fd != CM_HOLD_NO_FD) {
        free_place();
        asked.wish.done(asked.wish.arg, end, 0);
    }
    asked.hold_fd = CM_HOLD_NO_FD;
}

int
cm_hold_enter(void)
{
    /* libmilter wrote no reply to the callback before: the session had ended.
     */
    withdraw(CM_HOLD_GONE);
    asked.watch_fd = CM_HOLD_NO_FD;
    heard.session_fd = slot_of(heard.read_fd) ? heard.read_fd : CM_HOLD_NO_FD;
    return heard.session_fd;
}

void
cm_hold_watch(int fd)
{
    struct slot *slot = slot_of(fd);
    if (!slot)
        return;
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    bool tcp = getsockname(fd, (struct sockaddr *)&ss, &len) == 0 &&
               (ss.ss_family == AF_INET || ss.ss_family == AF_INET6);
    atomic_store(&slot->tcp, tcp);
    atomic_store(&slot->verified, false);
    asked.watch_fd = fd;
}

/* A reply is sent before its hold is put away, and the MTA may be quick enough
 * with its next command to come in between. Both are done under the lock, so
 * whoever has had it sees them done. */
static void
wait_for_timer(void)
{
    pthread_mutex_lock(&self.lock);
    pthread_mutex_unlock(&self.lock);
}

static bool
is_held(const struct slot *slot)
{
    if (atomic_load(&slot->held))
        wait_for_timer();
    return atomic_load(&slot->held);
}

static bool
take_place_when_freed(void)
{
    if (take_place())
        return true;
    wait_for_timer();
    return take_place();
}

enum cm_hold_answer
cm_hold_until(int fd, const struct cm_hold_wish *wish)
{
    struct slot *slot = slot_of(fd);
    if (!slot || fd != heard.session_fd || !atomic_load(&slot->verified))
        return CM_HOLD_UNABLE;
    /* A peer that does not wait for its answers has one held already: this one
     * will follow it. */
    if (is_held(slot) || atomic_load(&self.stopping) ||
        !take_place_when_freed())
        return CM_HOLD_FULL;
    asked.hold_fd = fd;
    asked.wish = *wish;
    return CM_HOLD_OK;
}

int64_t
cm_hold_sleep(int64_t delay_ms)
{
    atomic_store(&self.slept, true);
    int64_t began_us = cm_clock_mono_us();
    int64_t due_us = began_us + delay_ms * 1000;
    int64_t left_us;
    while (!atomic_load(&self.stopping) && !atomic_load(&self.released) &&
           (left_us = due_us - cm_clock_mono_us()) > 0)
        usleep(
            (useconds_t)(left_us < CM_HOLD_NAP_US ? left_us : CM_HOLD_NAP_US));
    return (cm_clock_mono_us() - began_us) / 1000;
}

size_t
cm_hold_count(void)
{
    pthread_mutex_lock(&self.lock);
    size_t n = self.n;
    pthread_mutex_unlock(&self.lock);
    return n;
}

bool
cm_hold_has_slept(void)
{
    return atomic_load(&self.slept);
}

/* --- the hooks --- */

static size_t
iov_total(const struct iovec *iov, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    return total;
}

static void
iov_copy(unsigned char *to, const struct iovec *iov, int n)
{
    for (int i = 0; i < n; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
}

/* The reply that is asked to be late: keeps it. False: write it as usual. */
static bool
hold_begin(int fd, const struct iovec *iov, int iovcnt, size_t total)
{
    struct hold *hold = calloc(1, sizeof *hold);
    unsigned char *data = malloc(total);
    if (!hold || !data || total > CM_HOLD_BYTES_MAX) {
        free(hold);
        free(data);
        withdraw(CM_HOLD_FAILED);
        return false;
    }
    iov_copy(data, iov, iovcnt);
    int64_t now_us = cm_clock_mono_us();
    *hold = (struct hold){.fd = fd,
                          .began_us = now_us,
                          .due_us = now_us + asked.wish.delay_ms * 1000,
                          .data = data,
                          .len = total,
                          .wish = asked.wish};
    hold->next_us = next_look(hold, now_us);
    asked.hold_fd = CM_HOLD_NO_FD;

    pthread_mutex_lock(&self.lock);
    bool stopping = atomic_load(&self.stopping);
    if (!stopping) {
        if (atomic_load(&self.released))
            hold->next_us = 0;
        slot_of(fd)->hold = hold;
        atomic_store(&slot_of(fd)->held, true);
        heap_add(hold);
        if (hold->heap_at == 0)
            pthread_cond_signal(&self.wake);
    }
    pthread_mutex_unlock(&self.lock);
    if (stopping) {
        free_place();
        finish(hold, send_now(hold));
    }
    return true;
}

/* More bytes for a session whose reply is held: they must not overtake it. */
static bool
hold_append(int fd, const struct iovec *iov, int iovcnt, size_t total)
{
    bool taken = false;
    pthread_mutex_lock(&self.lock);
    struct hold *hold = slot_of(fd)->hold;
    if (hold && hold->len + total <= CM_HOLD_BYTES_MAX) {
        unsigned char *data = realloc(hold->data, hold->len + total);
        if (data) {
            iov_copy(data + hold->len, iov, iovcnt);
            hold->data = data;
            hold->len += total;
            taken = true;
        }
    }
    pthread_mutex_unlock(&self.lock);
    return taken;
}

static void
hold_drop(int fd)
{
    pthread_mutex_lock(&self.lock);
    struct hold *hold = slot_of(fd)->hold;
    if (hold)
        detach(hold);
    pthread_mutex_unlock(&self.lock);
    if (hold)
        finish(hold, CM_HOLD_GONE);
}

/*
 * The system calls, in the place of libc's. They stay what POSIX says
 * they are for every descriptor that no callback has spoken of. (As plain
 * system calls they are no cancellation points; nothing here is ever
 * cancelled.)
 */
ssize_t
writev(int fd, const struct iovec *iov, int iovcnt)
{
    struct slot *slot = slot_of(fd);
    if (slot && asked.watch_fd == fd) {
        asked.watch_fd = CM_HOLD_NO_FD;
        atomic_store(&slot->verified, true);
    }
    if (slot && asked.hold_fd == fd) {
        size_t total = iov_total(iov, iovcnt);
        if (hold_begin(fd, iov, iovcnt, total))
            return (ssize_t)total;
    } else if (slot && atomic_load(&slot->held)) {
        size_t total = iov_total(iov, iovcnt);
        if (hold_append(fd, iov, iovcnt, total))
            return (ssize_t)total;
    }
    return syscall(SYS_writev, fd, iov, iovcnt);
}

ssize_t
read(int fd, void *buf, size_t count)
{
    ssize_t n = syscall(SYS_read, fd, buf, count);
    if (n > 0) {
        struct slot *slot = slot_of(fd);
        heard.read_fd = fd;
        if (slot && atomic_load(&slot->tcp)) {
            /* The MTA sends a command in two writes and Nagle holds the second
             * until the first is acknowledged: 40 ms a command otherwise. */
            int one = 1;
            setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
        }
    }
    return n;
}

/* libmilter's accept loop tries again at once when there is no descriptor left,
 * and spins for as long as that lasts. */
int
accept(int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
    static struct cm_log_gate gate;
    unsigned long held_back;
    int got = (int)syscall(SYS_accept, fd, addr, len);
    if (got < 0 && (errno == EMFILE || errno == ENFILE)) {
        int saved = errno;
        if (cm_log_gate_open(&gate, &held_back))
            cm_log_warn("no descriptor left, new sessions wait: raise "
                        "LimitNOFILE or lower smtpd's process limit "
                        "held_back=%lu",
                        held_back);
        usleep(CM_HOLD_WAIT_US);
        errno = saved;
    }
    return got;
}

int
close(int fd)
{
    struct slot *slot = slot_of(fd);
    if (slot) {
        if (atomic_load(&slot->held))
            hold_drop(fd);
        atomic_store(&slot->verified, false);
        atomic_store(&slot->tcp, false);
    }
    return (int)syscall(SYS_close, fd);
}
