/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chaosadmin, the HTTP daemon: reads the settings, binds its port, lets go of
 * its privileges, puts the rooms together and waits for a signal.
 *
 * Signals are blocked in every thread and taken by sigwaitinfo() in this one,
 * so no handler ever runs in the middle of anything. The end is orderly, but a
 * request may be waiting for a Redis that hangs: after CM_MAIN_PATIENCE_MS we
 * leave all the same.
 */
#include "admin/api.h"
#include "admin/auth.h"
#include "admin/feed.h"
#include "admin/http.h"
#include "admin/keeper.h"
#include "admin/keyring.h"
#include "admin/listen.h"
#include "admin/tls.h"
#include "admin/streams.h"
#include "milter/clock.h"
#include "milter/exitcode.h"
#include "milter/log.h"
#include "milter/model/mailpit.h"
#include "milter/notify.h"
#include "milter/privs.h"
#include "milter/settings.h"
#include "milter/store/commit.h"
#include "milter/store/pool.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CM_MAIN_PATIENCE_MS 700

struct store {
    struct cm_pool *pool;
    struct cm_commits *commits;
};

struct daemon {
    const char *settings_path;
    struct cm_settings *settings;
    struct cm_listen listen;
    struct cm_api api;
    struct cm_auth *auth;
    struct store store; /* for the requests */
    struct store own;   /* the keeper's, so that a second in which Redis is busy
                           with one of them is no outage to all */
    struct cm_keyring *keyring;
    struct cm_keeper *keeper;
    struct cm_feed *feed;
    struct cm_streams *streams;
    struct cm_tls *tls; /* NULL: plain HTTP, or started already */
    struct cm_http *http;
    bool has_triggers; /* to be set at start */
    struct cm_triggers triggers;
    const char *hosts[CM_SETTINGS_LIST_MAX + 1];
};

struct options {
    const char *path;
    const char *triggers; /* NULL: not given */
    bool check_only, new_key, version, help, enable_chaos;
};

static void
usage(FILE *out)
{
    fprintf(out,
            "usage: chaosadmin [-n] [-c FILE] [--enable-chaos] "
            "[--chaos-triggers LIST]\n"
            "       chaosadmin --new-key\n"
            "  -c FILE    settings (default " CM_SYSCONFDIR
            "/chaosmilter/chaosmilter.conf)\n"
            "  -n         check the settings and exit\n"
            "  --enable-chaos         arm, whatever the settings say\n"
            "  --chaos-triggers LIST  arm, and set Mailpit's triggers, e.g.\n"
            "                         Sender:451:50,Recipient:550:10\n"
            "  --new-key  print a new API key and its line for the settings\n"
            "  -V         print version and exit\n"
            "  -h         this text\n"
            "SIGTERM ends it.\n");
}

static int
fail(int code, const struct cm_err *err)
{
    fprintf(stderr, "chaosadmin: %s\n", err->msg);
    return code;
}

static int
new_key(void)
{
    char key[CM_AUTH_KEY_SIZE], line[CM_AUTH_LINE_SIZE];
    struct cm_err err;
    if (cm_auth_new_key(key, line, &err) != CM_OK)
        return fail(CM_EXIT_OSERR, &err);
    printf("key:      %s\nsettings: api_keys = [ \"%s\" ];\n", key, line);
    return EXIT_SUCCESS;
}

/* A descriptor below 3 that is closed would be taken by a socket, and what is
 * printed would go to a client. */
