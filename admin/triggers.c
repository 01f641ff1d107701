/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/triggers.h"
#include "milter/model/json.h"
#include "milter/model/mailpit_json.h"
#include "milter/store/batch.h"
#include "milter/store/listing.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void
take(struct cm_triggers *triggers, const struct cm_listed *from)
{
    enum cm_trigger trigger;
    json_t *json = NULL;
    if (cm_trigger_find(from->name, &trigger) != CM_OK || !from->doc.text ||
        cm_json_parse(&json, from->doc.text, from->doc.len, NULL) != CM_OK)
        return;
    /* A broken one has no effect, which is what its default says. */
    (void)!cm_trigger_read(&triggers->at[trigger], trigger, json, NULL);
    json_decref(json);
}

enum cm_status
cm_triggers_load(struct cm_commits *commits, struct cm_triggers *triggers_r,
                 int64_t *at_r, struct cm_err *err)
{
    struct cm_listing listing;
    enum cm_status status =
        cm_commit_read(commits, CM_KIND_TRIGGER, &listing, err);
    if (status != CM_OK)
        return status;
    cm_triggers_default(triggers_r);
    for (size_t i = 0; i < listing.n; i++)
        take(triggers_r, &listing.docs[i]);
    *at_r = listing.at;
    cm_listing_fini(&listing);
    return CM_OK;
}

/* The document of a trigger; NULL when out of memory. */
static char *
print(const struct cm_trigger_setting *setting, size_t *len_r)
{
    json_t *json = cm_trigger_json(setting);
    char *text = json ? cm_json_dump(json, len_r) : NULL;
    json_decref(json);
    return text;
}

enum cm_status
cm_triggers_store(struct cm_commits *commits,
                  const struct cm_triggers *triggers, int64_t *at,
                  struct cm_err *err)
{
    struct cm_change changes[CM_TRIGGER_COUNT + 1];
    char *texts[CM_TRIGGER_COUNT] = {NULL};
    enum cm_status status = CM_OK;
    size_t n = 0;
    for (int i = 0; i < CM_TRIGGER_COUNT; i++) {
        size_t len = 0;
        texts[i] = print(&triggers->at[i], &len);
        if (!texts[i])
            status = cm_err_set(err, CM_ENOMEM, "out of memory");
        changes[n++] =
            (struct cm_change){.what = CM_CHANGE_SET,
                               .kind = CM_KIND_TRIGGER,
                               .name = cm_trigger_key((enum cm_trigger)i),
                               .doc = texts[i],
                               .len = len,
                               .rev = CM_REV_ANY,
                               .place = CM_PLACE_USUAL};
    }
    if (*at != CM_REV_ANY)
        changes[n++] = (struct cm_change){
            .what = CM_CHANGE_AT, .kind = CM_KIND_TRIGGER, .rev = *at};
    if (status == CM_OK)
        status = cm_commit_batch(commits, changes, n, at, NULL, err);
    for (int i = 0; i < CM_TRIGGER_COUNT; i++)
        free(texts[i]);
    return status;
}
