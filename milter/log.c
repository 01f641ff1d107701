/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/log.h"
#include "milter/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define CM_LOG_GATE_MS 60000

static const char *ident = "chaosmilter";
static _Atomic int max_level = CM_LOG_INFO;
static atomic_bool use_syslog;

static atomic_ulong lost; /* lines that standard error had no room for */

static const struct {
    const char *name;
    int priority;
} levels[] = {
    [CM_LOG_ERR] = {"error", LOG_ERR},
    [CM_LOG_WARNING] = {"warning", LOG_WARNING},
    [CM_LOG_INFO] = {"info", LOG_INFO},
    [CM_LOG_DEBUG] = {"debug", LOG_DEBUG},
};

void
cm_log_open(const char *name, enum cm_log_level level, bool to_syslog)
{
    ident = name;
    max_level = (int)level;
    if (to_syslog)
        openlog(name, LOG_PID | LOG_NDELAY, LOG_MAIL);
    use_syslog = to_syslog;
}

void
cm_log_set_level(enum cm_log_level level)
{
    max_level = (int)level;
}

bool
cm_log_enabled(enum cm_log_level level)
{
    return (int)level <= max_level;
}

/* Copies src to dst, everything that is not printable ASCII, and each byte of
 * also, as \xNN; an end that does not fit becomes "...". Returns the length. */
static size_t
escape(char *dst, size_t cap, const char *src, const char *also)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;
    for (; *src; src++) {
        unsigned char c = (unsigned char)*src;
        bool plain = c >= 0x20 && c < 0x7f && !strchr(also, c);
        if (n + (plain ? 1 : 4) + 4 > cap) {
            memcpy(dst + n, "...", 3);
            n += 3;
            break;
        }
        if (plain) {
            dst[n++] = (char)c;
        } else {
            dst[n++] = '\\';
            dst[n++] = 'x';
            dst[n++] = hex[c >> 4];
            dst[n++] = hex[c & 15];
        }
    }
    dst[n] = '\0';
    return n;
}

const char *
cm_log_quote(char *out, size_t cap, const char *s)
{
    escape(out, cap, s, "\"\\");
    return out;
}

/* A reader that stalls must not stall a mail: a pipe that polls writable takes
 * PIPE_BUF bytes, which is more than a line, without blocking. */
static void
write_stderr(const char *line, size_t len)
{
    struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    unsigned long missing;
    char note[64];
    if (poll(&fd, 1, 0) != 1 || !(fd.revents & POLLOUT)) {
        atomic_fetch_add(&lost, 1);
        return;
    }
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nothing is left to tell it to */
    if (atomic_load(&lost) == 0 || poll(&fd, 1, 0) != 1 ||
        !(fd.revents & POLLOUT))
        return;
    missing = atomic_exchange(&lost, 0);
    int n = snprintf(note, sizeof note, "%s: level=warning lines_lost=%lu\n",
                     ident, missing);
    if (n > 0 && write(STDERR_FILENO, note, (size_t)n) < 0)
        atomic_fetch_add(&lost, missing);
}

static void write_line(enum cm_log_level level, const char *fmt, va_list ap)
    CM_PRINTF(2, 0);

static void
write_line(enum cm_log_level level, const char *fmt, va_list ap)
{
    if (!cm_log_enabled(level))
        return;
    int saved = errno;
    char raw[CM_LOG_LINE_BYTES], line[CM_LOG_LINE_BYTES + 8];
    vsnprintf(raw, sizeof raw, fmt, ap);
    size_t len = escape(line, CM_LOG_LINE_BYTES, raw, "");
    if (use_syslog) {
        syslog(levels[level].priority, "%s", line);
    } else {
        char out[sizeof line + 64];
        int n = snprintf(out, sizeof out, "%s: level=%s %.*s\n", ident,
                         levels[level].name, (int)len, line);
        if (n > 0)
            write_stderr(out, (size_t)n);
    }
    errno = saved;
}

#define CM_LOG_AT(level)                                                       \
    do {                                                                       \
        va_list ap;                                                            \
        va_start(ap, fmt);                                                     \
        write_line(level, fmt, ap);                                            \
        va_end(ap);                                                            \
    } while (0)

void
cm_log_err(const char *fmt, ...)
{
    CM_LOG_AT(CM_LOG_ERR);
}

void
cm_log_warn(const char *fmt, ...)
{
    CM_LOG_AT(CM_LOG_WARNING);
}

void
cm_log_info(const char *fmt, ...)
{
    CM_LOG_AT(CM_LOG_INFO);
}

void
cm_log_debug(const char *fmt, ...)
{
    CM_LOG_AT(CM_LOG_DEBUG);
}

bool
cm_log_gate_open(struct cm_log_gate *gate, unsigned long *held_back_r)
{
    long long now = cm_clock_mono_ms();
    long long due = atomic_load(&gate->next_ms);
    if (now < due || !atomic_compare_exchange_strong(&gate->next_ms, &due,
                                                     now + CM_LOG_GATE_MS)) {
        atomic_fetch_add(&gate->held_back, 1);
        return false;
    }
    *held_back_r = atomic_exchange(&gate->held_back, 0);
    return true;
}
