/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One table knows every setting; settings_value.c brings a value from text into
 * its member. Where each value came from is kept until the end, so that a rule
 * over two settings can name a line as well.
 *
 * Reading the tree by libconfig's lookup functions was rejected: they are
 * silent about settings that nobody asks for, which is how a typo stays unseen.
 */
#include "milter/settings.h"
#include "milter/model/address.h"
#include "milter/settings_check.h"
#include "milter/settings_scan.h"
#include "milter/settings_value.h"

#include <fcntl.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES          64 /* "redis.stateful_deadline_ms" */
#define VARIABLE_BYTES      (PATH_BYTES + sizeof "CHAOSMILTER_")
#define PASSWORD_LINE_BYTES 1024
#define TYPO_EDITS_MAX      3

static const char *const log_levels[] = {"error", "warning", "info", "debug",
                                         NULL};
static const char *const log_targets[] = {"stderr", "syslog", NULL};
static const char *const cases[] = {"insensitive", "sensitive", NULL};
static const char *const drop_fallbacks[] = {"skip", "tempfail", "close421",
                                             NULL};
static const char *const inbox_modes[] = {"implicit", "explicit", NULL};

#define AT(member) offsetof(struct cm_settings, member)
#define BOOL(name, member, def)                                                \
    {                                                                          \
        name, CM_SETTING_BOOL, AT(member), def, 0, 0, NULL, NULL               \
    }
#define INT(name, member, def, lo, hi)                                         \
    {                                                                          \
        name, CM_SETTING_INT, AT(member), def, lo, hi, NULL, NULL              \
    }
#define ENUM(name, member, def, set)                                           \
    {                                                                          \
        name, CM_SETTING_STRING, AT(member), def, 0, 0, NULL, set              \
    }
#define TEXT(name, type, member, def, fn)                                      \
    {                                                                          \
        name, type, AT(member), def, 0, 0, cm_settings_check_##fn, NULL        \
    }

/* clang-format off */
static const struct cm_setting settings[] = {
    BOOL("armed", armed, "false"),
    ENUM("log_level", log_level, "info", log_levels),
    ENUM("log_target", log_target, "stderr", log_targets),

    TEXT("milter.socket", CM_SETTING_STRING, milter.socket,
         "unix:/run/chaosmilter/chaosmilter.sock", milter_socket),
    TEXT("milter.socket_group", CM_SETTING_STRING, milter.socket_group, "", account),
    {"milter.socket_mode", CM_SETTING_MODE, AT(milter.socket_mode), "0660",
     0, 0777, NULL, NULL},
    TEXT("milter.user", CM_SETTING_STRING, milter.user, "", account),
    INT("milter.max_held", milter.max_held, "10000", 1, 1000000),
    INT("milter.sendmail_reply_timeout_s", milter.sendmail_reply_timeout_s,
        "10", 2, 86400),
    INT("milter.sendmail_message_timeout_s", milter.sendmail_message_timeout_s,
        "300", 2, 86400),
    TEXT("milter.snapshot", CM_SETTING_STRING, milter.snapshot, "", path),
    TEXT("milter.metrics_listen", CM_SETTING_STRING, milter.metrics_listen, "",
         metrics_listen),

    BOOL("drop.fin", drop.fin, "false"),
    TEXT("drop.ports", CM_SETTING_LIST, drop.ports, "25,465,587", port),
    INT("drop.deadline_ms", drop.deadline_ms, "200", 10, 10000),
    ENUM("drop.on_unavailable", drop.on_unavailable, "skip", drop_fallbacks),

    TEXT("hook.socket", CM_SETTING_STRING, hook.socket, "", own_socket),

    TEXT("relay.socket", CM_SETTING_STRING, relay.socket, "", own_socket),
    TEXT("relay.saslauthd", CM_SETTING_STRING, relay.saslauthd,
         "/run/saslauthd/mux", socket_path),

    ENUM("address.local_part_case", address.local_part_case, "insensitive",
         cases),
    TEXT("address.recipient_delimiter", CM_SETTING_STRING,
         address.recipient_delimiter, "+", delimiter),
    TEXT("address.protected", CM_SETTING_LIST, address.protected_, "", protected),

    TEXT("redis.address", CM_SETTING_STRING, redis.address,
         "unix:/run/redis/redis-server.sock", redis_address),
    TEXT("redis.username", CM_SETTING_STRING, redis.username, "", redis_username),
    TEXT("redis.password", CM_SETTING_SECRET, redis.password, "", redis_password),
    TEXT("redis.password_file", CM_SETTING_STRING, redis.password_file, "", path),
    INT("redis.database", redis.database, "0", 0, 1000000),
    TEXT("redis.prefix", CM_SETTING_STRING, redis.prefix, "{cm}", redis_prefix),
    INT("redis.connect_timeout_ms", redis.connect_timeout_ms, "1000",
        10, 60000),
    INT("redis.command_timeout_ms", redis.command_timeout_ms, "500",
        10, 60000),
    INT("redis.stateful_deadline_ms", redis.stateful_deadline_ms, "250",
        1, 10000),
    INT("redis.stale_after_s", redis.stale_after_s, "0", 0, 31536000),
    INT("redis.events_max", redis.events_max, "10000", 0, 10000000),

    TEXT("admin.listen", CM_SETTING_STRING, admin.listen, "127.0.0.1:8025", listen),
    TEXT("admin.user", CM_SETTING_STRING, admin.user, "", account),
    TEXT("admin.api_keys", CM_SETTING_LIST, admin.api_keys, "", api_key),
    TEXT("admin.api_key_file", CM_SETTING_STRING, admin.api_key_file, "", path),
    TEXT("admin.tls_certificate", CM_SETTING_STRING, admin.tls_certificate, "", path),
    TEXT("admin.tls_key", CM_SETTING_STRING, admin.tls_key, "", path),
    TEXT("admin.hosts", CM_SETTING_LIST, admin.hosts, "", host),
    ENUM("admin.inboxes", admin.inboxes, "implicit", inbox_modes),
    TEXT("admin.domains", CM_SETTING_LIST, admin.domains, "*", domain),
    INT("admin.default_ttl_s", admin.default_ttl_s, "3600", 60, 315360000),
    INT("admin.max_ttl_s", admin.max_ttl_s, "604800", 60, 315360000),
};
/* clang-format on */
#define SETTINGS_N (sizeof settings / sizeof settings[0])

