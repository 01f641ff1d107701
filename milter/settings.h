/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SETTINGS_H
#define CM_SETTINGS_H

#include "milter/err.h"
#include "milter/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What an operator sets, read once from one libconfig file that both daemons
 * share, then overridden by CHAOSMILTER_* variables. The table in settings.c is
 * the only place that knows a setting's name, type, range and default; the file
 * conf/chaosmilter.conf shows every one with its meaning.
 */
#define CM_SETTINGS_LIST_MAX 64
struct cm_string_list {
    char *at[CM_SETTINGS_LIST_MAX]; /* owned */
    size_t n;
};

struct cm_settings {
    bool armed; /* false: nothing is ever hurt, and nothing can change that */

    char *log_level;  /* "error", "warning", "info", "debug" */
    char *log_target; /* "stderr", "syslog" */

    struct {
        char *socket; /* "unix:/path", "inet:port@host", "inet6:port@host" */
        char *socket_group;
        int64_t socket_mode; /* e.g. 0660 */
        char *user;          /* dropped to when started as root */
        int64_t max_held;    /* sessions whose reply may be held at once */
        int64_t sendmail_reply_timeout_s;   /* its T=R of this filter */
        int64_t sendmail_message_timeout_s; /* its T=E */
        char *snapshot;                     /* path; "": none */
        char *metrics_listen;               /* "127.0.0.1:9125"; "": none */
    } milter;

    struct {
        bool fin;                    /* FIN too, which needs CAP_SYS_PTRACE */
        struct cm_string_list ports; /* decimal; of the MTA, no other is cut */
        int64_t deadline_ms;
        char *on_unavailable; /* "skip", "tempfail", "close421" */
    } drop;

    struct {
        char *socket; /* "unix:/path"; "": no command hook */
    } hook;

    struct {
        char *socket;    /* "unix:/path"; "": no saslauthd relay */
        char *saslauthd; /* path of the real one's socket */
    } relay;

    struct {
        char *local_part_case; /* "insensitive", "sensitive" */
        char *recipient_delimiter;
        struct cm_string_list protected_; /* never hurt: "postmaster@", "a@b" */
    } address;

    struct {
        char *address; /* "unix:/path" or "tcp:host:port" */
        char *username;
        char *password; /* from password_file or CHAOSMILTER_REDIS_PASSWORD */
        char *password_file;
        int64_t database;
        char *prefix;
        int64_t connect_timeout_ms;
        int64_t command_timeout_ms;
        int64_t stateful_deadline_ms;
        int64_t stale_after_s; /* 0: never */
        int64_t events_max;    /* length of the event stream */
    } redis;

    struct {
        char *listen; /* "127.0.0.1:8025", "[::1]:8025" */
        char *user;
        struct cm_string_list api_keys;  /* "sha256:<64 hex digits>" */
        char *api_key_file;              /* the same, one a line, # comments */
        char *tls_certificate, *tls_key; /* paths of PEM files; "": no TLS */
        struct cm_string_list hosts;     /* further names allowed in Host */
        char *inboxes;                   /* "implicit", "explicit" */
        struct cm_string_list domains;   /* of inboxes; "*" allows any */
        int64_t default_ttl_s, max_ttl_s;
    } admin;
};

/*
 * cm_settings_load - defaults, then the file, then the environment.
 *
 * path  the file; NULL: defaults and environment alone
 *
 * CM_OK; CM_EINVAL: the first fault as "file:line: what" (or "VARIABLE: what");
 * CM_NOTFOUND, CM_EIO: the file; CM_ENOMEM. On failure *settings_r is freed.
 * Not thread-safe (reads the environment).
 */
enum cm_status cm_settings_load(struct cm_settings **settings_r,
                                const char *path,
                                struct cm_err *err) CM_MUST_CHECK;
void cm_settings_free(struct cm_settings **settings);

/* cm_settings_log_level - log_level as the logger's enum. */
enum cm_log_level cm_settings_log_level(const struct cm_settings *settings);

/* cm_settings_address_flags - for cm_address_parse. */
unsigned cm_settings_address_flags(const struct cm_settings *settings);

#endif
