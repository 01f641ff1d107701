/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/api_keys.h"
#include "admin/api.h"
#include "admin/auth.h"
#include "admin/keyring.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/scope.h"
#include "milter/clock.h"
#include "milter/model/json.h"
#include "milter/model/members.h"
#include "milter/model/problem.h"
#include "milter/model/rfc3339.h"
#include "milter/store/stored_keys.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_KEY_TRIES 4 /* ids are 32 bits, and one may be taken */

static const struct cm_member members[] = {
    {.name = "name",
     .type = CM_MEMBER_STRING,
     .required = true,
     .max = CM_AUTH_NAME_MAX},
    {.name = "scopes",
     .type = CM_MEMBER_CHOICES,
     .required = true,
     .choices = CM_MEMBER_TEXTS("read", "write", "halt")},
    {.name = "expiresAt", .type = CM_MEMBER_TIME},
    CM_MEMBER_ROW_END,
};

/* --- list --- */

static void
add_of_settings(const struct cm_api *api, json_t *list)
{
    char id[CM_AUTH_ID_SIZE];
    for (size_t i = 0; cm_auth_id(api->auth, i, id); i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "id", id,
                                              "settings", 1, "scopes",
                                              cm_scopes_json(CM_SCOPES_ALL)));
}

/* What is stored, with its id in front. */
static json_t *
stored_json(const struct cm_stored_key *key)
{
    json_t *doc = NULL;
    json_t *json = json_pack("{s:s, s:b}", "id", key->id, "settings", 0);
    if (cm_json_parse(&doc, key->doc, strlen(key->doc), NULL) == CM_OK)
        json_object_update(json, doc);
    else
        json_object_set_new(json, "error",
                            json_string("what is stored is no document"));
    json_decref(doc);
    return json;
}

void
cm_api_key_list(struct cm_api *api, const struct cm_request *req,
                struct cm_response *res)
{
    static const char *const known[] = {NULL};
    struct cm_stored_keys keys;
    struct cm_err err;
    if (!cm_own_query(req, known, res))
        return;
    enum cm_status status = cm_commit_keys(api->commits, &keys, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        return;
    }
    json_t *list = json_array();
    add_of_settings(api, list);
    for (size_t i = 0; list && i < keys.n; i++)
        json_array_append_new(list, stored_json(&keys.at[i]));
    cm_stored_keys_fini(&keys);
    cm_response_json(res, 200, json_pack("{s:o}", "keys", list));
}

/* --- create --- */

/* A name goes into logs and the audit, so it is one line of text. */
static bool
check_name(const struct cm_request *req, const json_t *body,
           struct cm_response *res)
{
    struct cm_problems problems;
    const char *name = json_string_value(json_object_get(body, "name"));
    const json_t *scopes = json_object_get(body, "scopes");
    cm_problems_init(&problems);
    bool plain = *name != '\0';
    for (const char *c = name; *c; c++)
        plain = plain && *c >= 0x20 && *c <= 0x7e;
    if (!plain)
        cm_problem_add(&problems, "name",
                       "name must be 1 to %d printable ASCII characters",
                       CM_AUTH_NAME_MAX);
    if (json_array_size(scopes) == 0)
        cm_problem_add(&problems, "scopes", "scopes must not be empty");
    if (problems.n == 0)
        return true;
    cm_own_invalid(res, req, &problems);
    return false;
}

/* What is stored of a key: all but the key. */
static json_t *
describe(const struct cm_request *req, const json_t *body)
{
    char now[32];
    unsigned scopes;
    cm_scopes_parse(json_object_get(body, "scopes"), &scopes);
    cm_time_print(cm_clock_wall_ms(), now, sizeof now);
    json_t *doc = json_pack(
        "{s:O, s:o, s:s, s:s}", "name", json_object_get(body, "name"), "scopes",
        cm_scopes_json(scopes), "createdAt", now, "createdBy", req->key_id);
    json_t *expires = json_object_get(body, "expiresAt");
    if (doc && expires)
        json_object_set(doc, "expiresAt", expires);
    return doc;
}

/* Makes keys until one's id is free. */
static enum cm_status
store_key(struct cm_api *api, const char *text, char key_r[CM_AUTH_KEY_SIZE],
          char id_r[CM_AUTH_ID_SIZE], struct cm_err *err)
{
    char line[CM_AUTH_LINE_SIZE];
    enum cm_status status = CM_ECONFLICT;
    for (int i = 0; i < CM_KEY_TRIES && status == CM_ECONFLICT; i++) {
        status = cm_auth_new_key(key_r, line, err);
        const char *digest = line + strlen("sha256:");
        if (status == CM_OK) {
            snprintf(id_r, CM_AUTH_ID_SIZE, "%.8s", digest);
            status = cm_commit_key_add(api->commits, id_r, digest, text, err);
        }
    }
    return status;
}

void
cm_api_key_create(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    char key[CM_AUTH_KEY_SIZE], id[CM_AUTH_ID_SIZE];
    struct cm_err err;
    json_t *body = NULL;
    size_t len = 0;
    if (!cm_own_body(req, members, false, &body, res))
        return;
    if (!check_name(req, body, res)) {
        json_decref(body);
        return;
    }
    json_t *doc = describe(req, body);
    char *text = doc ? cm_json_dump(doc, &len) : NULL;
    enum cm_status status =
        text ? store_key(api, text, key, id, &err) : CM_ENOMEM;
    if (status == CM_OK) {
        cm_keyring_forget(api->keyring);
        json_t *answer = json_pack("{s:s, s:s}", "id", id, "key", key);
        if (answer)
            json_object_update(answer, doc);
        cm_response_header(res, "Location", "/api/v1/keys/%s", id);
        cm_response_json(res, 201, answer);
        OPENSSL_cleanse(key, sizeof key);
    } else if (status == CM_EINVAL) {
        cm_response_fail(res, req, 409, "%s", err.msg);
    } else {
        cm_api_failed(api, req, res, status, &err, true);
    }
    free(text);
    json_decref(doc);
    json_decref(body);
}

/* --- revoke --- */

void
cm_api_key_revoke(struct cm_api *api, const struct cm_request *req,
                  struct cm_response *res)
{
    struct cm_err err;
    char id[CM_AUTH_ID_SIZE];
    for (size_t i = 0; cm_auth_id(api->auth, i, id); i++) {
        if (strcmp(id, req->capture[0]) != 0)
            continue;
        cm_response_fail(res, req, 409,
                         "Key %s is one of the settings: take it out of there",
                         id);
        return;
    }
    enum cm_status status =
        cm_commit_key_del(api->commits, req->capture[0], &err);
    cm_keyring_forget(api->keyring);
    if (status == CM_OK)
        cm_response_empty(res, 204);
    else if (status == CM_NOTFOUND)
        cm_response_fail(res, req, 404, "There is no key %s", req->capture[0]);
    else
        cm_api_failed(api, req, res, status, &err, true);
}
