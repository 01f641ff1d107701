/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making an inbox takes its address by writing the box only if none is there
 * (CM_REV_NONE), so two clients that ask for one address at once get two. The
 * box is written before its chaos, and taken back when that fails: the other
 * way round a lost race would put chaos on somebody else's inbox.
 */
#include "admin/api_inboxes.h"
#include "admin/api.h"
#include "admin/box.h"
#include "admin/inbox_order.h"
#include "admin/response.h"
#include "milter/clock.h"
#include "milter/log.h"
#include "milter/model/address.h"
#include "milter/model/json.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"
#include "milter/settings.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CM_INBOX_TRIES 8

/* Best effort: a total that could not be counted is no reason to fail. */
static void
count(struct cm_api *api, const char *name)
{
    struct cm_total total = {name, 1};
    struct cm_err err;
    if (cm_commit_add_totals(api->commits, &total, 1, &err) != CM_OK)
        cm_log_debug("what=totals name=%s error=\"%s\"", name, err.msg);
}

/* --- POST /api/inboxes --- */

/* 16 random hex digits at this domain. */
static enum cm_status
random_address(struct cm_address *addr_r, const char *domain, unsigned flags,
               struct cm_err *err)
{
    unsigned char bytes[8];
    char text[CM_ADDRESS_MAX_BYTES + 1];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return cm_err_set(err, CM_ENOMEM, "no random bytes");
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    snprintf(text + 16, sizeof text - 16, "@%s", domain);
    return cm_address_parse(addr_r, text, strlen(text), flags, err);
}

/* The address to begin with: the one asked for, or a random one. */
static bool
first_address(struct cm_api *api, const struct cm_request *req,
              const char *wish, struct cm_address *addr_r,
              struct cm_response *res)
{
    struct cm_err err;
    enum cm_status status;
    unsigned flags = api->address_flags;
    if (wish && strchr(wish, '@')) {
        status = cm_address_parse(addr_r, wish, strlen(wish), flags, &err);
        if (status == CM_OK &&
            (addr_r->text[0] == '@' || !cm_address_domain(addr_r)[0]))
            status = cm_err_set(&err, CM_EINVAL,
                                "a local part and a domain are needed");
    } else {
        const char *domain = wish ? wish : cm_box_default_domain(api->settings);
        status = random_address(addr_r, domain, flags, &err);
    }
    if (status == CM_OK &&
        cm_box_domain_allowed(api->settings, cm_address_domain(addr_r)))
        return true;
    if (status == CM_OK)
        cm_response_fail(res, req, 400, "Domain is not allowed");
    else if (status == CM_EINVAL)
        cm_response_fail(res, req, 400, "emailAddress is invalid: %s", err.msg);
    else
        cm_api_failed(api, req, res, status, &err, false);
    return false;
}

/* Takes the address if it is free or its box has expired, with what was left
 * of the old one gone. CM_ECONFLICT: it is somebody's. */
static enum cm_status
take_address(struct cm_api *api, const char *address, struct cm_box *box,
             struct cm_err *err)
{
    struct cm_box old;
    enum cm_status status =
        cm_box_get(api->commits, address, box->created_ms, &old, err);
    if (status == CM_OK)
        return CM_ECONFLICT;
    if (status != CM_NOTFOUND)
        return status;
    if (old.rev != CM_REV_NONE)
        status = cm_box_remove(api->commits, address, &old, err);
    if (status != CM_OK && status != CM_NOTFOUND)
        return status;
    box->rev = CM_REV_NONE;
    return cm_box_set(api->commits, address, box, err);
}

static enum cm_status
take_some_address(struct cm_api *api, struct cm_address *addr,
                  struct cm_box *box, struct cm_err *err)
{
    char domain[CM_ADDRESS_MAX_BYTES + 1];
    snprintf(domain, sizeof domain, "%s", cm_address_domain(addr));
    enum cm_status status = take_address(api, addr->text, box, err);
    for (int i = 1; i < CM_INBOX_TRIES && status == CM_ECONFLICT; i++) {
        status = random_address(addr, domain, api->address_flags, err);
        if (status == CM_OK)
            status = take_address(api, addr->text, box, err);
    }
    return status;
}

