/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings, as data: the text of a file, or a variable, and either the exact
 * message or the value that must come of it. Files live in a directory of the
 * test's own. libconfig itself is outside the failing allocator (it is another
 * shared object, and ends the process when memory runs out).
 */
#include "milter/settings.h"
#include "milter/model/address.h"
#include "milter/settings_value.h"
#include "t/unit/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define A64   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

extern char **environ;

static char dir[64];

/* --- files and variables --- */

static const char *
in_dir(const char *name)
{
    static char path[384];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void
write_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(in_dir(name), mode), 0);
}

static void
forget_variables(void)
{
    static const char *const prefixes[] = {"CHAOSMILTER_", "VSB_", "MP_"};
    for (size_t p = 0; p < 3; p++) {
        size_t len = strlen(prefixes[p]);
        for (size_t i = 0; environ[i];) {
            char name[128];
            if (strncmp(environ[i], prefixes[p], len) != 0) {
                i++;
                continue;
            }
            snprintf(name, sizeof name, "%.*s", (int)strcspn(environ[i], "="),
                     environ[i]);
            unsetenv(name);
        }
    }
}

static void
empty_dir(void)
{
    struct dirent *entry;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((entry = readdir(d)))
        if (entry->d_name[0] != '.')
            remove(in_dir(entry->d_name));
    closedir(d);
}

