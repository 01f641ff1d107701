/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One reader per type of member, each adding its sentence to the list and going
 * on, so that a client learns of all its mistakes at once. null counts as
 * absent, as VaultSandbox has it.
 */
#include "admin/inbox_order.h"
#include "milter/model/json.h"
#include "milter/model/problem.h"
#include "milter/model/rule_json.h"
#include "milter/settings.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CM_ORDER_TTL_MIN_S   60
#define CM_ORDER_ADDRESS_MAX 254

/* The member, NULL when it is absent or null. */
static const json_t *
member(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return json_is_null(value) ? NULL : value;
}

static void
check_known(const json_t *body, struct cm_problems *problems)
{
    static const char *const known[] = {
        "clientKemPk", "ttl",          "emailAddress", "encryption",
        "emailAuth",   "spamAnalysis", "chaos",
    };
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        size_t i = 0, n = sizeof known / sizeof known[0];
        while (i < n && strcmp(name, known[i]) != 0)
            i++;
        if (i == n)
            cm_problem_add(problems, name, "property %s should not exist",
                           name);
    }
}

static const char *
read_string(const json_t *body, const char *name, struct cm_problems *problems)
{
    const json_t *value = member(body, name);
    if (value && !json_is_string(value))
        cm_problem_add(problems, name, "%s must be a string", name);
    return json_string_value(value);
}

static void
read_bool(const json_t *body, const char *name, bool *out,
          struct cm_problems *problems)
{
    const json_t *value = member(body, name);
    if (value && !json_is_boolean(value))
        cm_problem_add(problems, name, "%s must be a boolean value", name);
    else if (value)
        *out = json_is_true(value);
}

static void
read_ttl(const json_t *body, int64_t max_s, int64_t *out,
         struct cm_problems *problems)
{
    const json_t *value = member(body, "ttl");
    if (!value)
        return;
    double number = json_number_value(value);
    bool whole = json_is_integer(value) ||
                 (json_is_real(value) && number >= -1e15 && number <= 1e15 &&
                  number == (double)(int64_t)number);
    if (!whole)
        cm_problem_add(problems, "ttl", "ttl must be an integer number");
    else if (number < CM_ORDER_TTL_MIN_S)
        cm_problem_add(problems, "ttl", "ttl must not be less than %d",
                       CM_ORDER_TTL_MIN_S);
    else if (number > (double)max_s)
        cm_problem_add(problems, "ttl", "ttl must not be greater than %lld",
                       (long long)max_s);
    else
        *out = (int64_t)number;
}

static void
read_address(const json_t *body, const char **out, struct cm_problems *problems)
{
    const char *text = read_string(body, "emailAddress", problems);
    if (text && strlen(text) > CM_ORDER_ADDRESS_MAX)
        cm_problem_add(problems, "emailAddress",
                       "emailAddress must be shorter than or equal to %d "
                       "characters",
                       CM_ORDER_ADDRESS_MAX);
    else if (text && !*text)
        cm_problem_add(problems, "emailAddress",
                       "emailAddress should not be empty");
    *out = text;
}

/* Everything here is plain, so it is only checked. */
static void
check_encryption(const json_t *body, struct cm_problems *problems)
{
    const json_t *value = member(body, "encryption");
    const char *text = json_string_value(value);
    if (value && (!text || (strcmp(text, "plain") != 0 &&
                            strcmp(text, "encrypted") != 0)))
        cm_problem_add(problems, "encryption",
                       "encryption must be one of the following values: "
                       "encrypted, plain");
}

static enum cm_status
read_chaos(const json_t *body, struct cm_inbox_order *order,
           struct cm_problems *problems)
{
    const json_t *value = member(body, "chaos");
    json_t *config = NULL;
    if (!value)
        return CM_OK;
    enum cm_status status =
        cm_inbox_normalize(&config, value, "chaos.", problems);
    if (status != CM_OK)
        return status;
    order->chaos = cm_json_dump(config, &order->chaos_len);
    json_decref(config);
    return order->chaos ? CM_OK : CM_ENOMEM;
}

enum cm_status
cm_inbox_order_read(struct cm_inbox_order *order_r,
                    const struct cm_settings *settings,
                    const struct json_t *body, struct cm_problems *problems)
{
    *order_r = (struct cm_inbox_order){.ttl_s = settings->admin.default_ttl_s};
    if (!json_is_object(body)) {
        cm_problem_add(problems, "", "the body must be an object");
        return CM_EINVAL;
    }
    check_known(body, problems);
    read_string(body, "clientKemPk", problems);
    read_ttl(body, settings->admin.max_ttl_s, &order_r->ttl_s, problems);
    read_address(body, &order_r->email_address, problems);
    check_encryption(body, problems);
    read_bool(body, "emailAuth", &order_r->email_auth, problems);
    read_bool(body, "spamAnalysis", &order_r->spam_analysis, problems);
    enum cm_status status = read_chaos(body, order_r, problems);
    if (status == CM_ENOMEM)
        return status;
    return problems->n > 0 ? CM_EINVAL : CM_OK;
}

void
cm_inbox_order_fini(struct cm_inbox_order *order)
{
    free(order->chaos);
    memset(order, 0, sizeof *order);
}
