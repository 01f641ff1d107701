/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay as the filter sees it. Its socket and thread are a server's; what
 * becomes of a question is in relay_desk.c.
 *
 * Rejected: to let Sendmail ask saslauthd itself and only watch. The library
 * that asks knows one socket and no second one, so who wants to refuse must
 * stand between; and must leave no hole when it goes.
 */
#include "milter/filter/relay.h"
#include "milter/filter/filter.h"
#include "milter/filter/relay_desk.h"
#include "milter/log.h"

#include <stdio.h>
#include <stdlib.h>

struct cm_relay {
    struct cm_server server;
    struct cm_relay_desk desk;
};

enum cm_status
cm_relay_open(struct cm_relay **relay_r, const struct cm_server_opts *opts,
              const char *saslauthd, struct cm_err *err)
{
    *relay_r = NULL;
    enum cm_status status = cm_unix_socket_check(saslauthd, err);
    if (status == CM_OK)
        status = cm_unix_socket_unpoint(opts->path, saslauthd, err);
    if (status != CM_OK)
        return status;
    struct cm_relay *relay = calloc(1, sizeof *relay);
    if (!relay)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    snprintf(relay->desk.saslauthd, sizeof relay->desk.saslauthd, "%s",
             saslauthd);
    status = cm_server_open(&relay->server, opts, err);
    if (status == CM_OK)
        *relay_r = relay;
    else
        cm_relay_free(&relay);
    return status;
}

enum cm_status
cm_relay_start(struct cm_relay *relay, struct cm_filter *filter,
               struct cm_err *err)
{
    relay->desk.filter = filter;
    relay->desk.server = &relay->server;
    return cm_server_start(&relay->server, &cm_relay_desk_trade, &relay->desk,
                           err);
}

void
cm_relay_retire(struct cm_relay *relay)
{
    struct cm_err err;
    if (cm_unix_socket_point_to(&relay->server.socket, relay->desk.saslauthd,
                                &err) != CM_OK)
        cm_log_warn("relay.socket cannot be made a link to saslauthd, so no "
                    "login succeeds until the filter is back: %s",
                    err.msg);
    atomic_store(&relay->desk.quiet, true);
    cm_server_wake(&relay->server);
}

void
cm_relay_release(struct cm_relay *relay)
{
    cm_server_wake(&relay->server);
}

void
cm_relay_free(struct cm_relay **relay)
{
    if (!*relay)
        return;
    cm_server_end(&(*relay)->server);
    cm_relay_desk_close(&(*relay)->desk);
    cm_server_fini(&(*relay)->server);
    free(*relay);
    *relay = NULL;
}

const char *
cm_relay_why_not(const struct cm_relay *relay)
{
    if (!relay)
        return "no saslauthd relay is set up (relay.socket)";
    if (!atomic_load(&relay->desk.asked))
        return "no mail server has asked the saslauthd relay yet "
               "(saslauthd_path)";
    return NULL;
}

size_t
cm_relay_open_count(const struct cm_relay *relay)
{
    return relay ? atomic_load(&relay->desk.open) : 0;
}

size_t
cm_relay_held(const struct cm_relay *relay)
{
    return relay ? atomic_load(&relay->desk.held) : 0;
}