static int
setup(void **state)
{
    (void)state;
    forget_variables();
    snprintf(dir, sizeof dir, "/tmp/test_settings.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    forget_variables();
    empty_dir();
    return rmdir(dir);
}

static struct cm_settings *
load_ok(const char *path)
{
    struct cm_settings *s = NULL;
    struct cm_err err = {.msg = ""};
    if (cm_settings_load(&s, path, &err) != CM_OK)
        fail_msg("%s", err.msg);
    assert_non_null(s);
    return s;
}

static void
load_fails(const char *name, const char *path, enum cm_status status,
           const char *message)
{
    struct cm_settings *s = (struct cm_settings *)&s;
    struct cm_err err = {.msg = ""};
    enum cm_status got = cm_settings_load(&s, path, &err);
    if (got != status || strcmp(err.msg, message) != 0)
        fail_msg("%s: %s, \"%s\" instead of %s, \"%s\"", name,
                 cm_status_name(got), err.msg, cm_status_name(status), message);
    assert_null(s);
    assert_int_equal(err.code, status);
}

/* --- refused files --- */

static const struct {
    const char *name, *text, *message; /* after the file's path */
} refused[] = {
    {"syntax", "armed = true;\nlog_level == 1;\n", ":2: syntax error"},
    {"unclosed group", "redis: {\n database = 1;\n", ":3: syntax error"},
    {"byte order mark",
     "\xef\xbb\xbf"
     "armed = true;\n",
     ":1: syntax error"},
    {"duplicate", "armed = true;\narmed = false;\n",
     ":2: duplicate setting name"},
    {"unknown", "\n\ncolour = \"red\";\n",
     ":3: colour: there is no such setting"},
    {"unknown in group", "redis: {\n\n nonsense = 1;\n};\n",
     ":3: redis.nonsense: there is no such setting"},
    {"unknown group", "postfix: { armed = true; };\n",
     ":1: postfix: there is no such setting"},
    {"typo", "redis: { adress = \"unix:/r\"; };\n",
     ":1: redis.adress: there is no such setting: did you mean "
     "redis.address?"},
    {"typo at top", "armd = true;\n",
     ":1: armd: there is no such setting: did you mean armed?"},
    {"case counts", "Armed = true;\n",
     ":1: Armed: there is no such setting: did you mean armed?"},
    {"very long name", A64 A64 A64 " = 1;\n",
     ":1: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: "
     "there is no such setting"},
    {"group as a value", "redis = \"x\";\n",
     ":1: redis: must be a group: { ... }"},
    {"value as a group", "armed: { x = 1; };\n",
     ":1: armed: must be true or false"},
    {"bool as text", "armed = \"true\";\n", ":1: armed: must be true or false"},
    {"bool as number", "armed = 1;\n", ":1: armed: must be true or false"},
    {"text as number", "redis: { address = 1; };\n",
     ":1: redis.address: must be a string in double quotes"},
    {"text as bool", "log_level = true;\n",
     ":1: log_level: must be a string in double quotes"},
    {"number as text", "redis: { database = \"1\"; };\n",
     ":1: redis.database: must be an integer from 0 to 1000000"},
    {"number as real", "redis: { database = 1.0; };\n",
     ":1: redis.database: must be an integer from 0 to 1000000"},
    {"number as bool", "redis: { database = true; };\n",
     ":1: redis.database: must be an integer from 0 to 1000000"},
    {"below", "milter: { max_held = 0; };\n",
     ":1: milter.max_held: must be an integer from 1 to 1000000"},
    {"negative", "redis: { database = -1; };\n",
     ":1: redis.database: must be an integer from 0 to 1000000"},
    {"above", "redis: {\n database = 1000001;\n};\n",
     ":2: redis.database: must be an integer from 0 to 1000000"},
    {"would wrap to 1", "milter: { max_held = 4294967297; };\n",
     ":1: max_held: the number is out of range"},
    {"would wrap to 1, hex", "milter: { max_held = 0x100000001; };\n",
     ":1: max_held: the number is out of range"},
    {"64 bits", "milter: {\n max_held = 99999999999999999999L; };\n",
     ":2: max_held: the number is out of range"},
    {"enumeration", "log_level = \"loud\";\n",
     ":1: log_level: must be \"error\", \"warning\", \"info\" or \"debug\""},
    {"enumeration of two", "admin: { inboxes = \"\"; };\n",
     ":1: admin.inboxes: must be \"implicit\" or \"explicit\""},
    {"hook, no socket", "hook: { socket = \"inet:8894@localhost\"; };\n",
     ":1: hook.socket: must be \"unix:/path\" (at most 107 bytes of path), or "
     "empty"},
    {"hook, relative path", "hook: { socket = \"unix:hook.sock\"; };\n",
     ":1: hook.socket: must be \"unix:/path\" (at most 107 bytes of path), or "
     "empty"},
    {"hook without a unix milter socket",
     "milter: { socket = \"inet:8890@localhost\"; };\n"
     "hook: {\n socket = \"unix:/run/hook\"; };\n",
     ":3: hook.socket: needs milter.socket to be \"unix:/path\" as well"},
    {"hook and milter on one socket",
     "milter: { socket = \"unix:/run/a\"; };\n"
     "hook: { socket = \"unix:/run/a\"; };\n",
     ":2: hook.socket: must be another path than that of milter.socket"},
    {"relay, no socket", "relay: { socket = \"/run/relay\"; };\n",
     ":1: relay.socket: must be \"unix:/path\" (at most 107 bytes of path), or "
     "empty"},
    {"relay, saslauthd not by its path",
     "relay: { saslauthd = \"unix:/run/mux\"; };\n",
     ":1: relay.saslauthd: must be an absolute path of a unix socket (at most "
     "107 bytes)"},
    {"relay without a saslauthd", "relay: { saslauthd = \"\"; };\n",
     ":1: relay.saslauthd: must be an absolute path of a unix socket (at most "
     "107 bytes)"},
    {"relay and hook on one socket",
     "hook: { socket = \"unix:/run/a\"; };\n"
     "relay: { socket = \"unix:/run/a\"; };\n",
     ":2: relay.socket: must be another path than that of milter.socket and "
     "hook.socket"},
    {"relay and saslauthd on one socket",
     "relay: { saslauthd = \"/run/a\";\n socket = \"unix:/run/a\"; };\n",
     ":2: relay.socket: must be another path than relay.saslauthd"},
    {"mode as number", "milter: { socket_mode = 0660; };\n",
     ":1: milter.socket_mode: must be octal permissions as text, \"0000\" to "
     "\"0777\""},
    {"mode not octal", "milter: { socket_mode = \"0668\"; };\n",
     ":1: milter.socket_mode: must be octal permissions as text, \"0000\" to "
     "\"0777\""},
    {"mode above", "milter: { socket_mode = \"1777\"; };\n",
     ":1: milter.socket_mode: must be octal permissions as text, \"0000\" to "
     "\"0777\""},
    {"list as text", "admin: { domains = \"a.example\"; };\n",
     ":1: admin.domains: must be a list of strings: [ \"...\", ... ]"},
    {"list of numbers", "admin: { domains = [\n1 ]; };\n",
     ":2: admin.domains: must be a list of strings: [ \"...\", ... ]"},
    {"entry on its own line",
     "address: { protected = [ \"a@\",\n \"b\" ]; };\n",
     ":2: address.protected: must be \"local@\" (at any domain), \"@domain\" "
     "or \"local@domain\""},
    {"ttl", "admin: {\n max_ttl_s = 100;\n default_ttl_s = 101;\n};\n",
     ":3: admin.default_ttl_s: must not be above admin.max_ttl_s"},
    {"ttl against the default", "admin: {\n max_ttl_s = 3599;\n};\n",
     ":2: admin.max_ttl_s: must not be below admin.default_ttl_s"},
    {"password in the file", "redis: { password = \"hunter2\"; };\n",
     ":1: redis.password: is not taken from here: put it into "
     "redis.password_file or CHAOSMILTER_REDIS_PASSWORD"},
    {"plain API key", "admin: { api_keys = [ \"hunter2\" ]; };\n",
     ":1: admin.api_keys: must be \"sha256:\" and 64 lower-case hex digits, "
     "as `chaosadmin --new-key` prints them; never the key itself"},
    {"include of a directory", "armed = false;\n@include \"sub\"\n",
     ":2: @include: must name a regular file"},
    {"include of nothing", "@include \"none\"\n",
     ":1: cannot open include file"},
    {"include loop", "@include \"test.conf\"\n",
     ":1: @include: nested more than 10 deep (a loop?)"},
};

static void
test_settings_load_bad_file_names_line_and_setting(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_dir("sub"), 0700), 0);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char message[1024];
        write_file("test.conf", refused[i].text, 0600);
        snprintf(message, sizeof message, "%s%s", in_dir("test.conf"),
                 refused[i].message);
        load_fails(refused[i].name, in_dir("test.conf"), CM_EINVAL, message);
    }
}

