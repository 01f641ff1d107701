/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The document is kept as it was sent, with its id in front: what a client did
 * not say stays unsaid, so that a later default is its default too. The model
 * checks it here and again in every filter.
 */
#include "admin/rule_doc.h"
#include "admin/api.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CM_ID_RANDOM_BYTES 5

/* "r" and ten hexadecimal digits. */
static bool
make_id(char id[CM_RULE_ID_BYTES])
{
    unsigned char bytes[CM_ID_RANDOM_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    int n = snprintf(id, CM_RULE_ID_BYTES, "r");
    for (size_t i = 0; i < sizeof bytes; i++)
        n += snprintf(id + n, CM_RULE_ID_BYTES - (size_t)n, "%02x", bytes[i]);
    return true;
}

static enum cm_status
check(const struct cm_api *api, const char *id, const json_t *doc,
      struct cm_problems *problems)
{
    struct cm_rule rule;
    cm_problems_init(problems);
    enum cm_status status =
        cm_rule_compile(&rule, id, doc, api->address_flags, problems);
    if (status == CM_OK)
        cm_rule_fini(&rule);
    return status;
}

/* The body with its id as the first member. */
static json_t *
with_id(const char *id, json_t *body)
{
    const char *name;
    json_t *value;
    json_t *doc = json_pack("{s:s}", "id", id);
    json_object_foreach(body, name, value)
    {
        if (doc && strcmp(name, "id") != 0 &&
            json_object_set(doc, name, value) != 0) {
            json_decref(doc);
            doc = NULL;
        }
    }
    return doc;
}

bool
cm_rule_doc_read(struct cm_api *api, const struct cm_request *req,
                 const char *id, struct cm_rule_text *text_r,
                 struct cm_response *res)
{
    struct cm_problems problems;
    json_t *body = NULL, *doc = NULL;
    char made[CM_RULE_ID_BYTES];
    memset(text_r, 0, sizeof *text_r);
    if (!make_id(made)) {
        cm_response_fail(res, req, 503, "The kernel gives no random bytes");
        return false;
    }
    if (!cm_api_body(req, false, &body, res))
        return false;
    const json_t *own = json_object_get(body, "id");
    if (!id && (!own || json_is_null(own)))
        id = made;
    enum cm_status status = check(api, id, body, &problems);
    if (status == CM_OK) {
        snprintf(text_r->id, sizeof text_r->id, "%s",
                 id ? id : json_string_value(own));
        doc = with_id(text_r->id, body);
        text_r->text = doc ? cm_json_dump(doc, &text_r->len) : NULL;
    }
    if (status == CM_EINVAL)
        cm_own_invalid(res, req, &problems);
    else if (!text_r->text)
        cm_own_no_memory(res, req);
    json_decref(doc);
    json_decref(body);
    return text_r->text != NULL;
}

void
cm_rule_text_fini(struct cm_rule_text *text)
{
    free(text->text);
    memset(text, 0, sizeof *text);
}

json_t *
cm_rule_doc_json(const struct cm_api *api, const char *id,
                 const struct cm_doc *doc, char *why)
{
    char unused[256];
    json_t *json = NULL;
    struct cm_problems problems;
    struct cm_err err = {CM_OK, "the value in Redis is no document"};
    why = why ? why : unused;
    why[0] = '\0';
    enum cm_status status =
        doc->text ? cm_json_parse(&json, doc->text, doc->len, &err) : CM_EINVAL;
    if (status != CM_OK) {
        snprintf(why, 256, "%s", err.msg);
        return NULL;
    }
    status = check(api, id, json, &problems);
    if (status != CM_OK)
        snprintf(why, 256, "%s",
                 status == CM_EINVAL ? cm_problems_first(&problems)
                                     : cm_status_name(status));
    return json;
}
