/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/keys.h"

#include <stdio.h>
#include <string.h>

static void
name(char *out, const struct cm_keys *keys, const char *rest)
{
    snprintf(out, CM_KEYS_TEXT, "%s:%s", keys->prefix, rest);
}

enum cm_status
cm_keys_init(struct cm_keys *keys, const char *prefix, struct cm_err *err)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789{}._:-";
    size_t len = strlen(prefix);
    if (len == 0 || len > CM_KEYS_PREFIX_MAX || strspn(prefix, allowed) != len)
        return cm_err_set(err, CM_EINVAL,
                          "the prefix must be 1 to %d letters, digits or any "
                          "of {}._:-",
                          CM_KEYS_PREFIX_MAX);
    memcpy(keys->prefix, prefix, len + 1);
    name(keys->epoch, keys, "epoch");
    name(keys->seq, keys, "seq");
    name(keys->idx, keys, "idx");
    name(keys->log, keys, "log");
    name(keys->cfg, keys, "cfg:");
    name(keys->halt, keys, "halt");
    name(keys->audit, keys, "audit");
    name(keys->audit_inbox, keys, "audit:inbox");
    name(keys->api_keys, keys, "keys");
    name(keys->events, keys, "ev");
    name(keys->hosts, keys, "st:hosts");
    name(keys->totals, keys, "st:totals");
    name(keys->rules, keys, "st:rules");
    return CM_OK;
}
