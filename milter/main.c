/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chaosmilter, the filter daemon: reads the settings, opens the socket, lets go
 * of its privileges, puts the rooms together and waits for signals.
 *
 * libmilter runs in a thread of its own and SIGTERM is left open in this one,
 * so that we and not libmilter decide how to end: it would take up to 5 s and
 * abandon its callbacks. We close the listener, send what is held, give open
 * sessions a moment, and leave by _exit(): libmilter's threads are still there
 * and know nothing of an orderly return.
 */
#include "milter/clock.h"
#include "milter/exitcode.h"
#include "milter/filter/attendance.h"
#include "milter/filter/callbacks.h"
#include "milter/filter/dropper.h"
#include "milter/filter/filter.h"
#include "milter/filter/hold.h"
#include "milter/filter/hook.h"
#include "milter/filter/listener.h"
#include "milter/filter/relay.h"
#include "milter/filter/scrape.h"
#include "milter/filter/server.h"
#include "milter/filter/unix_socket.h"
#include "milter/log.h"
#include "milter/model/mailpit.h"
#include "milter/model/protect.h"
#include "milter/model/reply.h"
#include "milter/notify.h"
#include "milter/privs.h"
#include "milter/settings.h"
#include "milter/store/halt_watch.h"
#include "milter/store/journal.h"
#include "milter/store/replica.h"
#include "milter/store/stateful.h"
#include "milter/store/sync.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libmilter/mfapi.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define CM_MAIN_FDS         65536
#define CM_MAIN_TICK_MS     5000 /* a sixth of Postfix's command timeout */
#define CM_MAIN_TICKS_IN_R  2    /* at least: Sendmail's reply timeout */
#define CM_MAIN_POOL_LINKS  8    /* stateful questions asked at once */
#define CM_MAIN_RING        4096 /* events kept while Redis is away */
#define CM_MAIN_DROPS_PER_S 1000
#define CM_MAIN_DECISION_MS 100 /* then a command passes undecided */
#define CM_MAIN_CLERKS      4
#define CM_MAIN_RELAYED     4096 /* logins at once */
#define CM_MAIN_SHUT_MS     10   /* for sessions accepted a moment ago */
#define CM_MAIN_DRAIN_MS    300  /* for sessions to end by themselves */

/* LeakSanitizer's, when it is linked in: _exit() would pass it by. */
extern void __lsan_do_leak_check(void) __attribute__((weak));

struct daemon {
    const char *settings_path;
    struct cm_settings *settings;
    struct cm_listener *listener;
    struct cm_scrape *scrape; /* NULL: no metrics wanted */
    int snapshot_dir_fd;
    struct cm_pool *pool;
    struct cm_filter filter;
};

/* What the signal handler and libmilter's thread tell the main loop. The pipe
 * is only the bell: full, it has been rung. */
enum { MILTER_RUNS, MILTER_STOPPED, MILTER_FAILED };
static atomic_int end_signal, reload_wanted, milter_ended;
static int bell[2] = {-1, -1};

static void
ring(void)
{
    int saved = errno;
    if (write(bell[1], "", 1) < 0) {
        /* Full: main is on its way. */
    }
    errno = saved;
}

static void
on_signal(int signo)
{
    if (signo == SIGUSR1)
        reload_wanted = 1;
    else
        end_signal = signo;
    ring();
}

static void
usage(FILE *out)
{
    fprintf(out,
            "usage: chaosmilter [-n] [-c FILE] [--enable-chaos]\n"
            "  -c FILE  settings (default " CM_SYSCONFDIR
            "/chaosmilter/chaosmilter.conf)\n"
            "  -n       check the settings and exit\n"
            "  --enable-chaos  arm, whatever the settings say\n"
            "  -V       print version and exit\n"
            "  -h       this text\n"
            "SIGTERM ends it, SIGUSR1 reads log_level and address.protected "
            "again.\n");
}

static int
fail(int code, const struct cm_err *err)
{
    fprintf(stderr, "chaosmilter: %s\n", err->msg);
    return code;
}

/* flags: how this process compares addresses, which a reload does not change.
 */
static enum cm_status
make_protect(const struct cm_settings *settings, unsigned flags,
             struct cm_protect **protect_r, struct cm_err *err)
{
    struct cm_err why;
    enum cm_status status =
        cm_protect_new(protect_r, settings->address.protected_.at,
                       settings->address.protected_.n, flags, &why);
    if (status != CM_OK)
        cm_err_set(err, status, "address.protected: %s", why.msg);
    return status;
}

/* chaosadmin sets them; here they have armed us, and must be ones to be armed
 * by. */
