/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Syntax only, by spans of allowed bytes: whether a host resolves, a user
 * exists or a directory is writable is known when it is used, and said then.
 * The bytes are listed rather than asked of <ctype.h>, whose answers depend on
 * the locale.
 */
#include "milter/settings_check.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"
#define ALNUM LOWER UPPER DIGIT

#define PATH_BYTES_MAX      4095
#define PREFIX_BYTES_MAX    64
#define DELIMITER_BYTES_MAX 8
#define ADDRESS_BYTES_MAX   320 /* RFC 5321 4.5.3.1: 64 + "@" + 255 */
#define DOMAIN_BYTES_MAX    255
#define PASSWORD_BYTES_MAX  512
#define SHA256_HEX_DIGITS   64

static bool
is_printable(const char *s)
{
    for (; *s; s++)
        if (*s < 0x20 || *s > 0x7E)
            return false;
    return true;
}

static bool
is_absolute_path(const char *s, size_t max_bytes)
{
    return s[0] == '/' && strlen(s) <= max_bytes && is_printable(s);
}

static bool
is_unix_socket(const char *s)
{
    return is_absolute_path(s, sizeof((struct sockaddr_un *)0)->sun_path - 1);
}

/* 1..65535, digits only, ending at `end`. */
static bool
is_port(const char *s, const char *end)
{
    size_t n = strspn(s, DIGIT);
    long port;
    if (n == 0 || n > 5 || s + n != end)
        return false;
    port = strtol(s, NULL, 10);
    return port >= 1 && port <= 65535;
}

/* The n bytes at s as an IP address of the family. */
static bool
is_ip(int family, const char *s, size_t n)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char addr[sizeof(struct in6_addr)];
    if (n >= sizeof text)
        return false;
    memcpy(text, s, n);
    text[n] = '\0';
    return inet_pton(family, text, addr) == 1;
}

/* A name or IPv4 address of n bytes: RFC 1123 letters, and "_", which
 * container networks use. */
static bool
is_host_name(const char *s, size_t n)
{
    return n > 0 && n <= DOMAIN_BYTES_MAX && strspn(s, ALNUM "-._") >= n &&
           s[0] != '.' && s[0] != '-';
}

/* "host:port" with an IPv6 address in brackets; names only where allowed. */
static bool
is_host_port(const char *s, bool names)
{
    const char *colon = strrchr(s, ':');
    size_t n;
    if (!colon || !is_port(colon + 1, s + strlen(s)))
        return false;
    n = (size_t)(colon - s);
    if (n >= 2 && s[0] == '[' && s[n - 1] == ']')
        return is_ip(AF_INET6, s + 1, n - 2);
    return names ? is_host_name(s, n) : is_ip(AF_INET, s, n);
}

const char *
cm_settings_check_milter_socket(const char *value)
{
    static const char allowed[] =
        "must be \"unix:/path\" (at most 107 bytes of path), "
        "\"inet:port@host\" or \"inet6:port@host\"";
    const char *port, *at;
    bool v6;
    if (strncmp(value, "unix:", 5) == 0)
        return is_unix_socket(value + 5) ? NULL : allowed;
    v6 = strncmp(value, "inet6:", 6) == 0;
    if (!v6 && strncmp(value, "inet:", 5) != 0)
        return allowed;
    port = value + (v6 ? 6 : 5);
    at = strchr(port, '@');
    if (!at || !is_port(port, at))
        return allowed;
    if (v6 && is_ip(AF_INET6, at + 1, strlen(at + 1)))
        return NULL;
    return is_host_name(at + 1, strlen(at + 1)) ? NULL : allowed;
}

const char *
cm_settings_check_own_socket(const char *value)
{
    return value[0] == '\0' || (strncmp(value, "unix:", 5) == 0 &&
                                is_unix_socket(value + 5))
               ? NULL
               : "must be \"unix:/path\" (at most 107 bytes of path), or empty";
}

const char *
cm_settings_check_socket_path(const char *value)
{
    return is_unix_socket(value) ? NULL
                                 : "must be an absolute path of a unix socket "
                                   "(at most 107 bytes)";
}

const char *
cm_settings_check_redis_address(const char *value)
{
    if (strncmp(value, "unix:", 5) == 0 && is_unix_socket(value + 5))
        return NULL;
    if (strncmp(value, "tcp:", 4) == 0 && is_host_port(value + 4, true))
        return NULL;
    return "must be \"unix:/path\" (at most 107 bytes of path), "
           "\"tcp:host:port\" or \"tcp:[ipv6]:port\"";
}

