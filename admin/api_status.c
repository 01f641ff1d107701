/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Heartbeats are JSON that other processes wrote: they are passed on with a
 * few members added, and what is missing or of another type in them is left
 * alone. A host whose heartbeat cannot be read is an alarm, not a failure.
 */
#include "admin/api_status.h"
#include "admin/api.h"
#include "admin/api_mtas.h"
#include "admin/feed.h"
#include "admin/keeper.h"
#include "admin/response.h"
#include "milter/clock.h"
#include "milter/model/json.h"
#include "milter/model/rfc3339.h"
#include "milter/settings.h"
#include "milter/store/commit.h"
#include "milter/store/halt.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_STATUS_ALIVE_MS 5000

/* The parts of the answer while it grows; each is owned here until the end. */
struct status {
    json_t *hosts, *alarms, *unavailable;
    int64_t now_ms, seq;
    const char *epoch; /* NULL: Redis holds none */
    bool halt_known;
    struct cm_halt halt;
    size_t nlive;
};

/* A heartbeat that is at least that much younger than the halt must know it. */
#define CM_STATUS_OBEYED_MS 1500

void
cm_api_livez(struct cm_api *api, const struct cm_request *req,
             struct cm_response *res)
{
    (void)api;
    (void)req;
    cm_response_text(res, 200, "text/plain", strdup("ok\n"), 3);
}

void
cm_api_readyz(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res)
{
    char why[256];
    bool up = cm_keeper_redis_up(api->keeper, why);
    bool ready = up && cm_feed_begun(api->feed);
    json_t *json = json_pack("{s:b}", "ready", (int)ready);
    if (up && !ready)
        snprintf(why, sizeof why, "its events are not read yet");
    if (json && !ready && req->peer.loopback)
        json_object_set_new(json, "reasons",
                            json_pack("[o]", json_sprintf("redis: %s", why)));
    if (!ready)
        cm_response_header(res, "Retry-After", "1");
    cm_response_json(res, ready ? 200 : 503, json);
}

/* An alarm, of one host or (host NULL) of ours. */
static void
add_alarm(struct status *st, const char *host, const char *text)
{
    json_array_append_new(st->alarms,
                          json_pack("{s:s?, s:s}", "host", host, "text", text));
}

static const char *
host_name(const json_t *host)
{
    const char *name = json_string_value(json_object_get(host, "host"));
    return name ? name : "(unnamed)";
}

static void
take_alarms(struct status *st, const json_t *host)
{
    size_t i;
    const char *fault;
    json_t *value;
    json_array_foreach(json_object_get(host, "alarms"), i, value)
    {
        if (json_is_string(value))
            add_alarm(st, host_name(host), json_string_value(value));
    }
    value = json_object_get(host, "halt_problem");
    if (json_is_string(value))
        add_alarm(st, host_name(host), json_string_value(value));
    json_object_foreach(json_object_get(host, "unavailable"), fault, value)
    {
        json_array_append_new(st->unavailable,
                              json_pack("{s:s, s:s, s:O}", "host",
                                        host_name(host), "fault", fault,
                                        "reason", value));
    }
}

static void
add_host(struct status *st, const char *text)
{
    json_t *host = NULL;
    if (cm_json_parse(&host, text, strlen(text), NULL) != CM_OK ||
        !json_is_object(host)) {
        add_alarm(st, NULL, "a heartbeat in Redis cannot be read");
        json_decref(host);
        return;
    }
    json_t *time = json_object_get(host, "time_ms");
    json_t *seq = json_object_get(host, "seq");
    int64_t age_ms = st->now_ms - json_integer_value(time);
    bool alive = age_ms < CM_STATUS_ALIVE_MS;
    if (age_ms < 0)
        age_ms = 0; /* its clock is ahead of ours */
    json_object_set_new(host, "age_ms", json_integer(age_ms));
    json_object_set_new(host, "alive", json_boolean(alive));
    json_object_set_new(host, "lag",
                        json_integer(st->seq - json_integer_value(seq)));
    st->nlive += alive;
    if (alive)
        take_alarms(st, host);
    json_array_append_new(st->hosts, host);
}

static bool
same(const json_t *a, const json_t *b, const char *name)
{
    return json_equal(json_object_get(a, name), json_object_get(b, name));
}

/* Two live hosts that have applied the same changes must hold the same rules.
 */
static void
compare_digests(struct status *st)
{
    size_t i, j;
    json_t *a, *b;
    json_array_foreach(st->hosts, i, a)
    {
        json_array_foreach(st->hosts, j, b)
        {
            if (j <= i || !json_is_true(json_object_get(a, "alive")) ||
                !json_is_true(json_object_get(b, "alive")) ||
                !same(a, b, "epoch") || !same(a, b, "seq") ||
                same(a, b, "digest"))
                continue;
            char text[768];
            snprintf(text, sizeof text,
                     "holds other rules than %s at the same sequence number",
                     host_name(b));
            add_alarm(st, host_name(a), text);
            return; /* one is enough to look for the cause */
        }
    }
}