static void
test_settings_load_fault_in_included_file_names_that_file(void **state)
{
    struct cm_settings *s = NULL;
    struct cm_err err = {.msg = ""};
    (void)state;
    write_file("more.conf", "\nlog_level = \"loud\";\n", 0600);
    write_file("test.conf", "armed = false;\n@include \"more.conf\"\n", 0600);
    assert_int_equal(cm_settings_load(&s, in_dir("test.conf"), &err),
                     CM_EINVAL);
    /* libconfig 1.5 names it as written, 1.7 with its directory. */
    assert_non_null(strstr(err.msg, "more.conf:2: log_level: must be "));
}

static void
test_settings_load_unreadable_file_says_why(void **state)
{
    char path[384], message[512];
    (void)state;
    snprintf(path, sizeof path, "%s", in_dir("none.conf"));
    snprintf(message, sizeof message,
             "%s: cannot be read: No such file or directory", path);
    load_fails("absent", path, CM_NOTFOUND, message);
    snprintf(message, sizeof message, "%s: is not a regular file", dir);
    load_fails("directory", dir, CM_EIO, message);
    snprintf(path, sizeof path, "%s", in_dir("pipe"));
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(message, sizeof message, "%s: is not a regular file", path);
    load_fails("pipe without a writer", path, CM_EIO, message);
}

/* --- values, by the table --- */

/* The value as text, in the form that the environment takes. */
static void
show(char *out, size_t size, struct cm_settings *s,
     const struct cm_setting *def)
{
    void *slot = cm_setting_member(s, def);
    struct cm_string_list *list = slot;
    size_t n = 0;
    out[0] = '\0';
    switch (def->type) {
    case CM_SETTING_BOOL:
        snprintf(out, size, "%s", *(bool *)slot ? "true" : "false");
        break;
    case CM_SETTING_INT:
        snprintf(out, size, "%lld", (long long)*(int64_t *)slot);
        break;
    case CM_SETTING_MODE:
        snprintf(out, size, "%04llo", (unsigned long long)*(int64_t *)slot);
        break;
    case CM_SETTING_STRING:
    case CM_SETTING_SECRET:
        snprintf(out, size, "%s", *(char **)slot);
        break;
    case CM_SETTING_LIST:
        for (size_t i = 0; i < list->n && n < size; i++)
            n += (size_t)snprintf(out + n, size - n, "%s%s", i ? "," : "",
                                  list->at[i]);
        break;
    }
}