/* A prefix with two tags, or a broken one, would spread the keys of one script
 * over several slots of a Redis Cluster. */
const char *
cm_settings_check_redis_prefix(const char *value)
{
    size_t n = strlen(value);
    size_t before = strcspn(value, "{}");
    if (n < 1 || n > PREFIX_BYTES_MAX || !is_printable(value) ||
        strpbrk(value, " \"'`\\"))
        return "must be 1 to 64 printable bytes without space, quotes and "
               "backslash";
    if (before < n) {
        const char *tag = value + before + 1;
        size_t inside = strcspn(tag, "{}");
        if (tag[-1] != '{' || inside == 0 || tag[inside] != '}' ||
            strpbrk(tag + inside + 1, "{}"))
            return "must hold one {tag} that is not empty, or no braces at all";
    }
    return NULL;
}

const char *
cm_settings_check_redis_username(const char *value)
{
    return strlen(value) <= 128 && is_printable(value) && !strchr(value, ' ')
               ? NULL
               : "must be at most 128 printable bytes without space, or empty";
}

const char *
cm_settings_check_redis_password(const char *value)
{
    return strlen(value) <= PASSWORD_BYTES_MAX && !strpbrk(value, "\r\n")
               ? NULL
               : "must be one line of at most 512 bytes";
}

const char *
cm_settings_check_listen(const char *value)
{
    return is_host_port(value, false)
               ? NULL
               : "must be \"ip:port\" or \"[ipv6]:port\", port 1 to 65535";
}

const char *
cm_settings_check_metrics_listen(const char *value)
{
    return value[0] ? cm_settings_check_listen(value) : NULL;
}

const char *
cm_settings_check_account(const char *value)
{
    return strlen(value) <= 64 && strspn(value, ALNUM "-._") == strlen(value)
               ? NULL
               : "must be a name of letters, digits, '-', '.' and '_', or "
                 "empty";
}

const char *
cm_settings_check_path(const char *value)
{
    return value[0] == '\0' || is_absolute_path(value, PATH_BYTES_MAX)
               ? NULL
               : "must be an absolute path, or empty";
}

/* Letters and digits would cut ordinary addresses apart. */
const char *
cm_settings_check_delimiter(const char *value)
{
    return strlen(value) <= DELIMITER_BYTES_MAX && is_printable(value) &&
                   !strpbrk(value, ALNUM " @\"\\<>")
               ? NULL
               : "must be at most 8 punctuation bytes such as \"+\" or "
                 "\"+-\", or empty";
}

const char *
cm_settings_check_protected(const char *value)
{
    static const char allowed[] =
        "must be \"local@\" (at any domain), \"@domain\" or \"local@domain\"";
    const char *at = strrchr(value, '@');
    size_t n = strlen(value);
    if (!at || n < 2 || n > ADDRESS_BYTES_MAX || strpbrk(value, " \t<>,"))
        return allowed;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)value[i] < 0x20 || value[i] == 0x7F)
            return allowed;
    return NULL;
}

const char *
cm_settings_check_domain(const char *value)
{
    size_t n = strlen(value);
    if (strcmp(value, "*") == 0)
        return NULL;
    return is_host_name(value, n) && value[n - 1] != '.' && !strstr(value, "..")
               ? NULL
               : "must be domain names (A-labels, without the last dot), or "
                 "\"*\" for any";
}

const char *
cm_settings_check_host(const char *value)
{
    size_t n = strlen(value);
    if (n >= 2 && value[0] == '[' && value[n - 1] == ']' &&
        is_ip(AF_INET6, value + 1, n - 2))
        return NULL;
    return is_host_name(value, n)
               ? NULL
               : "must be host names or addresses, without a port";
}

const char *
cm_settings_check_port(const char *value)
{
    size_t n = strlen(value);
    return n >= 1 && n <= 5 && strspn(value, DIGIT) == n && value[0] != '0' &&
                   strtol(value, NULL, 10) <= 65535
               ? NULL
               : "must be port numbers, 1 to 65535, as strings";
}

const char *
cm_settings_check_api_key(const char *value)
{
    static const char tag[] = "sha256:";
    const char *digits = value + sizeof tag - 1;
    return strncmp(value, tag, sizeof tag - 1) == 0 &&
                   strlen(digits) == SHA256_HEX_DIGITS &&
                   strspn(digits, DIGIT "abcdef") == SHA256_HEX_DIGITS
               ? NULL
               : "must be \"sha256:\" and 64 lower-case hex digits, as "
                 "`chaosadmin --new-key` prints them; never the key itself";
}
