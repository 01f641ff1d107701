/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blocking I/O with one buffer each way: a session is a sequence, and reads
 * like one. Protocol as in libmilter/mfdef.h. Over TCP Nagle's algorithm stays
 * on, as Postfix leaves it.
 */
#include "t/bench/mta.h"

#include <libmilter/mfdef.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PACKET_BYTES_MAX (1024 * 1024)
#define ACTIONS_OFFERED  0x1FFu
#define STEPS_OFFERED    0x1FFFFFu

static const struct {
    const char *name;
    char command;
    uint32_t declined, silent; /* negotiated: do not send; no reply */
    int symlist;               /* libmilter's number of the stage; -1: none */
    const char *macros;        /* Postfix's default */
} stages[MTA_STAGES_N] = {
    [MTA_CONNECT] = {"connect", SMFIC_CONNECT, SMFIP_NOCONNECT, SMFIP_NR_CONN,
                     0, "j {daemon_name} {daemon_addr} v _"},
    [MTA_HELO] = {"helo", SMFIC_HELO, SMFIP_NOHELO, SMFIP_NR_HELO, 1,
                  "{tls_version} {cipher} {cipher_bits} {cert_subject} "
                  "{cert_issuer}"},
    [MTA_MAIL] = {"mail", SMFIC_MAIL, SMFIP_NOMAIL, SMFIP_NR_MAIL, 2,
                  "i {auth_type} {auth_authen} {auth_author} {mail_addr} "
                  "{mail_host} {mail_mailer}"},
    [MTA_RCPT] = {"rcpt", SMFIC_RCPT, SMFIP_NORCPT, SMFIP_NR_RCPT, 3,
                  "i {rcpt_addr} {rcpt_host} {rcpt_mailer}"},
    [MTA_DATA] = {"data", SMFIC_DATA, SMFIP_NODATA, SMFIP_NR_DATA, 4, "i"},
    [MTA_HEADER] = {"header", SMFIC_HEADER, SMFIP_NOHDRS, SMFIP_NR_HDR, -1,
                    "i"},
    [MTA_EOH] = {"eoh", SMFIC_EOH, SMFIP_NOEOH, SMFIP_NR_EOH, 6, "i"},
    [MTA_BODY] = {"body", SMFIC_BODY, SMFIP_NOBODY, SMFIP_NR_BODY, -1, ""},
    [MTA_EOM] = {"eom", SMFIC_BODYEOB, 0, 0, 5, "i"},
};

const char *
mta_stage_name(enum mta_stage stage)
{
    return stages[stage].name;
}

/* --- bytes --- */

static bool
fail(struct mta *m, const char *what)
{
    snprintf(m->why, sizeof m->why, "%s: %s", what,
             errno ? strerrordesc_np(errno) : "closed by the milter");
    return false;
}

static void
reserve(char **buf, size_t *cap, size_t want)
{
    if (want <= *cap)
        return;
    *cap = want * 2;
    *buf = realloc(*buf, *cap);
    if (!*buf)
        abort();
}

static void
put(struct mta *m, const void *data, size_t len)
{
    reserve(&m->out, &m->out_cap, m->out_len + len);
    if (len > 0)
        memcpy(m->out + m->out_len, data, len);
    m->out_len += len;
}

/* Starts a packet; its length is filled in by packet_end. */
static size_t
packet_start(struct mta *m, char command)
{
    size_t start = m->out_len;
    put(m, "\0\0\0", 4);
    put(m, &command, 1);
    return start;
}

static void
packet_end(struct mta *m, size_t start)
{
    uint32_t len = htonl((uint32_t)(m->out_len - start - 4));
    memcpy(m->out + start, &len, sizeof len);
}

static bool
flush(struct mta *m)
{
    size_t done = 0;
    while (done < m->out_len) {
        ssize_t n = send(m->fd, m->out + done, m->out_len - done, MSG_NOSIGNAL);
        if (n < 0)
            return fail(m, "write");
        done += (size_t)n;
    }
    m->out_len = 0;
    return true;
}

