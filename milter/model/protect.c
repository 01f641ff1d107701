/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list of a handful of entries, walked: an operator writes it by hand. Each
 * entry is put into canonical form by the address parser itself, with a
 * stand-in for the half that is missing, so that "Ops@" and "@Bücher.example"
 * mean what they mean everywhere else.
 */
#include "milter/model/protect.h"
#include "milter/model/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CM_PROTECT_STAND_IN_LOCAL  "x"
#define CM_PROTECT_STAND_IN_DOMAIN "x"

struct entry {
    bool any_local, any_domain, any_case;
    struct cm_address addr;
};

struct cm_protect {
    size_t n;
    struct entry at[];
};

static const char *const always[] = {"postmaster@", "abuse@"};
#define CM_PROTECT_ALWAYS (sizeof always / sizeof always[0])

static enum cm_status
parse_entry(struct entry *entry, const char *text, unsigned flags,
            struct cm_err *err)
{
    size_t len = strlen(text);
    char whole[CM_ADDRESS_MAX_BYTES + 2];
    entry->any_local = text[0] == '@';
    entry->any_domain = len > 0 && text[len - 1] == '@';
    int n = snprintf(whole, sizeof whole, "%s%s%s",
                     entry->any_local ? CM_PROTECT_STAND_IN_LOCAL : "", text,
                     entry->any_domain ? CM_PROTECT_STAND_IN_DOMAIN : "");
    struct cm_err why = {CM_OK, "it is too long"};
    enum cm_status status = CM_EINVAL;
    if (n > 0 && (size_t)n < sizeof whole)
        status = cm_address_parse(&entry->addr, whole, (size_t)n, flags, &why);
    if (status == CM_OK &&
        (len < 2 || entry->addr.domain_off == entry->addr.len)) {
        status = CM_EINVAL;
        why.msg[0] = '\0';
    }
    if (status == CM_EINVAL)
        cm_err_set(err, status,
                   "\"%s\" must be \"local@\", \"@domain\" or "
                   "\"local@domain\"%s%s",
                   text, why.msg[0] ? ": " : "", why.msg);
    return status;
}

enum cm_status
cm_protect_new(struct cm_protect **protect_r, char *const *entries, size_t n,
               unsigned flags, struct cm_err *err)
{
    size_t total = n + CM_PROTECT_ALWAYS;
    struct cm_protect *protect =
        calloc(1, sizeof *protect + total * sizeof protect->at[0]);
    if (!protect)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    for (size_t i = 0; i < total; i++) {
        const char *text =
            i < CM_PROTECT_ALWAYS ? always[i] : entries[i - CM_PROTECT_ALWAYS];
        struct entry *entry = &protect->at[i];
        enum cm_status status = parse_entry(entry, text, flags, err);
        if (status != CM_OK) {
            cm_protect_free(&protect);
            return status;
        }
        entry->any_case = i < CM_PROTECT_ALWAYS;
        protect->n = i + 1;
    }
    *protect_r = protect;
    return CM_OK;
}

void
cm_protect_free(struct cm_protect **protect)
{
    free(*protect);
    *protect = NULL;
}

/* The local part's length: without the "@" that a domain brings along. */
static size_t
local_len(const struct cm_address *addr)
{
    return addr->domain_off == addr->len ? addr->len : addr->domain_off - 1u;
}

static bool
same_local(const struct entry *entry, const struct cm_address *addr)
{
    size_t len = local_len(addr);
    if (len != local_len(&entry->addr))
        return false;
    return entry->any_case ? strncasecmp(entry->addr.text, addr->text, len) == 0
                           : memcmp(entry->addr.text, addr->text, len) == 0;
}

bool
cm_protect_covers(const struct cm_protect *protect,
                  const struct cm_address *recipient)
{
    for (size_t i = 0; i < protect->n; i++) {
        const struct entry *entry = &protect->at[i];
        if (!entry->any_local && !same_local(entry, recipient))
            continue;
        if (!entry->any_domain && strcmp(cm_address_domain(&entry->addr),
                                         cm_address_domain(recipient)) != 0)
            continue;
        return true;
    }
    return false;
}