static enum cm_status
check_triggers(struct cm_err *err)
{
    static const char variable[] = "MP_CHAOS_TRIGGERS";
    const char *list = getenv(variable);
    struct cm_triggers triggers;
    struct cm_err why;
    if (!list || !*list)
        return CM_OK;
    enum cm_status status = cm_triggers_parse(&triggers, list, &why);
    if (status != CM_OK)
        cm_err_set(err, status, "%s: %s", variable, why.msg);
    return status;
}

/* What the settings' own table cannot judge. */
static enum cm_status
check_settings(const struct cm_settings *settings, struct cm_err *err)
{
    struct cm_protect *protect = NULL;
    struct cm_err why;
    enum cm_status status = make_protect(
        settings, cm_settings_address_flags(settings), &protect, err);
    cm_protect_free(&protect);
    if (status != CM_OK)
        return status;
    status = cm_listener_check(settings->milter.socket, &why);
    if (status != CM_OK)
        return cm_err_set(err, status, "milter.socket: %s", why.msg);
    return check_triggers(err);
}

static void
raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= CM_MAIN_FDS)
        return;
    limit.rlim_cur =
        limit.rlim_max < CM_MAIN_FDS ? limit.rlim_max : CM_MAIN_FDS;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Opened before privileges go: the file is written in it for as long as we run.
 */
static enum cm_status
open_snapshot_dir(struct daemon *d, struct cm_err *err)
{
    const char *path = d->settings->milter.snapshot;
    const char *slash = strrchr(path, '/');
    d->snapshot_dir_fd = -1;
    if (!path[0])
        return CM_OK;
    char dir[4096];
    snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path),
             path);
    d->snapshot_dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->snapshot_dir_fd < 0)
        return cm_err_set(err, CM_EIO, "milter.snapshot: %s: %s", dir,
                          strerror(errno));
    return CM_OK;
}

static void
host_id(const struct cm_settings *settings, char *out, size_t cap)
{
    char host[128] = "";
    gethostname(host, sizeof host - 1);
    /* Stable over restarts, and two filters of one host are told apart. */
    snprintf(out, cap, "%s/%s", host[0] ? host : "localhost",
             settings->milter.socket);
}

static void
on_halt(void *arg, bool halted)
{
    struct daemon *d = arg;
    cm_hold_release(halted);
    if (d->filter.hook)
        cm_hook_release(d->filter.hook);
    if (d->filter.relay)
        cm_relay_release(d->filter.relay);
}

/* Its file lies beside the snapshot. */
static enum cm_status
start_halt_watch(struct daemon *d, const struct cm_link_opts *link,
                 struct cm_err *err)
{
    const char *slash = strrchr(d->settings->milter.snapshot, '/');
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%s.halted",
             slash ? slash + 1 : d->settings->milter.snapshot);
    struct cm_halt_watch_opts opts = {.link = *link,
                                      .prefix = d->settings->redis.prefix,
                                      .dir_fd = d->snapshot_dir_fd,
                                      .name = name,
                                      .changed = on_halt,
                                      .arg = d};
    return cm_halt_watch_start(&d->filter.halt, &opts, err);
}

static enum cm_status
start_store(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    struct cm_filter *f = &d->filter;
    static char id[512];
    host_id(s, id, sizeof id);
    const char *slash = strrchr(s->milter.snapshot, '/');
    struct cm_link_opts link = {
        .address = s->redis.address,
        .username = s->redis.username,
        .password = s->redis.password,
        .database = (int)s->redis.database,
        .connect_timeout_ms = (int)s->redis.connect_timeout_ms,
        .command_timeout_ms = (int)s->redis.command_timeout_ms,
        .client_name = "chaosmilter",
    };
    struct cm_sync_opts sync = {
        .link = link,
        .prefix = s->redis.prefix,
        .host_id = id,
        .version = PACKAGE_VERSION,
        .stale_after_ms = s->redis.stale_after_s * 1000,
        .snapshot_dir_fd = d->snapshot_dir_fd,
        .snapshot_name = slash ? slash + 1 : s->milter.snapshot,
        .report = cm_filter_report,
        .report_arg = f,
    };
    struct cm_journal_opts journal = {
        .link = link,
        .prefix = s->redis.prefix,
        .host_id = id,
        .stream_max = s->redis.events_max,
        .ring = CM_MAIN_RING,
    };
    enum cm_status status = cm_replica_new(&f->replica, f->address_flags);
    if (status == CM_OK)
        status = cm_pool_new(&d->pool, &link, CM_MAIN_POOL_LINKS, err);
    if (status == CM_OK)
        status = cm_stateful_new(&f->stateful, d->pool, s->redis.prefix,
                                 (int)s->redis.stateful_deadline_ms, err);
    if (status == CM_OK)
        status = cm_journal_start(&f->journal, &journal, err);
    if (status == CM_OK)
        status = start_halt_watch(d, &link, err);
    if (status == CM_OK)
        status = cm_sync_start(&f->sync, &sync, f->replica, err);
    return status;
}