static bool
read_all(struct mta *m, char *to, size_t len)
{
    while (len > 0) {
        ssize_t n;
        errno = 0;
        n = read(m->fd, to, len);
        if (n <= 0)
            return fail(m, "read");
        to += n;
        len -= (size_t)n;
    }
    return true;
}

/* One packet into m->in, NUL-terminated; in[0] is its code. */
static bool
read_packet(struct mta *m)
{
    uint32_t len;
    if (!read_all(m, (char *)&len, sizeof len))
        return false;
    m->in_len = ntohl(len);
    if (m->in_len < 1 || m->in_len > PACKET_BYTES_MAX) {
        snprintf(m->why, sizeof m->why, "a packet of %zu bytes", m->in_len);
        return false;
    }
    reserve(&m->in, &m->in_cap, m->in_len + 1);
    if (!read_all(m, m->in, m->in_len))
        return false;
    m->in[m->in_len] = '\0';
    return true;
}

/* --- macros --- */

static const char *
domain_of(const char *address)
{
    const char *at = strchr(address, '@');
    return at ? at + 1 : "";
}

/* The value of a macro, as Postfix would give it; NULL: not sent. */
static const char *
macro_value(const struct mta *m, const char *name, size_t len)
{
    const struct {
        const char *name, *value;
    } known[] = {
        {"j", "mx.example.net"},
        {"v", "Postfix 3.7.11"},
        {"_", "client.example.net [192.0.2.1]"},
        {"{daemon_name}", "mx.example.net"},
        {"{daemon_addr}", "192.0.2.25"},
        {"{daemon_port}", "25"},
        {"{client_addr}", "192.0.2.1"},
        {"{client_name}", "client.example.net"},
        {"{client_port}", "49152"},
        {"{client_ptr}", "client.example.net"},
        {"i", m->qid[0] ? m->qid : NULL},
        {"{mail_addr}", m->sender},
        {"{mail_host}", domain_of(m->sender)},
        {"{mail_mailer}", "smtp"},
        {"{rcpt_addr}", m->recipient},
        {"{rcpt_host}", domain_of(m->recipient)},
        {"{rcpt_mailer}", "smtp"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == len &&
            strncmp(known[i].name, name, len) == 0)
            return known[i].value;
    return NULL;
}

static void
put_macros(struct mta *m, enum mta_stage stage)
{
    const char *name = m->macros[stage];
    size_t start, empty;
    if (!*name)
        return;
    start = packet_start(m, SMFIC_MACRO);
    put(m, &stages[stage].command, 1);
    empty = m->out_len;
    while (*(name += strspn(name, " "))) {
        size_t len = strcspn(name, " ");
        const char *value = macro_value(m, name, len);
        if (value) {
            put(m, name, len);
            put(m, "", 1);
            put(m, value, strlen(value) + 1);
        }
        name += len;
    }
    if (m->out_len == empty)
        m->out_len = start; /* Postfix sends no packet without macros */
    else
        packet_end(m, start);
}

/* --- opening --- */

static int
connect_inet(const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    char *at;
    int fd;
    in.sin_port = htons((uint16_t)strtoul(text, &at, 10));
    if (*at != '@' || inet_pton(AF_INET, at + 1, &in.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&in, sizeof in) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int
connect_unix(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The lists of macros behind the three words of the milter's answer: a stage's
 * number, then names with blanks or commas between them. */
static void
take_symlists(struct mta *m)
{
    size_t at = 1 + MILTER_OPTLEN;
    while (at + 4 < m->in_len) {
        uint32_t number;
        memcpy(&number, m->in + at, sizeof number);
        at += sizeof number;
        for (int i = 0; i < MTA_STAGES_N; i++) {
            char *names = m->macros[i];
            if (stages[i].symlist != (int)ntohl(number))
                continue;
            snprintf(names, sizeof m->macros[i], "%s", m->in + at);
            for (; *names; names++)
                if (*names == ',')
                    *names = ' ';
        }
        at += strlen(m->in + at) + 1;
    }
}

static bool
negotiate(struct mta *m)
{
    uint32_t words[3] = {htonl(SMFI_PROT_VERSION), htonl(ACTIONS_OFFERED),
                         htonl(STEPS_OFFERED)};
    size_t start = packet_start(m, SMFIC_OPTNEG);
    put(m, words, sizeof words);
    packet_end(m, start);
    if (!flush(m) || !read_packet(m))
        return false;
    if (m->in[0] != SMFIC_OPTNEG || m->in_len < 1 + MILTER_OPTLEN) {
        snprintf(m->why, sizeof m->why, "no answer to the negotiation");
        return false;
    }
    memcpy(words, m->in + 1, sizeof words);
    m->actions = ntohl(words[1]);
    m->steps = ntohl(words[2]);
    for (int i = 0; i < MTA_STAGES_N; i++)
        snprintf(m->macros[i], sizeof m->macros[i], "%s", stages[i].macros);
    take_symlists(m);
    return true;
}

bool
mta_open(struct mta *m, const char *address, int timeout_s)
{
    struct timeval tv = {.tv_sec = timeout_s};
    memset(m, 0, sizeof *m);
    m->fd = -1;
    errno = 0;
    if (strncmp(address, "unix:", 5) == 0)
        m->fd = connect_unix(address + 5);
    else if (strncmp(address, "inet:", 5) == 0)
        m->fd = connect_inet(address + 5);
    else
        errno = EINVAL;
    if (m->fd < 0)
        return fail(m, "connect");
    setsockopt(m->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(m->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    return negotiate(m);
}

void
mta_close(struct mta *m)
{
    if (m->fd >= 0) {
        m->out_len = 0;
        packet_end(m, packet_start(m, SMFIC_QUIT));
        flush(m); /* nobody may be left to hear it */
        close(m->fd);
    }
    free(m->out);
    free(m->in);
    m->out = m->in = NULL;
    m->fd = -1;
}

/* --- a stage --- */

bool
mta_wants(const struct mta *m, enum mta_stage stage)
{
    return !(m->steps & stages[stage].declined);
}

static bool
read_reply(struct mta *m, struct mta_reply *reply)
{
    for (;;) {
        if (!read_packet(m))
            return false;
        switch (m->in[0]) {
        case SMFIR_PROGRESS:
            m->progress++;
            break;
        case SMFIR_DELRCPT:
            reply->deleted++;
            break;
        case SMFIR_ADDRCPT:
        case SMFIR_ADDRCPT_PAR:
        case SMFIR_REPLBODY:
        case SMFIR_CHGFROM:
        case SMFIR_ADDHEADER:
        case SMFIR_INSHEADER:
        case SMFIR_CHGHEADER:
        case SMFIR_QUARANTINE:
            reply->changed++;
            break;
        default:
            reply->code = m->in[0];
            snprintf(reply->text, sizeof reply->text, "%s", m->in + 1);
            return true;
        }
    }
}

bool
mta_tell(struct mta *m, enum mta_stage stage, const void *data, size_t len,
         struct mta_reply *reply)
{
    size_t start;
    memset(reply, 0, sizeof *reply);
    reply->code = SMFIR_CONTINUE;
    if (!mta_wants(m, stage))
        return true;
    put_macros(m, stage);
    start = packet_start(m, stages[stage].command);
    put(m, data, len);
    packet_end(m, start);
    if (m->steps & stages[stage].silent)
        return true; /* goes out with the next one */
    return flush(m) && read_reply(m, reply);
}

bool
mta_abort(struct mta *m)
{
    packet_end(m, packet_start(m, SMFIC_ABORT));
    return flush(m);
}
