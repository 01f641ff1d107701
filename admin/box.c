/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The document is small JSON, so that redis-cli shows what it is. A document
 * that somebody broke by hand counts as expired: it can be replaced, and the
 * keeper removes it.
 */
#include "admin/box.h"
#include "milter/model/address.h"
#include "milter/model/json.h"
#include "milter/model/rule_json.h"
#include "milter/settings.h"
#include "milter/store/commit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool
parse(const struct cm_doc *doc, struct cm_box *box_r)
{
    json_t *json = NULL;
    const char *created, *expires;
    int auth, spam;
    if (cm_json_parse(&json, doc->text, doc->len, NULL) != CM_OK)
        return false;
    bool ok = json_unpack(json, "{s:s, s:s, s:b, s:b}", "createdAt", &created,
                          "expiresAt", &expires, "emailAuth", &auth,
                          "spamAnalysis", &spam) == 0 &&
              cm_time_parse(created, &box_r->created_ms) == CM_OK &&
              cm_time_parse(expires, &box_r->expires_ms) == CM_OK;
    if (ok) {
        box_r->email_auth = auth;
        box_r->spam_analysis = spam;
    }
    json_decref(json);
    return ok;
}

enum cm_status
cm_box_get(struct cm_commits *commits, const char *address, int64_t now_ms,
           struct cm_box *box_r, struct cm_err *err)
{
    struct cm_doc doc = {0};
    *box_r = (struct cm_box){0};
    enum cm_status status =
        cm_commit_get(commits, CM_KIND_BOX, address, &doc, err);
    if (status != CM_OK)
        return status;
    box_r->rev = doc.rev;
    if (!parse(&doc, box_r) || box_r->expires_ms <= now_ms)
        status = CM_NOTFOUND;
    cm_doc_fini(&doc);
    return status;
}

enum cm_status
cm_box_set(struct cm_commits *commits, const char *address,
           const struct cm_box *box, struct cm_err *err)
{
    char created[32], expires[32];
    size_t len = 0;
    cm_time_print(box->created_ms, created, sizeof created);
    cm_time_print(box->expires_ms, expires, sizeof expires);
    json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:b}", "emailAddress",
                             address, "createdAt", created, "expiresAt",
                             expires, "emailAuth", (int)box->email_auth,
                             "spamAnalysis", (int)box->spam_analysis);
    char *text = json ? cm_json_dump(json, &len) : NULL;
    json_decref(json);
    if (!text)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status = cm_commit_set(commits, CM_KIND_BOX, address, text,
                                          len, box->rev, NULL, err);
    free(text);
    return status;
}

enum cm_status
cm_box_remove(struct cm_commits *commits, const char *address,
              const struct cm_box *box, struct cm_err *err)
{
    struct cm_doc chaos = {0};
    enum cm_status status =
        cm_commit_get(commits, CM_KIND_INBOX, address, &chaos, err);
    if (status == CM_OK)
        status = cm_commit_del(commits, CM_KIND_INBOX, address, chaos.rev, err);
    cm_doc_fini(&chaos);
    if (status == CM_OK || status == CM_NOTFOUND)
        status = cm_commit_del(commits, CM_KIND_BOX, address, box->rev, err);
    return status == CM_NOTFOUND ? CM_OK : status;
}

bool
cm_box_domain_allowed(const struct cm_settings *settings, const char *domain)
{
    const struct cm_string_list *domains = &settings->admin.domains;
    for (size_t i = 0; i < domains->n; i++) {
        if (strcmp(domains->at[i], "*") == 0 ||
            strcasecmp(domains->at[i], domain) == 0)
            return true;
    }
    return false;
}

const char *
cm_box_default_domain(const struct cm_settings *settings)
{
    const struct cm_string_list *domains = &settings->admin.domains;
    for (size_t i = 0; i < domains->n; i++) {
        if (strcmp(domains->at[i], "*") != 0)
            return domains->at[i];
    }
    return "example.com";
}