/* At the end of a message Sendmail waits for the next packet as long as for any
 * reply. */
static int64_t
tick_ms(const struct cm_settings *s)
{
    int64_t ms = s->milter.sendmail_reply_timeout_s * 1000 / CM_MAIN_TICKS_IN_R;
    return ms < CM_MAIN_TICK_MS ? ms : CM_MAIN_TICK_MS;
}

/* What asks Redis is ready by now. */
static enum cm_status
start_servers(struct daemon *d, struct cm_err *err)
{
    struct cm_filter *f = &d->filter;
    enum cm_status status = CM_OK;
    if (f->hook || f->relay)
        status = cm_attendance_new(&f->attendance, err);
    if (status == CM_OK && f->hook)
        status = cm_hook_start(f->hook, f, err);
    if (status == CM_OK && f->relay)
        status = cm_relay_start(f->relay, f, err);
    return status;
}

static enum cm_status
start_filter(struct daemon *d, struct cm_err *err)
{
    struct cm_filter *f = &d->filter;
    struct cm_protect *protect = NULL;
    f->armed = d->settings->armed;
    f->address_flags = cm_settings_address_flags(d->settings);
    f->recipient_delimiter = d->settings->address.recipient_delimiter;
    cm_patience_init(&f->patience, d->settings->milter.sendmail_reply_timeout_s,
                     d->settings->milter.sendmail_message_timeout_s);
    pthread_rwlock_init(&f->protect_lock, NULL);
    cm_seen_init(&f->seen);
    enum cm_status status =
        make_protect(d->settings, f->address_flags, &protect, err);
    if (status != CM_OK)
        return status;
    cm_filter_protect(f, protect);
    cm_metrics_init(&f->metrics);
    if (getrandom(&f->seed, sizeof f->seed, 0) != (ssize_t)sizeof f->seed)
        return cm_err_set(err, CM_EIO, "getrandom: %s", strerror(errno));
    struct cm_hold_opts hold = {.max_held =
                                    (size_t)d->settings->milter.max_held,
                                .tick_ms = tick_ms(d->settings)};
    status = cm_hold_start(&hold, err);
    if (status == CM_OK)
        status = start_store(d, err);
    if (status == CM_OK)
        status = start_servers(d, err);
    return status;
}

static void *
milter_main(void *arg)
{
    sigset_t all;
    (void)arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    bool ok = smfi_main() == MI_SUCCESS;
    if (!ok)
        cm_log_err("libmilter ended with a failure");
    /* libmilter has a thread that waits for SIGTERM as well, and when one comes
     * just as that thread begins to wait, it may win. */
    milter_ended = ok ? MILTER_STOPPED : MILTER_FAILED;
    ring();
    return NULL;
}

static void
reload(struct daemon *d)
{
    struct cm_settings *fresh = NULL;
    struct cm_protect *protect = NULL;
    struct cm_err err;
    if (cm_settings_load(&fresh, d->settings_path, &err) != CM_OK ||
        make_protect(fresh, d->filter.address_flags, &protect, &err) != CM_OK) {
        cm_log_err("reload failed, the old settings stay: %s", err.msg);
        cm_settings_free(&fresh);
        return;
    }
    cm_filter_protect(&d->filter, protect);
    cm_log_set_level(cm_settings_log_level(fresh));
    cm_settings_free(&fresh);
    cm_log_info("settings reloaded: log_level and address.protected");
}