static const struct cm_setting *
find(const char *path)
{
    size_t n;
    const struct cm_setting *table = cm_settings_table(&n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].path, path) == 0)
            return &table[i];
    fail_msg("no setting %s", path);
    return NULL;
}

static void
expect(const char *name, struct cm_settings *s, const char *path,
       const char *value)
{
    char got[8192];
    show(got, sizeof got, s, find(path));
    if (strcmp(got, value) != 0)
        fail_msg("%s: %s is \"%s\" instead of \"%s\"", name, path, got, value);
}

static const struct {
    const char *name, *text, *path, *value;
} accepted[] = {
    {"empty file", "", "armed", "false"},
    {"bool", "armed = true;\n", "armed", "true"},
    {"CRLF", "armed = true;\r\nlog_level = \"debug\";\r\n", "log_level",
     "debug"},
    {"hex", "redis: { database = 0x10; };\n", "redis.database", "16"},
    {"long", "redis: { database = 16L; };\n", "redis.database", "16"},
    {"lowest", "milter: { max_held = 1; };\n", "milter.max_held", "1"},
    {"highest", "milter: { max_held = 1000000; };\n", "milter.max_held",
     "1000000"},
    {"hook", "hook: { socket = \"unix:/run/hook\"; };\n", "hook.socket",
     "unix:/run/hook"},
    {"relay", "relay: { socket = \"unix:/run/relay\"; };\n", "relay.socket",
     "unix:/run/relay"},
    {"relay, milter by TCP",
     "milter: { socket = \"inet:8890@localhost\"; };\n"
     "relay: { socket = \"unix:/run/relay\"; };\n",
     "relay.saslauthd", "/run/saslauthd/mux"},
    {"mode", "milter: { socket_mode = \"600\"; };\n", "milter.socket_mode",
     "0600"},
    {"array", "admin: { domains = [ \"a.example\", \"b\" ]; };\n",
     "admin.domains", "a.example,b"},
    {"list", "admin: { domains = ( \"a.example\" ); };\n", "admin.domains",
     "a.example"},
    {"empty list", "admin: { domains = [ ]; };\n", "admin.domains", ""},
    {"comma within an entry", "address: { protected = [ \"a@b\" ]; };\n",
     "address.protected", "a@b"},
    {"numbers in comments and strings",
     "# 99999999999\n// 99999999999\n/* 99999999999\n */ milter: { "
     "snapshot = \"/99999999999 \\\" 99999999999\"; };\n",
     "milter.snapshot", "/99999999999 \" 99999999999"},
    {"include in a comment",
     "/*\n@include \"sub\"\n*/\nredis: { database = 2; };\n", "redis.database",
     "2"},
    {"include", "@include \"good.conf\"\n", "redis.database", "3"},
    {"digits in a name are no number", "redis: { database = 3; };\n",
     "redis.database", "3"},
};

static void
test_settings_load_good_file_sets_value(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_dir("sub"), 0700), 0);
    write_file("good.conf", "redis: { database = 3; };\n", 0600);
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        struct cm_settings *s;
        write_file("test.conf", accepted[i].text, 0600);
        s = load_ok(in_dir("test.conf"));
        expect(accepted[i].name, s, accepted[i].path, accepted[i].value);
        cm_settings_free(&s);
        assert_null(s);
    }
}

/* Both directions: each value of the shipped file is the default, and each
 * setting stands in the file. */
static void
test_settings_load_shipped_file_shows_every_default(void **state)
{
    const char *srcdir = getenv("srcdir");
    char path[PATH_MAX], line[512];
    size_t n, lines = 0;
    const struct cm_setting *table = cm_settings_table(&n);
    struct cm_settings *s;
    FILE *f;
    (void)state;
    snprintf(path, sizeof path, "%s/conf/chaosmilter.conf",
             srcdir ? srcdir : ".");
    s = load_ok(path);
    for (size_t i = 0; i < n; i++)
        expect("shipped", s, table[i].path, table[i].default_text);
    cm_settings_free(&s);

    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        lines += line[strspn(line, " ")] != '#' && strstr(line, " = ");
    fclose(f);
    /* libconfig refuses a setting that stands twice, and redis.password may
     * not stand there: so as many lines as others are all of them. */
    assert_int_equal(lines, n - 1);
}

