/* SPDX-License-Identifier: BSD-2-Clause */
#include "t/unit/verdict_case.h"
#include "milter/model/protect.h"
#include "milter/model/rule_json.h"
#include "milter/model/ruleset.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
set_up(void **state)
{
    static struct fixture f;
    struct cm_protect *protect = NULL;
    char *extra[] = {(char *)"ops@example.com"};
    memset(&f, 0, sizeof f);
    memset(&mock_smfi, 0, sizeof mock_smfi);
    memset(&mock_dropper, 0, sizeof mock_dropper);
    mock_store_reset();
    if (cm_protect_new(&protect, extra, 1, 0, NULL) != CM_OK)
        return -1;
    f.filter.armed = true;
    f.filter.recipient_delimiter = "+";
    cm_patience_init(&f.filter.patience, 10, 300);
    pthread_rwlock_init(&f.filter.protect_lock, NULL);
    cm_filter_protect(&f.filter, protect);
    f.session = cm_session_new(&f.filter, -1);
    f.session->client.family = 2;
    f.session->client.port = 1;
    snprintf(f.session->client_text, sizeof f.session->client_text,
             "192.0.2.1");
    *state = &f;
    return 0;
}

int
tear_down(void **state)
{
    struct fixture *f = *state;
    cm_session_free(&f->session);
    cm_protect_free(&f->filter.protect);
    pthread_rwlock_destroy(&f->filter.protect_lock);
    mock_store_reset();
    return 0;
}

void
mail_from(struct fixture *f, const char *sender)
{
    cm_session_begin(f->session);
    f->session->msg.sender_known =
        cm_address_parse(&f->session->msg.sender, sender, strlen(sender), 0,
                         NULL) == CM_OK;
}

const struct cm_incident *
only_incident(void)
{
    assert_int_equal(mock_store.nincidents, 1);
    return &mock_store.incidents[0];
}

void
add_rules(const char *const *texts, size_t n)
{
    struct cm_rule *rules = calloc(n, sizeof *rules);
    assert_non_null(rules);
    for (size_t i = 0; i < n; i++) {
        struct cm_problems problems;
        struct cm_err err;
        char id[24];
        json_t *doc = NULL;
        cm_problems_init(&problems);
        snprintf(id, sizeof id, "r%zu", i + 1);
        assert_int_equal(cm_json_parse(&doc, texts[i], strlen(texts[i]), &err),
                         CM_OK);
        if (cm_rule_compile(&rules[i], id, doc, 0, &problems) != CM_OK)
            fail_msg("%s: %s", texts[i], cm_problems_first(&problems));
        json_decref(doc);
    }
    assert_int_equal(cm_ruleset_new(&mock_store.rules, rules, n), CM_OK);
}

void
add_rule(const char *text)
{
    add_rules(&text, 1);
}