const struct cm_setting *
cm_settings_table(size_t *n_r)
{
    *n_r = SETTINGS_N;
    return settings;
}

/* One run of cm_settings_load. */
struct load {
    struct cm_settings *to;
    const char *path;
    struct cm_setting_origin origins[SETTINGS_N];
    char variables[SETTINGS_N][VARIABLE_BYTES];
    struct cm_err *err;
};

static const struct cm_setting *
find(const char *path)
{
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (strcmp(settings[i].path, path) == 0)
            return &settings[i];
    return NULL;
}

static enum cm_status
fault(struct load *load, const struct cm_setting_origin *from, const char *name,
      const char *what)
{
    return cm_setting_fault(load->err, from, name, what);
}

static enum cm_status
no_memory(struct load *load)
{
    return cm_err_set(load->err, CM_ENOMEM, "out of memory");
}

static enum cm_status
set(struct load *load, const struct cm_setting *def, const char *text,
    const struct cm_setting_origin *from)
{
    load->origins[def - settings] = *from;
    return cm_setting_set(load->to, def, text, from, load->err);
}

/* --- the file --- */

/* Edits (insert, delete, replace) that turn a into b, for short names. */
static size_t
edit_distance(const char *a, const char *b)
{
    size_t row[PATH_BYTES + 1];
    size_t len = strlen(b);
    if (len > PATH_BYTES)
        return SIZE_MAX;
    for (size_t j = 0; j <= len; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[len];
}

static enum cm_status
fault_unknown(struct load *load, const char *path,
              const struct cm_setting_origin *from)
{
    const char *nearest = NULL;
    size_t least = TYPO_EDITS_MAX + 1;
    char what[PATH_BYTES + 48] = "there is no such setting";
    for (size_t i = 0; i < SETTINGS_N; i++) {
        size_t edits = edit_distance(path, settings[i].path);
        if (edits < least && settings[i].type != CM_SETTING_SECRET) {
            least = edits;
            nearest = settings[i].path;
        }
    }
    if (nearest)
        snprintf(what, sizeof what,
                 "there is no such setting: did you mean %s?", nearest);
    return fault(load, from, path, what);
}

static struct cm_setting_origin
origin_of(const struct load *load, const config_setting_t *node)
{
    const char *file = config_setting_source_file(node);
    return (struct cm_setting_origin){.file = file ? file : load->path,
                                      .line = config_setting_source_line(node)};
}

static enum cm_status
read_list(struct load *load, const struct cm_setting *def,
          const config_setting_t *node)
{
    static const char what[] = "must be a list of strings: [ \"...\", ... ]";
    struct cm_setting_origin from = origin_of(load, node);
    if (!config_setting_is_array(node) && !config_setting_is_list(node))
        return fault(load, &from, def->path, what);
    load->origins[def - settings] = from;
    cm_setting_clear(load->to, def);
    for (int i = 0; i < config_setting_length(node); i++) {
        const config_setting_t *item =
            config_setting_get_elem(node, (unsigned)i);
        enum cm_status status;
        from = origin_of(load, item);
        if (config_setting_type(item) != CONFIG_TYPE_STRING)
            return fault(load, &from, def->path, what);
        status = cm_setting_add(load->to, def, config_setting_get_string(item),
                                &from, load->err);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

/* A number in the table's own form; other types do not pass for one. */
static enum cm_status
read_int(struct load *load, const struct cm_setting *def,
         const config_setting_t *node, const struct cm_setting_origin *from)
{
    char text[24] = ""; /* no number: the setter says what is allowed */
    int type = config_setting_type(node);
    if (type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64)
        snprintf(text, sizeof text, "%lld", config_setting_get_int64(node));
    return set(load, def, text, from);
}

static enum cm_status
read_setting(struct load *load, const struct cm_setting *def,
             const config_setting_t *node)
{
    struct cm_setting_origin from = origin_of(load, node);
    bool is_string = config_setting_type(node) == CONFIG_TYPE_STRING;
    switch (def->type) {
    case CM_SETTING_BOOL:
        if (config_setting_type(node) != CONFIG_TYPE_BOOL)
            return fault(load, &from, def->path, "must be true or false");
        return set(load, def, config_setting_get_bool(node) ? "true" : "false",
                   &from);
    case CM_SETTING_INT:
        return read_int(load, def, node, &from);
    case CM_SETTING_MODE:
        return set(load, def, is_string ? config_setting_get_string(node) : "",
                   &from);
    case CM_SETTING_STRING:
        if (!is_string)
            return fault(load, &from, def->path,
                         "must be a string in double quotes");
        return set(load, def, config_setting_get_string(node), &from);
    case CM_SETTING_LIST:
        return read_list(load, def, node);
    case CM_SETTING_SECRET:
        return fault(load, &from, def->path,
                     "is not taken from here: put it into redis.password_file "
                     "or CHAOSMILTER_REDIS_PASSWORD");
    }
    return CM_EINVAL;
}

/* Is path the first part of some setting's name? */
static bool
is_group_name(const char *path)
{
    size_t len = strlen(path);
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (strncmp(settings[i].path, path, len) == 0 &&
            settings[i].path[len] == '.')
            return true;
    return false;
}

static enum cm_status
read_group(struct load *load, const config_setting_t *group, const char *prefix)
{
    enum cm_status status = CM_OK;
    for (int i = 0; i < config_setting_length(group) && status == CM_OK; i++) {
        const config_setting_t *node =
            config_setting_get_elem(group, (unsigned)i);
        struct cm_setting_origin from = origin_of(load, node);
        const struct cm_setting *def;
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s%s", prefix, config_setting_name(node));
        def = find(path);
        if (def) {
            status = read_setting(load, def, node);
        } else if (!is_group_name(path)) {
            status = fault_unknown(load, path, &from);
        } else if (!config_setting_is_group(node)) {
            status = fault(load, &from, path, "must be a group: { ... }");
        } else {
            char inner[PATH_BYTES + 1];
            snprintf(inner, sizeof inner, "%s.", path);
            status = read_group(load, node, inner);
        }
    }
    return status;
}

/* The directory of path, for @include; the caller's to free(). */
static char *
directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static enum cm_status
read_file(struct load *load, config_t *config)
{
    enum cm_status status;
    const char *file;
    char *dir = directory_of(load->path);
    if (!dir)
        return no_memory(load);
    status = cm_settings_scan(load->path, dir, load->err);
    if (status != CM_OK)
        goto out;
    config_set_auto_convert(config, CONFIG_FALSE);
    config_set_include_dir(config, dir);
    if (config_read_file(config, load->path)) {
        status = read_group(load, config_root_setting(config), "");
        goto out;
    }
    file = config_error_file(config);
    status =
        cm_err_set(load->err, CM_EINVAL, "%s:%d: %s", file ? file : load->path,
                   config_error_line(config), config_error_text(config));
out:
    free(dir);
    return status;
}

/* --- the environment --- */

/* "redis.address" -> "CHAOSMILTER_REDIS_ADDRESS" */
static void
variable_name(char *name, size_t size, const char *path)
{
    size_t n = (size_t)snprintf(name, size, "CHAOSMILTER_");
    for (; *path && n + 1 < size; path++) {
        char c = *path;
        if (c == '.')
            c = '_';
        else if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        name[n++] = c;
    }
    name[n] = '\0';
}

/* Other names of CHAOSMILTER_ARMED, which users of VaultSandbox and of Mailpit
 * know; Mailpit's triggers arm by being there. Nothing is armed by accident, so
 * one of them that says no is believed before those that say yes. An empty
 * variable of Mailpit's is none. */
static enum cm_status
read_arming(struct load *load)
{
    static const struct {
        struct cm_setting_origin from;
        bool may_be_empty, is_switch;
    } names[] = {
        {{.variable = "VSB_CHAOS_ENABLED"}, false, true},
        {{.variable = "MP_ENABLE_CHAOS"}, true, true},
        {{.variable = "MP_CHAOS_TRIGGERS"}, true, false},
    };
    const struct cm_setting *armed = find("armed");
    enum cm_status status = CM_OK;
    bool forbidden = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && status == CM_OK;
         i++) {
        const char *text = getenv(names[i].from.variable);
        if (!text || (!*text && names[i].may_be_empty))
            continue;
        status = set(load, armed, names[i].is_switch ? text : "true",
                     &names[i].from);
        forbidden = forbidden || !load->to->armed;
    }
    if (forbidden)
        load->to->armed = false;
    return status;
}

/* Where CHAOSMILTER_ARMED is given, it alone counts. */
static enum cm_status
read_environment(struct load *load)
{
    const char *text;
    enum cm_status status = read_arming(load);
    for (size_t i = 0; i < SETTINGS_N && status == CM_OK; i++) {
        struct cm_setting_origin from = {.variable = load->variables[i]};
        variable_name(load->variables[i], VARIABLE_BYTES, settings[i].path);
        text = getenv(from.variable);
        if (text)
            status = set(load, &settings[i], text, &from);
    }
    return status;
}

/* --- the password --- */

/* The first line of redis.password_file, unless the environment has one. */
static enum cm_status
read_password(struct load *load)
{
    const struct cm_setting *def = find("redis.password");
    const struct cm_setting *file_def = find("redis.password_file");
    const struct cm_setting_origin *from = &load->origins[file_def - settings];
    const char *path = load->to->redis.password_file;
    const char *what = NULL;
    char line[PASSWORD_LINE_BYTES + 1] = "";
    enum cm_status status;
    struct stat st;
    int fd;
    if (!path[0] || load->to->redis.password[0])
        return CM_OK;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        char why[96];
        snprintf(why, sizeof why, "cannot be opened: %m");
        return fault(load, from, file_def->path, why);
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        what = "is not a regular file";
    else if (st.st_mode & S_IRWXO)
        what = "others may read or write that file: chmod o= it";
    else if (read(fd, line, sizeof line - 1) < 0)
        what = "cannot be read";
    else if (line[0] == '\0' || strchr("\r\n", line[0]))
        what = "its first line is empty";
    if (what) {
        status = fault(load, from, file_def->path, what);
    } else {
        line[strcspn(line, "\r\n")] = '\0';
        status = cm_setting_set(load->to, def, line, from, load->err);
    }
    explicit_bzero(line, sizeof line);
    close(fd);
    return status;
}

/* --- all together --- */

/* A time to live that is given by default must be one that may be asked for. */
static enum cm_status
check_ttl(struct load *load)
{
    const struct cm_setting *def = find("admin.default_ttl_s");
    const struct cm_setting *max = find("admin.max_ttl_s");
    const struct cm_setting_origin *from = &load->origins[def - settings];
    if (load->to->admin.default_ttl_s <= load->to->admin.max_ttl_s)
        return CM_OK;
    if (from->file || from->variable)
        return fault(load, from, def->path,
                     "must not be above admin.max_ttl_s");
    return fault(load, &load->origins[max - settings], max->path,
                 "must not be below admin.default_ttl_s");
}

/* The hook finds the session of a command by the process at the other end of
 * both sockets, which the kernel tells of unix sockets alone. */
static enum cm_status
check_hook(struct load *load)
{
    const struct cm_setting *def = find("hook.socket");
    const struct cm_setting_origin *from = &load->origins[def - settings];
    const char *hook = load->to->hook.socket;
    const char *milter = load->to->milter.socket;
    if (!hook[0])
        return CM_OK;
    if (strncmp(milter, "unix:", 5) != 0)
        return fault(load, from, def->path,
                     "needs milter.socket to be \"unix:/path\" as well");
    if (strcmp(hook, milter) == 0)
        return fault(load, from, def->path,
                     "must be another path than that of milter.socket");
    return CM_OK;
}

/* What the relay is asked it asks of saslauthd, and never of itself. */
static enum cm_status
check_relay(struct load *load)
{
    const struct cm_setting *def = find("relay.socket");
    const struct cm_setting_origin *from = &load->origins[def - settings];
    const char *relay = load->to->relay.socket;
    if (!relay[0])
        return CM_OK;
    if (strcmp(relay, load->to->milter.socket) == 0 ||
        strcmp(relay, load->to->hook.socket) == 0)
        return fault(load, from, def->path,
                     "must be another path than that of milter.socket and "
                     "hook.socket");
    if (strcmp(relay + strlen("unix:"), load->to->relay.saslauthd) == 0)
        return fault(load, from, def->path,
                     "must be another path than relay.saslauthd");
    return CM_OK;
}

static enum cm_status
read_defaults(struct load *load)
{
    static const struct cm_setting_origin nowhere;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < SETTINGS_N && status == CM_OK; i++)
        status = set(load, &settings[i], settings[i].default_text, &nowhere);
    return status;
}

enum cm_status
cm_settings_load(struct cm_settings **settings_r, const char *path,
                 struct cm_err *err)
{
    struct load load = {.path = path, .err = err};
    enum cm_status status;
    config_t config;
    config_init(&config);
    *settings_r = NULL;
    load.to = calloc(1, sizeof *load.to);
    if (!load.to) {
        status = no_memory(&load);
        goto out;
    }
    status = read_defaults(&load);
    if (status == CM_OK && path)
        status = read_file(&load, &config);
    if (status == CM_OK)
        status = read_environment(&load);
    if (status == CM_OK)
        status = check_ttl(&load);
    if (status == CM_OK)
        status = check_hook(&load);
    if (status == CM_OK)
        status = check_relay(&load);
    if (status == CM_OK)
        status = read_password(&load);
    if (status == CM_OK) {
        *settings_r = load.to;
        load.to = NULL;
    }
out:
    cm_settings_free(&load.to);
    config_destroy(&config); /* the origins' file names live there */
    return status;
}

void
cm_settings_free(struct cm_settings **s)
{
    if (!*s)
        return;
    for (size_t i = 0; i < SETTINGS_N; i++)
        cm_setting_clear(*s, &settings[i]);
    free(*s);
    *s = NULL;
}

enum cm_log_level
cm_settings_log_level(const struct cm_settings *s)
{
    static const enum cm_log_level levels[] = {CM_LOG_ERR, CM_LOG_WARNING,
                                               CM_LOG_INFO, CM_LOG_DEBUG};
    size_t i = 0;
    while (log_levels[i + 1] && strcmp(log_levels[i], s->log_level) != 0)
        i++;
    return levels[i];
}

unsigned
cm_settings_address_flags(const struct cm_settings *s)
{
    return strcmp(s->address.local_part_case, "sensitive") == 0
               ? CM_ADDRESS_KEEP_CASE
               : 0;
}