static void
test_settings_load_without_file_gives_defaults(void **state)
{
    size_t n;
    const struct cm_setting *table = cm_settings_table(&n);
    struct cm_settings *s = load_ok(NULL);
    (void)state;
    for (size_t i = 0; i < n; i++)
        expect("default", s, table[i].path, table[i].default_text);
    assert_false(s->armed);
    assert_int_equal(s->milter.socket_mode, 0660);
    assert_int_equal(cm_settings_log_level(s), CM_LOG_INFO);
    assert_int_equal(cm_settings_address_flags(s), 0);
    cm_settings_free(&s);
    cm_settings_free(&s);
}

/* --- single values, as variables --- */

static const struct {
    const char *variable, *path;
    bool good;
    const char *text;
} values[] = {
    {"CHAOSMILTER_ARMED", "armed", true, "true"},
    {"CHAOSMILTER_ARMED", "armed", false, "TRUE"},
    {"CHAOSMILTER_ARMED", "armed", false, "1"},
    {"CHAOSMILTER_ARMED", "armed", false, ""},
    {"VSB_CHAOS_ENABLED", "armed", true, "true"},
    {"VSB_CHAOS_ENABLED", "armed", false, "yes"},
    {"MP_ENABLE_CHAOS", "armed", true, "true"},
    {"MP_ENABLE_CHAOS", "armed", false, "1"},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", true, "15"},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", false, "15 "},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", false, " 15"},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", false, "+15"},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", false, "0x1"},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", false, ""},
    {"CHAOSMILTER_REDIS_DATABASE", "redis.database", false,
     "99999999999999999999"},
    {"CHAOSMILTER_MILTER_SOCKET_MODE", "milter.socket_mode", true, "0600"},
    {"CHAOSMILTER_MILTER_SOCKET_MODE", "milter.socket_mode", false, "-660"},
    {"CHAOSMILTER_MILTER_SOCKET_MODE", "milter.socket_mode", false, ""},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", true, "unix:/a"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", true, "inet:8890@127.0.0.1"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", true, "inet:8890@localhost"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", true, "inet6:8890@::1"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "unix:a"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "/a"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "inet:8890"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "inet:0@127.0.0.1"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "inet:65536@a"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "inet:8890@a b"},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, "unix:/" A64 "/" A64},
    {"CHAOSMILTER_MILTER_SOCKET", "milter.socket", false, ""},
    {"CHAOSMILTER_MILTER_USER", "milter.user", true, "chaos-milter_1"},
    {"CHAOSMILTER_MILTER_USER", "milter.user", false, "a b"},
    {"CHAOSMILTER_MILTER_SNAPSHOT", "milter.snapshot", true, "/var/x"},
    {"CHAOSMILTER_MILTER_SNAPSHOT", "milter.snapshot", false, "var/x"},
    {"CHAOSMILTER_MILTER_SNAPSHOT", "milter.snapshot", false, "/var/\x1b[0m"},
    {"CHAOSMILTER_ADDRESS_RECIPIENT_DELIMITER", "address.recipient_delimiter",
     true, "+-"},
    {"CHAOSMILTER_ADDRESS_RECIPIENT_DELIMITER", "address.recipient_delimiter",
     true, ""},
    {"CHAOSMILTER_ADDRESS_RECIPIENT_DELIMITER", "address.recipient_delimiter",
     false, "a"},
    {"CHAOSMILTER_ADDRESS_RECIPIENT_DELIMITER", "address.recipient_delimiter",
     false, "@"},
    {"CHAOSMILTER_ADDRESS_PROTECTED", "address.protected", true,
     "a@,@b.example,a@b"},
    {"CHAOSMILTER_ADDRESS_PROTECTED", "address.protected", false, "@"},
    {"CHAOSMILTER_ADDRESS_PROTECTED", "address.protected", false, "a b@c"},
    {"CHAOSMILTER_ADDRESS_PROTECTED", "address.protected", false, "<a@b>"},
    {"CHAOSMILTER_ADDRESS_PROTECTED", "address.protected", false, "a@b\n"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", true, "unix:/r.sock"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", true, "tcp:redis-1:6379"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", true, "tcp:[::1]:6379"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", false, "localhost:6379"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", false, "tcp:localhost"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", false, "tcp:::1:6379"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", false, "tcp:[::1:6379"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", false, "tcp::6379"},
    {"CHAOSMILTER_REDIS_ADDRESS", "redis.address", false, "tcp:a:6379x"},
    {"CHAOSMILTER_REDIS_USERNAME", "redis.username", true, "chaos-milter"},
    {"CHAOSMILTER_REDIS_USERNAME", "redis.username", false, "a b"},
    {"CHAOSMILTER_REDIS_PASSWORD", "redis.password", true, "p w\"\xc3\xa4"},
    {"CHAOSMILTER_REDIS_PASSWORD", "redis.password", false, "two\nlines"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", true, "{cm}"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", true, "a{b}c"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", true, "a"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", true, A64},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, A64 "a"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, ""},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "{}"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "{a"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "a}"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "}a{"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "{a}{b}"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "{a{b}}"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "a b"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "a\\b"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "a'b"},
    {"CHAOSMILTER_REDIS_PREFIX", "redis.prefix", false, "\xc3\xa4"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", true, "0.0.0.0:80"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", true, "[::1]:8025"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", false, "localhost:8025"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", false, ":8025"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", false, "::1:8025"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", false, "127.0.0.1"},
    {"CHAOSMILTER_ADMIN_LISTEN", "admin.listen", false, "127.0.0.1:0"},
    {"CHAOSMILTER_ADMIN_API_KEYS", "admin.api_keys", true, "sha256:" HEX64},
    {"CHAOSMILTER_ADMIN_API_KEYS", "admin.api_keys", false,
     "sha256:" HEX64 "0"},
    {"CHAOSMILTER_ADMIN_API_KEYS", "admin.api_keys", false,
     "sha256:ABCDEF6789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
    {"CHAOSMILTER_ADMIN_HOSTS", "admin.hosts", true,
     "a.example,[::1],10.0.0.1"},
    {"CHAOSMILTER_ADMIN_HOSTS", "admin.hosts", false, "a.example:80"},
    {"CHAOSMILTER_ADMIN_HOSTS", "admin.hosts", false, "http://a"},
    {"CHAOSMILTER_ADMIN_DOMAINS", "admin.domains", true,
     "*,xn--bcher-kva.example"},
    {"CHAOSMILTER_ADMIN_DOMAINS", "admin.domains", false, "*.example"},
    {"CHAOSMILTER_ADMIN_DOMAINS", "admin.domains", false, "a..example"},
    {"CHAOSMILTER_ADMIN_DOMAINS", "admin.domains", false, "example."},
    {"CHAOSMILTER_ADMIN_DOMAINS", "admin.domains", false, "@example"},
};