static void
catch_signals(void)
{
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        sigaction(ends[i], &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static enum cm_status
start_milter_thread(struct cm_err *err)
{
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, milter_main, NULL);
    if (failed)
        return cm_err_set(err, CM_EIO, "cannot start a thread: %s",
                          strerror(failed));
    pthread_detach(thread);
    return CM_OK;
}

/* Until a signal says so; true when it was one, false when libmilter gave up.
 */
static bool
serve(struct daemon *d)
{
    struct pollfd fd = {.fd = bell[0], .events = POLLIN};
    char rung[64];
    for (;;) {
        if (end_signal) {
            cm_log_info("ending on signal %d", end_signal);
            return true;
        }
        if (milter_ended != MILTER_RUNS)
            return milter_ended == MILTER_STOPPED;
        if (reload_wanted) {
            reload_wanted = 0;
            reload(d);
        }
        if (poll(&fd, 1, -1) == 1 && read(bell[0], rung, sizeof rung) < 0 &&
            errno != EAGAIN && errno != EINTR)
            return false;
    }
}

static void
wait_for_sessions(struct cm_filter *filter, int64_t until_ms)
{
    while ((atomic_load(&filter->counts[CM_FILTER_SESSIONS_OPEN]) > 0 ||
            cm_relay_open_count(filter->relay) > 0) &&
           cm_clock_mono_ms() < until_ms)
        usleep(5000);
}

static void
stop(struct daemon *d)
{
    cm_notify("STOPPING=1");
    cm_listener_shut(d->listener);
    cm_scrape_close(&d->scrape);
    usleep(CM_MAIN_SHUT_MS * 1000);
    cm_hold_stop();
    if (d->filter.hook)
        cm_hook_quiet(d->filter.hook);
    if (d->filter.relay)
        cm_relay_retire(d->filter.relay);
    wait_for_sessions(&d->filter, cm_clock_mono_ms() + CM_MAIN_DRAIN_MS);
    /* Not the dropper: a callback may be asking it. It ends with us. */
    cm_journal_stop(d->filter.journal);
    cm_sync_stop(d->filter.sync);
    if (d->filter.hook)
        cm_hook_remove(d->filter.hook);
    cm_halt_watch_stop(d->filter.halt);
    cm_log_info(
        "ended sessions_left=%lld",
        (long long)atomic_load(&d->filter.counts[CM_FILTER_SESSIONS_OPEN]));
    if (__lsan_do_leak_check)
        __lsan_do_leak_check();
}

/* A daemon may be started with standard descriptors closed; what is opened next
 * must not be taken for one of them. */
static bool
fill_standard_fds(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    return fd >= 0 && close(fd) == 0;
}

/* The process that cuts connections, and what is answered when it cannot. */
static enum cm_status
start_dropper(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    static const char *const text[] = {
        "Service not available, try again later"};
    struct cm_dropper_opts opts = {.fin = s->drop.fin,
                                   .user = s->milter.user,
                                   .nports = s->armed ? s->drop.ports.n : 0,
                                   .deadline_ms = s->drop.deadline_ms,
                                   .per_second = CM_MAIN_DROPS_PER_S};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < opts.nports; i++)
        opts.ports[i] = (uint16_t)strtol(s->drop.ports.at[i], NULL, 10);
    if (strcmp(s->drop.on_unavailable, "skip") != 0) {
        bool closes = strcmp(s->drop.on_unavailable, "close421") == 0;
        status = cm_reply_new(&d->filter.drop_instead, closes ? 421 : 451,
                              closes ? "4.3.2" : "4.3.0", text, 1, err);
    }
    if (status == CM_OK)
        status = cm_dropper_start(&d->filter.dropper, &opts, err);
    return status;
}

static enum cm_status
open_servers(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    struct cm_server_opts opts = {.mode = (mode_t)s->milter.socket_mode,
                                  .user = s->milter.user,
                                  .group = s->milter.socket_group,
                                  .clerks = CM_MAIN_CLERKS,
                                  .deadline_ms = CM_MAIN_DECISION_MS};
    enum cm_status status = CM_OK;
    if (s->hook.socket[0]) {
        opts.path = cm_unix_socket_path(s->hook.socket);
        status = cm_hook_open(&d->filter.hook, &opts, err);
    }
    if (status == CM_OK && s->relay.socket[0]) {
        opts.path = cm_unix_socket_path(s->relay.socket);
        opts.callers_max = CM_MAIN_RELAYED;
        status =
            cm_relay_open(&d->filter.relay, &opts, s->relay.saslauthd, err);
    }
    return status;
}

static enum cm_status
open_metrics(struct daemon *d, struct cm_err *err)
{
    const char *address = d->settings->milter.metrics_listen;
    struct cm_err why;
    enum cm_status status =
        address[0] ? cm_scrape_open(&d->scrape, address, &why) : CM_OK;
    if (status != CM_OK)
        cm_err_set(err, status, "milter.metrics_listen: %s", why.msg);
    return status;
}

static void
print_metrics(void *arg, struct cm_buf *buf)
{
    cm_metrics_page(arg, PACKAGE_VERSION, buf);
}

/* Nobody finds us any more. */
static void
shut_sockets(struct daemon *d)
{
    cm_listener_shut(d->listener);
    if (d->filter.hook)
        cm_hook_remove(d->filter.hook);
    if (d->filter.relay)
        cm_relay_retire(d->filter.relay);
}

