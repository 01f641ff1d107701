/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hook as the filter sees it. Its socket and thread are a server's; what is
 * asked and answered is in hook_desk.c.
 */
#include "milter/filter/hook.h"
#include "milter/filter/filter.h"
#include "milter/filter/hook_desk.h"

#include <stdlib.h>

struct cm_hook {
    struct cm_server server;
    struct cm_hook_desk desk;
};

enum cm_status
cm_hook_open(struct cm_hook **hook_r, const struct cm_server_opts *opts,
             struct cm_err *err)
{
    struct cm_hook *hook = calloc(1, sizeof *hook);
    *hook_r = NULL;
    if (!hook)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status = cm_server_open(&hook->server, opts, err);
    if (status == CM_OK)
        *hook_r = hook;
    else
        cm_hook_free(&hook);
    return status;
}

enum cm_status
cm_hook_start(struct cm_hook *hook, struct cm_filter *filter,
              struct cm_err *err)
{
    hook->desk.filter = filter;
    hook->desk.server = &hook->server;
    return cm_server_start(&hook->server, &cm_hook_desk_trade, &hook->desk,
                           err);
}

void
cm_hook_quiet(struct cm_hook *hook)
{
    atomic_store(&hook->desk.quiet, true);
    cm_server_wake(&hook->server);
}

void
cm_hook_release(struct cm_hook *hook)
{
    cm_server_wake(&hook->server);
}

void
cm_hook_remove(struct cm_hook *hook)
{
    cm_server_remove(&hook->server);
}

void
cm_hook_free(struct cm_hook **hook)
{
    if (!*hook)
        return;
    cm_server_end(&(*hook)->server);
    cm_hook_desk_close(&(*hook)->desk);
    cm_server_fini(&(*hook)->server);
    free(*hook);
    *hook = NULL;
}

static const char no_hook[] = "no command hook is set up (hook.socket)";

const char *
cm_hook_why_not(const struct cm_hook *hook)
{
    if (!hook)
        return no_hook;
    if (!atomic_load(&hook->desk.asked_commands))
        return "no mail server has asked the command hook yet "
               "(smtpd_command_filter)";
    return NULL;
}

const char *
cm_hook_why_not_hide(const struct cm_hook *hook)
{
    if (!hook)
        return no_hook;
    if (!atomic_load(&hook->desk.asked_keywords))
        return "no mail server has asked the command hook yet "
               "(smtpd_discard_ehlo_keyword_address_maps)";
    return NULL;
}

size_t
cm_hook_held(const struct cm_hook *hook)
{
    return hook ? atomic_load(&hook->desk.held) : 0;
}