static void
test_settings_load_variable_is_taken_or_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct cm_settings *s = NULL;
        struct cm_err err = {.msg = ""};
        char start[128];
        enum cm_status status;
        setenv(values[i].variable, values[i].text, 1);
        status = cm_settings_load(&s, NULL, &err);
        unsetenv(values[i].variable);
        if ((status == CM_OK) != values[i].good)
            fail_msg("%s=%s: %s", values[i].variable, values[i].text, err.msg);
        if (status == CM_OK) {
            expect(values[i].variable, s, values[i].path, values[i].text);
        } else {
            snprintf(start, sizeof start, "%s: must ", values[i].variable);
            if (strncmp(err.msg, start, strlen(start)) != 0)
                fail_msg("%s: \"%s\"", start, err.msg);
        }
        cm_settings_free(&s);
    }
}

static void
test_settings_load_variable_beats_file(void **state)
{
    struct cm_settings *s;
    (void)state;
    write_file("test.conf",
               "armed = true;\nredis: { address = \"unix:/file\"; };\n"
               "admin: { domains = [ \"file\" ]; };\n",
               0600);
    setenv("CHAOSMILTER_ARMED", "false", 1);
    setenv("CHAOSMILTER_REDIS_ADDRESS", "unix:/variable", 1);
    setenv("CHAOSMILTER_ADMIN_DOMAINS", " a.example ,,\tb.example,", 1);
    s = load_ok(in_dir("test.conf"));
    assert_false(s->armed);
    assert_string_equal(s->redis.address, "unix:/variable");
    expect("list", s, "admin.domains", "a.example,b.example");
    cm_settings_free(&s);
}