/* What wants the rights that we were started with. */
static int
open_with_rights(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    enum cm_status status = cm_listener_open(
        &d->listener, s->milter.socket, (mode_t)s->milter.socket_mode,
        s->milter.user, s->milter.socket_group, err);
    if (status != CM_OK)
        return status == CM_EINVAL ? CM_EXIT_CONFIG : CM_EXIT_UNAVAILABLE;
    status = open_servers(d, err);
    if (status == CM_OK)
        status = open_metrics(d, err);
    if (status != CM_OK) {
        shut_sockets(d);
        return status == CM_EINVAL ? CM_EXIT_CONFIG : CM_EXIT_UNAVAILABLE;
    }
    if (open_snapshot_dir(d, err) != CM_OK || start_dropper(d, err) != CM_OK ||
        cm_privs_drop(s->milter.user, s->milter.socket_group, err) != CM_OK) {
        shut_sockets(d);
        return CM_EXIT_CONFIG;
    }
    return 0;
}

/* Threads inherit the mask: signals are for the main thread alone. */
static enum cm_status
start_threads(struct daemon *d, struct cm_err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    enum cm_status status = start_filter(d, err);
    if (status == CM_OK && d->scrape)
        status = cm_scrape_start(d->scrape, print_metrics, &d->filter, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status == CM_OK)
        status = start_milter_thread(err);
    return status;
}

/*
 * The order: handlers first, so that no signal is lost; the listener and the
 * snapshot's folder with the rights of who started us; then the rights go; then
 * the threads, which so never have them; libmilter's last, for it begins to
 * answer at once.
 */
static int
run(struct daemon *d)
{
    struct cm_err err = {CM_OK, "out of memory"};
    raise_fd_limit();
    if (pipe2(bell, O_CLOEXEC | O_NONBLOCK) < 0) {
        cm_err_set(&err, CM_EIO, "pipe: %s", strerror(errno));
        return fail(CM_EXIT_OSERR, &err);
    }
    catch_signals();
    if (cm_callbacks_register(&d->filter, &err) != CM_OK)
        return fail(CM_EXIT_OSERR, &err);
    int code = open_with_rights(d, &err);
    if (code != 0)
        return fail(code, &err);
    if (start_threads(d, &err) != CM_OK) {
        shut_sockets(d);
        return fail(CM_EXIT_OSERR, &err);
    }
    cm_log_info("started version=%s socket=%s armed=%s seed=%llu",
                PACKAGE_VERSION, d->settings->milter.socket,
                d->settings->armed ? "yes" : "no",
                (unsigned long long)d->filter.seed);
    cm_notify("READY=1");
    bool ok = serve(d);
    stop(d);
    return ok ? EXIT_SUCCESS : CM_EXIT_OSERR;
}

int
main(int argc, char **argv)
{
    static struct daemon d = {.settings_path = CM_SYSCONFDIR
                              "/chaosmilter/chaosmilter.conf"};
    struct cm_err err;
    bool check_only = false, enable_chaos = false;
    int option;
    if (!fill_standard_fds())
        return CM_EXIT_OSERR;
    static const struct option longs[] = {
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {"enable-chaos", no_argument, NULL, 'e'},
        {NULL, 0, NULL, 0}};
    while ((option = getopt_long(argc, argv, "c:nVh", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            d.settings_path = optarg;
            break;
        case 'n':
            check_only = true;
            break;
        case 'e':
            /* getopt takes a beginning of the name, too: not to arm us. */
            if (strcmp(argv[optind - 1], "--enable-chaos") != 0) {
                usage(stderr);
                return CM_EXIT_USAGE;
            }
            enable_chaos = true;
            break;
        case 'V':
            printf("chaosmilter %s\n", PACKAGE_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return CM_EXIT_USAGE;
        }
    }
    if (optind < argc) {
        usage(stderr);
        return CM_EXIT_USAGE;
    }
    if (cm_settings_load(&d.settings, d.settings_path, &err) != CM_OK)
        return fail(CM_EXIT_CONFIG, &err);
    if (enable_chaos)
        d.settings->armed = true;
    if (check_settings(d.settings, &err) != CM_OK)
        return fail(CM_EXIT_CONFIG, &err);
    if (check_only) {
        printf("%s: ok\n", d.settings_path);
        return EXIT_SUCCESS;
    }
    cm_log_open("chaosmilter", cm_settings_log_level(d.settings),
                strcmp(d.settings->log_target, "syslog") == 0);
    _exit(run(&d));
}