/* base64url without padding (RFC 4648 5) of the address's SHA-256. */
static void
print_hash(const char *address, char out[45])
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)address, strlen(address), digest);
    EVP_EncodeBlock((unsigned char *)out, digest, sizeof digest);
    for (char *c = out; *c; c++) {
        if (*c == '+')
            *c = '-';
        else if (*c == '/')
            *c = '_';
        else if (*c == '=')
            *c = '\0';
    }
}

static void
answer_created(const char *address, const struct cm_box *box, json_t *chaos,
               struct cm_response *res)
{
    char hash[45], expires[32];
    print_hash(address, hash);
    cm_time_print(box->expires_ms, expires, sizeof expires);
    json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b}", "emailAddress",
                             address, "expiresAt", expires, "inboxHash", hash,
                             "encrypted", 0, "emailAuth", (int)box->email_auth,
                             "spamAnalysis", (int)box->spam_analysis);
    if (json && chaos)
        json_object_set(json, "chaos", chaos);
    cm_response_json(res, 201, json);
}

static void
create(struct cm_api *api, const struct cm_request *req,
       const struct cm_inbox_order *order, struct cm_response *res)
{
    struct cm_address addr;
    struct cm_err err;
    struct cm_box box = {.created_ms = cm_clock_wall_ms(),
                         .email_auth = order->email_auth,
                         .spam_analysis = order->spam_analysis};
    json_t *chaos = NULL;
    box.expires_ms = box.created_ms + order->ttl_s * 1000;
    if (!first_address(api, req, order->email_address, &addr, res))
        return;
    enum cm_status status = take_some_address(api, &addr, &box, &err);
    if (status == CM_OK && order->chaos && api->settings->armed) {
        status =
            cm_commit_set(api->commits, CM_KIND_INBOX, addr.text, order->chaos,
                          order->chaos_len, CM_REV_ANY, NULL, &err);
        if (status == CM_OK)
            status =
                cm_json_parse(&chaos, order->chaos, order->chaos_len, &err);
        box.rev = CM_REV_ANY;
        if (status != CM_OK &&
            cm_box_remove(api->commits, addr.text, &box, NULL) != CM_OK)
            cm_log_warn("what=inbox address=%s error=\"made without its "
                        "chaos, and not taken back\"",
                        addr.text);
    }
    if (status == CM_OK) {
        count(api, "inbox.created_total");
        answer_created(addr.text, &box, chaos, res);
    } else {
        cm_api_failed(api, req, res, status, &err, true);
    }
    json_decref(chaos);
}

void
cm_api_inbox_create(struct cm_api *api, const struct cm_request *req,
                    struct cm_response *res)
{
    struct cm_inbox_order order = {0};
    struct cm_problems problems;
    json_t *body = NULL;
    cm_problems_init(&problems);
    if (!cm_api_body(req, true, &body, res))
        return;
    enum cm_status status =
        cm_inbox_order_read(&order, api->settings, body, &problems);
    if (status == CM_OK)
        create(api, req, &order, res);
    else if (status == CM_EINVAL)
        cm_response_fail_all(res, req, 400, &problems);
    else
        cm_response_fail(res, req, 503, "The server ran out of memory");
    cm_inbox_order_fini(&order);
    json_decref(body);
}

/* --- DELETE /api/inboxes/:addr --- */

void
cm_api_inbox_delete(struct cm_api *api, const struct cm_request *req,
                    struct cm_response *res)
{
    struct cm_address addr;
    struct cm_box box = {0};
    struct cm_err err;
    if (!cm_api_address(api, req, &addr, res))
        return;
    enum cm_status status =
        cm_box_get(api->commits, addr.text, cm_clock_wall_ms(), &box, &err);
    bool existed = status == CM_OK;
    if (status == CM_OK || status == CM_NOTFOUND) {
        box.rev = CM_REV_ANY;
        status = cm_box_remove(api->commits, addr.text, &box, &err);
    }
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, true);
        return;
    }
    if (existed)
        count(api, "inbox.deleted_total");
    cm_response_empty(res, 204);
}