static bool
fill_standard_fds(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static enum cm_status
check_tls(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    bool cert = s->admin.tls_certificate[0], key = s->admin.tls_key[0];
    if (cert != key)
        return cm_err_set(err, CM_EINVAL,
                          "admin.tls_certificate and admin.tls_key go "
                          "together: %s is missing",
                          cert ? "admin.tls_key" : "admin.tls_certificate");
    return cert ? cm_tls_load(&d->tls, s->admin.tls_certificate,
                              s->admin.tls_key, err)
                : CM_OK;
}

/* Mailpit's triggers, of the command line or else of the environment. */
static enum cm_status
read_triggers(struct daemon *d, const struct options *o, struct cm_err *err)
{
    static const char variable[] = "MP_CHAOS_TRIGGERS";
    const char *list = o->triggers ? o->triggers : getenv(variable);
    struct cm_err why;
    if (!list || (!*list && !o->triggers))
        return CM_OK;
    enum cm_status status = cm_triggers_parse(&d->triggers, list, &why);
    if (status != CM_OK)
        return cm_err_set(err, status, "%s: %s",
                          o->triggers ? "--chaos-triggers" : variable, why.msg);
    d->has_triggers = d->settings->armed;
    return CM_OK;
}

/* What the settings' own table cannot judge. */
static enum cm_status
check_settings(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    struct cm_err why;
    enum cm_status status = cm_listen_check(&d->listen, s->admin.listen, &why);
    if (status != CM_OK)
        return cm_err_set(err, status, "admin.listen: %s", why.msg);
    if (s->admin.default_ttl_s > s->admin.max_ttl_s)
        return cm_err_set(err, CM_EINVAL,
                          "admin.default_ttl_s is above admin.max_ttl_s");
    status = check_tls(d, err);
    if (status != CM_OK)
        return status;
    return cm_auth_new(&d->auth, &s->admin.api_keys, s->admin.api_key_file,
                       err);
}

/* Listeners first, for they may not be added later. */
static enum cm_status
start_feed(struct daemon *d, const struct cm_link_opts *link,
           struct cm_err *err)
{
    enum cm_status status = cm_feed_new(&d->feed, err);
    if (status == CM_OK)
        status = cm_streams_start(&d->streams, d->feed, err);
    if (status == CM_OK)
        status = cm_feed_start(d->feed, link, d->settings->redis.prefix, err);
    return status;
}

static enum cm_status
open_store(struct store *store, const struct cm_settings *s,
           const struct cm_link_opts *link, int links, struct cm_err *err)
{
    bool fold = strcmp(s->address.local_part_case, "insensitive") == 0;
    enum cm_status status = cm_pool_new(&store->pool, link, links, err);
    if (status == CM_OK)
        status = cm_commits_new(&store->commits, store->pool, s->redis.prefix,
                                fold, (int)s->redis.command_timeout_ms, err);
    return status;
}

static void
close_store(struct store *store)
{
    cm_commits_free(&store->commits);
    cm_pool_free(&store->pool);
}

static enum cm_status
start_store(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    struct cm_link_opts link = {
        .address = s->redis.address,
        .username = s->redis.username,
        .password = s->redis.password,
        .database = (int)s->redis.database,
        .connect_timeout_ms = (int)s->redis.connect_timeout_ms,
        .command_timeout_ms = (int)s->redis.command_timeout_ms,
        .client_name = "chaosadmin",
    };
    enum cm_status status =
        open_store(&d->store, s, &link, CM_HTTP_THREADS, err);
    if (status == CM_OK)
        status = open_store(&d->own, s, &link, 1, err);
    if (status == CM_OK) {
        status = cm_keyring_new(&d->keyring, d->store.commits);
        if (status != CM_OK)
            return cm_err_set(err, status, "out of memory");
        cm_auth_extend(d->auth, cm_keyring_lookup, d->keyring);
    }
    if (status == CM_OK)
        status = cm_keeper_start(&d->keeper, d->own.commits,
                                 d->has_triggers ? &d->triggers : NULL, err);
    if (status == CM_OK)
        status = start_feed(d, &link, err);
    return status;
}

static enum cm_status
start_http(struct daemon *d, struct cm_err *err)
{
    const struct cm_settings *s = d->settings;
    struct cm_guard guard = {.hosts = d->hosts};
    d->hosts[guard.nhosts++] = d->listen.host;
    for (size_t i = 0; i < s->admin.hosts.n; i++)
        d->hosts[guard.nhosts++] = s->admin.hosts.at[i];
    d->api = (struct cm_api){
        .settings = s,
        .auth = d->auth,
        .keyring = d->keyring,
        .pool = d->store.pool,
        .commits = d->store.commits,
        .keeper = d->keeper,
        .feed = d->feed,
        .streams = d->streams,
        .version = PACKAGE_VERSION,
        .address_flags = cm_settings_address_flags(s),
        .started_ms = cm_clock_mono_ms(),
    };
    struct cm_http_ops ops = {cm_api_admit, cm_api_handle, cm_api_done,
                              &d->api};
    int fd = d->listen.fd;
    d->listen.fd = -1; /* the server's now, also when it fails */
    enum cm_status status =
        cm_http_start(&d->http, fd, &guard, &ops, d->tls, err);
    cm_tls_free(&d->tls); /* the library has made its own of the key */
    return status;
}

static void *
lose_patience(void *arg)
{
    struct timespec wait = {.tv_nsec = CM_MAIN_PATIENCE_MS * 1000000L};
    (void)arg;
    nanosleep(&wait, NULL);
    cm_log_warn("what=end error=\"a request still waits for Redis: its answer "
                "is lost\"");
    _exit(EXIT_SUCCESS);
}

static void
stop(struct daemon *d)
{
    if (d->streams)
        cm_streams_shut(d->streams);
    cm_http_stop(&d->http);
    if (d->feed)
        cm_feed_stop(d->feed);
    cm_streams_stop(&d->streams);
    cm_feed_free(&d->feed);
    cm_keeper_stop(&d->keeper);
    cm_keyring_free(&d->keyring);
    close_store(&d->own);
    close_store(&d->store);
    if (d->listen.fd >= 0)
        close(d->listen.fd);
    cm_tls_free(&d->tls);
    cm_auth_free(&d->auth);
    cm_settings_free(&d->settings);
}

static void
wait_for_end(const sigset_t *signals)
{
    for (;;) {
        int signo = sigwaitinfo(signals, NULL);
        if (signo == SIGUSR1) {
            cm_log_warn("what=signal signal=SIGUSR1 error=\"settings are read "
                        "at start only: restart\"");
            continue;
        }
        if (signo < 0)
            continue;
        pthread_t thread;
        cm_log_info("what=end signal=%d", signo);
        cm_notify("STOPPING=1");
        if (pthread_create(&thread, NULL, lose_patience, NULL) == 0)
            pthread_detach(thread);
        return;
    }
}

static int
run(struct daemon *d)
{
    const struct cm_settings *s = d->settings;
    struct cm_err err, why;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    enum cm_status status = cm_listen_open(&d->listen, s->admin.listen, &err);
    if (status != CM_OK)
        return fail(status == CM_EINVAL ? CM_EXIT_CONFIG : CM_EXIT_UNAVAILABLE,
                    &err);
    if (cm_privs_drop(s->admin.user, NULL, &why) != CM_OK) {
        cm_err_set(&err, CM_EINVAL, "admin.user: %s", why.msg);
        return fail(CM_EXIT_CONFIG, &err);
    }
    status = start_store(d, &err);
    if (status == CM_OK)
        status = start_http(d, &err);
    if (status != CM_OK)
        return fail(status == CM_EINVAL ? CM_EXIT_CONFIG : CM_EXIT_OSERR, &err);
    bool secure = s->admin.tls_certificate[0] != '\0';
    cm_log_info("what=start version=%s listen=%s tls=%s armed=%s",
                PACKAGE_VERSION, s->admin.listen, secure ? "yes" : "no",
                s->armed ? "yes" : "no");
    if (!d->listen.loopback && !secure)
        cm_log_warn("what=listen address=%s error=\"not loopback, and "
                    "without admin.tls_certificate: keys travel in the clear "
                    "unless a proxy in "
                    "front encrypts\"",
                    s->admin.listen);
    cm_notify("READY=1");
    wait_for_end(&signals);
    return EXIT_SUCCESS;
}

static bool
read_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"new-key", no_argument, NULL, 'k'},
        {"enable-chaos", no_argument, NULL, 'e'},
        {"chaos-triggers", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "c:nVh", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            o->path = optarg;
            break;
        case 'n':
            o->check_only = true;
            break;
        case 'k':
            o->new_key = true;
            break;
        case 'e':
            /* getopt takes a beginning of the name, too: not to arm us. */
            if (strcmp(argv[optind - 1], "--enable-chaos") != 0)
                return false;
            o->enable_chaos = true;
            break;
        case 't':
            o->triggers = optarg;
            break;
        case 'V':
            o->version = true;
            break;
        case 'h':
            o->help = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc;
}