static void
compare_epochs(struct status *st)
{
    size_t i;
    json_t *host;
    json_array_foreach(st->hosts, i, host)
    {
        const char *epoch = json_string_value(json_object_get(host, "epoch"));
        if (json_is_true(json_object_get(host, "alive")) && st->epoch &&
            epoch && *epoch && strcmp(epoch, st->epoch) != 0)
            add_alarm(st, host_name(host),
                      "follows another epoch than Redis holds");
    }
}

/* Something else under the halt's name is an alarm and no failure. */
static enum cm_status
ask_halt(struct cm_api *api, struct status *st, struct cm_err *err)
{
    enum cm_status status = cm_commit_halted(api->commits, &st->halt, err);
    st->halt_known = status == CM_OK;
    if (status != CM_EPROTO)
        return status;
    add_alarm(st, NULL, err->msg);
    return CM_OK;
}

/* What Redis knows; a failure is returned and becomes a member of the answer.
 */
static enum cm_status
ask_redis(struct cm_api *api, struct status *st, char **epoch_r,
          struct cm_err *err)
{
    char **texts = NULL;
    enum cm_status status = cm_commit_seq(api->commits, epoch_r, &st->seq, err);
    if (status == CM_NOTFOUND) {
        st->seq = 0;
        status = CM_OK;
    }
    st->epoch = *epoch_r;
    if (status == CM_OK)
        status = ask_halt(api, st, err);
    if (status == CM_OK)
        status = cm_commit_hosts(api->commits, &texts, err);
    for (size_t i = 0; status == CM_OK && texts && texts[i]; i++)
        add_host(st, texts[i]);
    cm_names_free(&texts);
    return status;
}

static void
compare_halts(struct status *st)
{
    size_t i;
    json_t *host;
    json_array_foreach(st->hosts, i, host)
    {
        bool halted = json_is_true(json_object_get(host, "halted"));
        int64_t time_ms = json_integer_value(json_object_get(host, "time_ms"));
        if (st->halt_known && json_is_true(json_object_get(host, "alive")) &&
            halted != st->halt.halted &&
            !json_object_get(host, "halt_problem") &&
            time_ms > st->halt.at_ms + CM_STATUS_OBEYED_MS)
            add_alarm(st, host_name(host),
                      halted ? "is halted by what it knew before Redis lost "
                               "it: POST /api/v1/resume ends that"
                             : "does not obey the halt");
    }
}

static void
add_own_alarms(struct cm_api *api, struct status *st, bool redis_up,
               const struct cm_err *err)
{
    char text[320];
    if (!redis_up) {
        snprintf(text, sizeof text, "Redis is not available: %s", err->msg);
        add_alarm(st, NULL, text);
        return;
    }
    if (st->nlive == 0)
        add_alarm(st, NULL, "no live filter");
    compare_digests(st);
    compare_epochs(st);
    compare_halts(st);
    size_t i;
    json_t *host;
    json_array_foreach(st->hosts, i, host)
    {
        const json_t *armed = json_object_get(host, "armed");
        if (json_is_true(json_object_get(host, "alive")) &&
            json_is_boolean(armed) &&
            json_is_true(armed) != api->settings->armed)
            add_alarm(st, host_name(host),
                      api->settings->armed
                          ? "is not armed, the admin daemon is"
                          : "is armed, the admin daemon is not");
    }
}

static json_t *
halt_json(const struct cm_halt *halt)
{
    char since[32];
    if (!halt->halted)
        return json_pack("{s:b}", "halted", 0);
    cm_time_print(halt->at_ms, since, sizeof since);
    return json_pack("{s:b, s:s, s:s, s:s}", "halted", 1, "since", since, "by",
                     halt->by, "reason", halt->reason);
}

void
cm_api_status(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res)
{
    struct status st = {.hosts = json_array(),
                        .alarms = json_array(),
                        .unavailable = json_array(),
                        .now_ms = cm_clock_wall_ms()};
    struct cm_err err = {CM_OK, ""};
    char *epoch = NULL;
    (void)req;
    bool up = ask_redis(api, &st, &epoch, &err) == CM_OK;
    add_own_alarms(api, &st, up, &err);
    json_t *redis = json_pack("{s:b}", "up", (int)up);
    if (redis && !up)
        json_object_set_new(redis, "error", json_string(err.msg));
    json_t *json = json_pack(
        "{s:s, s:b, s:o, s:o, s:s?, s:o, s:o, s:o, s:o, s:o}", "version",
        api->version, "armed", (int)api->settings->armed, "halt",
        up && st.halt_known ? halt_json(&st.halt) : json_null(), "redis", redis,
        "epoch", up ? epoch : NULL, "seq",
        up ? json_integer(st.seq) : json_null(), "hosts", st.hosts, "alarms",
        st.alarms, "unavailable", st.unavailable, "mtas",
        cm_mtas_json(st.hosts));
    cm_response_json(res, 200, json);
    free(epoch);
}