/* Many switches: a clear "false" of our own is never overruled, and among the
 * others "false" counts. */
static void
test_settings_load_arming_our_variable_beats_the_others(void **state)
{
    static const struct {
        const char *file, *vsb, *ours, *enable, *triggers;
        bool armed;
    } cases[] = {
        {"", NULL, NULL, NULL, NULL, false},
        {"armed = true;", NULL, NULL, NULL, NULL, true},
        {"", "true", NULL, NULL, NULL, true},
        {"armed = true;", "false", NULL, NULL, NULL, false},
        {"armed = true;", "true", "false", NULL, NULL, false},
        {"", "false", "true", NULL, NULL, true},
        {"", NULL, NULL, "true", NULL, true},
        {"armed = true;", NULL, NULL, "false", NULL, false},
        {"armed = true;", NULL, NULL, "", "", true},
        {"", NULL, NULL, "", "", false},
        {"", NULL, NULL, NULL, "Sender:451:50", true},
        {"", NULL, NULL, "false", "Sender:451:50", false},
        {"", "false", NULL, "true", "Sender:451:50", false},
        {"", "true", NULL, "false", NULL, false},
        {"", NULL, "false", "true", "Sender:451:50", false},
        {"", NULL, "true", "false", NULL, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_settings *s;
        forget_variables();
        write_file("test.conf", cases[i].file, 0600);
        if (cases[i].vsb)
            setenv("VSB_CHAOS_ENABLED", cases[i].vsb, 1);
        if (cases[i].enable)
            setenv("MP_ENABLE_CHAOS", cases[i].enable, 1);
        if (cases[i].triggers)
            setenv("MP_CHAOS_TRIGGERS", cases[i].triggers, 1);
        if (cases[i].ours)
            setenv("CHAOSMILTER_ARMED", cases[i].ours, 1);
        s = load_ok(in_dir("test.conf"));
        if (s->armed != cases[i].armed)
            fail_msg("case %zu", i);
        cm_settings_free(&s);
    }
}

static void
test_settings_load_list_has_a_limit(void **state)
{
    char text[CM_SETTINGS_LIST_MAX * 4 + 8] = "a";
    struct cm_settings *s;
    (void)state;
    for (int i = 1; i < CM_SETTINGS_LIST_MAX; i++)
        strcat(text, ",a");
    setenv("CHAOSMILTER_ADMIN_DOMAINS", text, 1);
    s = load_ok(NULL);
    assert_int_equal(s->admin.domains.n, CM_SETTINGS_LIST_MAX);
    cm_settings_free(&s);
    strcat(text, ",a");
    setenv("CHAOSMILTER_ADMIN_DOMAINS", text, 1);
    load_fails("65 entries", NULL, CM_EINVAL,
               "CHAOSMILTER_ADMIN_DOMAINS: must not have more than 64 entries");
}

static void
test_settings_accessors_follow_the_settings(void **state)
{
    static const struct {
        const char *name;
        enum cm_log_level level;
    } levels[] = {{"error", CM_LOG_ERR},
                  {"warning", CM_LOG_WARNING},
                  {"info", CM_LOG_INFO},
                  {"debug", CM_LOG_DEBUG}};
    struct cm_settings *s;
    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        setenv("CHAOSMILTER_LOG_LEVEL", levels[i].name, 1);
        s = load_ok(NULL);
        assert_int_equal(cm_settings_log_level(s), levels[i].level);
        cm_settings_free(&s);
    }
    setenv("CHAOSMILTER_ADDRESS_LOCAL_PART_CASE", "sensitive", 1);
    s = load_ok(NULL);
    assert_int_equal(cm_settings_address_flags(s), CM_ADDRESS_KEEP_CASE);
    cm_settings_free(&s);
}

