/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/inbox_gate.h"
#include "admin/api.h"
#include "admin/box.h"
#include "milter/clock.h"
#include "milter/model/address.h"
#include "milter/settings.h"

#include <string.h>

static enum cm_status
check_made(const struct cm_api *api, const char *address, struct cm_err *err)
{
    struct cm_box box;
    if (strcmp(api->settings->admin.inboxes, "explicit") != 0)
        return CM_OK;
    enum cm_status status =
        cm_box_get(api->commits, address, cm_clock_wall_ms(), &box, err);
    if (status == CM_NOTFOUND)
        cm_err_set(err, status, "Inbox not found: %.200s", address);
    return status;
}

enum cm_status
cm_gate_inbox(const struct cm_api *api, const char *text,
              struct cm_address *addr_r, struct cm_err *err)
{
    struct cm_err why;
    enum cm_status status =
        cm_address_parse(addr_r, text, strlen(text), api->address_flags, &why);
    if (status == CM_EINVAL)
        return cm_err_set(err, status, "The inbox address is invalid: %.200s",
                          why.msg);
    if (status != CM_OK)
        return cm_err_set(err, status, "out of memory");
    const char *domain = cm_address_domain(addr_r);
    if (!*domain || addr_r->text[0] == '@')
        return cm_err_set(err, CM_EINVAL,
                          "The inbox address must have a local part and a "
                          "domain");
    if (!cm_box_domain_allowed(api->settings, domain))
        return cm_err_set(err, CM_EINVAL, "Domain is not allowed");
    return check_made(api, addr_r->text, err);
}
