/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_H
#define CM_API_H

#include "milter/err.h"
#include "milter/store/commit.h"

#include <stdbool.h>
#include <stdint.h>

struct cm_address;
struct cm_auth;
struct cm_commits;
struct cm_feed;
struct cm_keeper;
struct cm_keyring;
struct cm_pool;
struct cm_request;
struct cm_response;
struct cm_settings;
struct cm_streams;
struct json_t;

/*
 * What stands behind every path: the table of routes, who may use them, and
 * what the handlers share. The order of checks is that of VaultSandbox: path
 * and method, key (401), armed (403), body (400), inbox (404).
 *
 * A handler of an unsafe method gets a copy that lives as long as the request,
 * whose commits write in the name of the request's key.
 */
struct cm_api { /* all borrowed */
    const struct cm_settings *settings;
    struct cm_auth *auth;
    struct cm_keyring *keyring;
    struct cm_pool *pool;
    struct cm_commits *commits;
    struct cm_keeper *keeper;
    struct cm_feed *feed;
    struct cm_streams *streams;
    const char *version;
    unsigned address_flags;
    int64_t started_ms; /* monotonic */
};

/* For struct cm_http_ops; arg is a struct cm_api. */
bool cm_api_admit(void *arg, struct cm_request *req, struct cm_response *res);
void cm_api_handle(void *arg, struct cm_request *req, struct cm_response *res);
void cm_api_done(void *arg, const struct cm_request *req,
                 const struct cm_response *res);

/* --- for the handlers; where one returns false, res is the answer --- */

/* cm_api_address - the first capture of the path as a canonical address with a
 * local part and a domain. */
bool cm_api_address(const struct cm_api *api, const struct cm_request *req,
                    struct cm_address *addr_r, struct cm_response *res);

/* cm_api_body - the body as a JSON value, the caller's to json_decref. An empty
 * body is an empty object where it may be left out. */
bool cm_api_body(const struct cm_request *req, bool may_be_empty,
                 struct json_t **json_r, struct cm_response *res);

/* cm_api_wanted_rev - the revision of a document that a change must find, after
 * If-Match and If-None-Match: CM_REV_ANY when neither is given. */
bool cm_api_wanted_rev(struct cm_api *api, const struct cm_request *req,
                       enum cm_kind kind, const char *name, int64_t *rev_r,
                       struct cm_response *res);

/* cm_api_failed - turn what the store returned into an answer: 503 with
 * Retry-After when Redis cannot be had, 412, 400. is_write: the change may have
 * been made all the same, and the answer says so. */
void cm_api_failed(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res, enum cm_status status,
                   const struct cm_err *err, bool is_write);

#endif