/* --- the password --- */

static void
test_settings_load_password_is_first_line_of_file(void **state)
{
    struct cm_settings *s;
    (void)state;
    write_file("pw", "s3cret word\nsecond line\n", 0600);
    setenv("CHAOSMILTER_REDIS_PASSWORD_FILE", in_dir("pw"), 1);
    s = load_ok(NULL);
    assert_string_equal(s->redis.password, "s3cret word");
    cm_settings_free(&s);
    write_file("pw", "no newline", 0640);
    s = load_ok(NULL);
    assert_string_equal(s->redis.password, "no newline");
    cm_settings_free(&s);
    setenv("CHAOSMILTER_REDIS_PASSWORD", "from the variable", 1);
    s = load_ok(NULL);
    assert_string_equal(s->redis.password, "from the variable");
    cm_settings_free(&s);
}

static void
test_settings_load_bad_password_file_is_refused(void **state)
{
    char text[512], message[1024];
    (void)state;
    write_file("pw", "hunter2\n", 0604);
    write_file("blank", "\nhunter2\n", 0600);
    write_file("long", "", 0600);
    for (int i = 0; i < 20; i++) {
        FILE *f = fopen(in_dir("long"), "a");
        assert_non_null(f);
        fputs(A64, f);
        fclose(f);
    }
    const struct {
        const char *file, *what;
    } cases[] = {
        {"pw", "redis.password_file: others may read or write that file: "
               "chmod o= it"},
        {"blank", "redis.password_file: its first line is empty"},
        {"none", "redis.password_file: cannot be opened: No such file or "
                 "directory"},
        {".", "redis.password_file: is not a regular file"},
        {"long", "redis.password: must be one line of at most 512 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(text, sizeof text, "\nredis: { password_file = \"%s\"; };\n",
                 in_dir(cases[i].file));
        write_file("test.conf", text, 0600);
        snprintf(message, sizeof message, "%s:2: %s", in_dir("test.conf"),
                 cases[i].what);
        load_fails(cases[i].file, in_dir("test.conf"), CM_EINVAL, message);
    }
}

/* --- memory --- */

static void
test_settings_load_survives_every_failed_allocation(void **state)
{
    struct cm_settings *s = NULL;
    enum cm_status status = CM_ENOMEM;
    (void)state;
    write_file("pw", "s3cret\n", 0600);
    write_file("test.conf", "admin: { domains = [ \"a\", \"b\" ]; };\n", 0600);
    setenv("CHAOSMILTER_REDIS_PASSWORD_FILE", in_dir("pw"), 1);
    setenv("CHAOSMILTER_ADMIN_HOSTS", "a,b,c", 1);
    for (int n = 1; status != CM_OK; n++) {
        struct cm_err err = {.msg = ""};
        assert_true(n < 1000);
        failing_alloc_arm(n);
        status = cm_settings_load(&s, in_dir("test.conf"), &err);
        failing_alloc_disarm();
        if (status != CM_OK) {
            assert_int_equal(status, CM_ENOMEM);
            assert_string_equal(err.msg, "out of memory");
            assert_null(s);
        }
    }
    assert_string_equal(s->redis.password, "s3cret");
    cm_settings_free(&s);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(test_settings_load_bad_file_names_line_and_setting),
        CASE(test_settings_load_fault_in_included_file_names_that_file),
        CASE(test_settings_load_unreadable_file_says_why),
        CASE(test_settings_load_good_file_sets_value),
        CASE(test_settings_load_shipped_file_shows_every_default),
        CASE(test_settings_load_without_file_gives_defaults),
        CASE(test_settings_load_variable_is_taken_or_refused),
        CASE(test_settings_load_variable_beats_file),
        CASE(test_settings_load_arming_our_variable_beats_the_others),
        CASE(test_settings_load_list_has_a_limit),
        CASE(test_settings_accessors_follow_the_settings),
        CASE(test_settings_load_password_is_first_line_of_file),
        CASE(test_settings_load_bad_password_file_is_refused),
        CASE(test_settings_load_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
