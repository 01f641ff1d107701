/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two things side by side: which mail servers the filters serve, by their own
 * account, and what can be had from each. Any program can then tell before an
 * experiment what its mail server will not do.
 */
#include "admin/api_mtas.h"
#include "milter/model/ability.h"

#include <jansson.h>
#include <string.h>

/* "partly: but this" in two; "yes" stands alone. */
static json_t *
ability_json(const struct cm_ability *ability, enum cm_mta mta)
{
    const char *can = ability->can[mta];
    size_t len = strcspn(can, ":");
    json_t *json =
        json_pack("{s:s, s:s%}", "what", ability->what, "can", can, len);
    if (json && can[len])
        json_object_set_new(json, "but", json_string(can + len + 2));
    return json;
}

static json_t *
abilities_json(enum cm_mta mta)
{
    size_t n;
    const struct cm_ability *table = cm_abilities(&n);
    json_t *json = json_object();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(json, table[i].name, ability_json(&table[i], mta));
    return json;
}

/* What a live host says of this server, or nothing. */
static void
add_seen(json_t *seen, const json_t *host, const char *name)
{
    const json_t *met = json_object_get(json_object_get(host, "mtas"), name);
    if (json_is_object(met) && json_is_true(json_object_get(host, "alive")))
        json_array_append_new(
            seen, json_pack("{s:O?, s:O?, s:O?}", "host",
                            json_object_get(host, "host"), "version",
                            json_object_get(met, "version"), "sessions",
                            json_object_get(met, "sessions")));
}

json_t *
cm_mtas_json(const json_t *hosts)
{
    json_t *json = json_object();
    for (enum cm_mta mta = CM_MTA_UNKNOWN + 1; mta < CM_MTA_COUNT; mta++) {
        json_t *seen = json_array();
        size_t i;
        json_t *host;
        json_array_foreach(hosts, i, host)
            add_seen(seen, host, cm_mta_name(mta));
        json_object_set_new(json, cm_mta_name(mta),
                            json_pack("{s:o, s:o}", "seen", seen, "abilities",
                                      abilities_json(mta)));
    }
    return json;
}
