/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The milter that does nothing: the yardstick of the benchmark. It registers
 * the callbacks that chaosmilter registers, asks for the same events and
 * actions, and answers every one with "continue". What is measured against it
 * is the cost of chaosmilter's own work, not that of having a milter at all.
 *
 *     null_milter -p unix:/path|inet:port@host [-e connect,mail,rcpt,data,eom]
 */
#include <libmilter/mfapi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_USAGE 64

static const struct {
    const char *name;
    unsigned long skip; /* "do not send": set unless the event is asked for */
} events[] = {
    {"connect", SMFIP_NOCONNECT}, {"helo", SMFIP_NOHELO},
    {"mail", SMFIP_NOMAIL},       {"rcpt", SMFIP_NORCPT},
    {"data", SMFIP_NODATA},       {"header", SMFIP_NOHDRS},
    {"eoh", SMFIP_NOEOH},         {"body", SMFIP_NOBODY},
    {"unknown", SMFIP_NOUNKNOWN}, {"eom", 0}, /* cannot be declined */
};
#define EVENTS_N (sizeof events / sizeof events[0])

/* All that chaosmilter may ever ask for (milter/filter/terms.c). */
#define ACTIONS                                                                \
    (SMFIF_ADDRCPT | SMFIF_DELRCPT | SMFIF_CHGHDRS | SMFIF_ADDHDRS |           \
     SMFIF_CHGBODY | SMFIF_QUARANTINE | SMFIF_SETSYMLIST)

static unsigned long steps_to_skip;

static sfsistat
on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps,
             unsigned long f2, unsigned long f3, unsigned long *actions_r,
             unsigned long *steps_r, unsigned long *f2_r, unsigned long *f3_r)
{
    (void)ctx;
    (void)f2;
    (void)f3;
    *actions_r = actions & ACTIONS;
    if (actions & SMFIF_SETSYMLIST)
        (void)smfi_setsymlist(ctx, SMFIM_CONNECT,
                              (char *)"j _ v {daemon_name} {daemon_addr} "
                                      "{daemon_port}");
    *steps_r = steps & steps_to_skip;
    *f2_r = *f3_r = 0;
    return SMFIS_CONTINUE;
}

static sfsistat
on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *addr)
{
    (void)ctx;
    (void)host;
    (void)addr;
    return SMFIS_CONTINUE;
}

static sfsistat
on_text(SMFICTX *ctx, char *text)
{
    (void)ctx;
    (void)text;
    return SMFIS_CONTINUE;
}

static sfsistat
on_address(SMFICTX *ctx, char **argv)
{
    (void)ctx;
    (void)argv;
    return SMFIS_CONTINUE;
}

static sfsistat
on_header(SMFICTX *ctx, char *name, char *value)
{
    (void)ctx;
    (void)name;
    (void)value;
    return SMFIS_CONTINUE;
}

static sfsistat
on_body(SMFICTX *ctx, unsigned char *chunk, size_t len)
{
    (void)ctx;
    (void)chunk;
    (void)len;
    return SMFIS_CONTINUE;
}

static sfsistat
on_unknown(SMFICTX *ctx, const char *command)
{
    (void)ctx;
    (void)command;
    return SMFIS_CONTINUE;
}

static sfsistat
on_plain(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

static struct smfiDesc milter = {
    .xxfi_name = (char *)"null",
    .xxfi_version = SMFI_VERSION,
    .xxfi_flags = ACTIONS,
    .xxfi_connect = on_connect,
    .xxfi_helo = on_text,
    .xxfi_envfrom = on_address,
    .xxfi_envrcpt = on_address,
    .xxfi_header = on_header,
    .xxfi_eoh = on_plain,
    .xxfi_body = on_body,
    .xxfi_eom = on_plain,
    .xxfi_abort = on_plain,
    .xxfi_close = on_plain,
    .xxfi_unknown = on_unknown,
    .xxfi_data = on_plain,
    .xxfi_negotiate = on_negotiate,
};

/* A callback that is registered makes libmilter parse its packets even when the
 * event was declined, so what is not asked for is not registered either;
 * chaosmilter keeps all registered that it may ask for. */
static void
unregister_declined(void)
{
    if (steps_to_skip & SMFIP_NOHDRS)
        milter.xxfi_header = NULL;
    if (steps_to_skip & SMFIP_NOEOH)
        milter.xxfi_eoh = NULL;
    if (steps_to_skip & SMFIP_NOBODY)
        milter.xxfi_body = NULL;
    if (steps_to_skip & SMFIP_NOUNKNOWN)
        milter.xxfi_unknown = NULL;
}

/* "connect,mail" -> what is to be skipped; false when a name is not known. */
static bool
parse_events(const char *list)
{
    bool known = true;
    for (size_t i = 0; i < EVENTS_N; i++)
        steps_to_skip |= events[i].skip;
    while (*list) {
        size_t len = strcspn(list, ",");
        size_t i = 0;
        while (i < EVENTS_N && (strlen(events[i].name) != len ||
                                strncmp(events[i].name, list, len) != 0))
            i++;
        if (i < EVENTS_N)
            steps_to_skip &= ~events[i].skip;
        else
            known = false;
        list += len + (list[len] == ',');
    }
    return known;
}

int
main(int argc, char **argv)
{
    const char *list = "connect,mail,rcpt,data,eom";
    char *socket = NULL;
    bool good = true;
    int option;
    while ((option = getopt(argc, argv, "p:e:")) != -1) {
        if (option == 'p')
            socket = optarg;
        else if (option == 'e')
            list = optarg;
        else
            good = false;
    }
    if (!good || !socket || optind != argc || !parse_events(list)) {
        fprintf(stderr, "usage: null_milter -p unix:/path|inet:port@host "
                        "[-e connect,helo,mail,rcpt,data,header,eoh,body,"
                        "unknown,eom]\n");
        return EXIT_USAGE;
    }
    unregister_declined();
    signal(SIGPIPE, SIG_IGN);
    if (smfi_register(milter) != MI_SUCCESS ||
        smfi_setconn(socket) != MI_SUCCESS || smfi_opensocket(1) != MI_SUCCESS)
        return EXIT_FAILURE;
    return smfi_main() == MI_SUCCESS ? EXIT_SUCCESS : EXIT_FAILURE;
}