int
main(int argc, char **argv)
{
    static struct daemon d = {.listen = {.fd = -1}};
    struct options o = {.path = CM_SYSCONFDIR "/chaosmilter/chaosmilter.conf"};
    struct cm_err err;
    int code = EXIT_SUCCESS;
    if (!fill_standard_fds())
        return CM_EXIT_OSERR;
    if (!read_options(argc, argv, &o)) {
        usage(stderr);
        return CM_EXIT_USAGE;
    }
    if (o.help)
        usage(stdout);
    else if (o.version)
        printf("chaosadmin %s\n", PACKAGE_VERSION);
    if (o.help || o.version)
        return EXIT_SUCCESS;
    if (o.new_key)
        return new_key();

    enum cm_status status = cm_settings_load(&d.settings, o.path, &err);
    if (status == CM_OK && (o.enable_chaos || o.triggers))
        d.settings->armed = true;
    if (status == CM_OK)
        status = read_triggers(&d, &o, &err);
    if (status == CM_OK)
        status = check_settings(&d, &err);
    if (status != CM_OK) {
        code = fail(CM_EXIT_CONFIG, &err);
    } else if (o.check_only) {
        printf("%s: ok\n", o.path);
    } else {
        cm_log_open("chaosadmin", cm_settings_log_level(d.settings),
                    strcmp(d.settings->log_target, "syslog") == 0);
        code = run(&d);
    }
    stop(&d);
    return code;
}
