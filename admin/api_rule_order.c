/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * New rules and moved ones. The place is worked out from the whole list as it
 * was at one moment, and written together with whoever must make room, on the
 * condition that no rule changed meanwhile; else all begins again.
 */
#include "admin/api.h"
#include "admin/api_rules.h"
#include "admin/etag.h"
#include "admin/own.h"
#include "admin/request.h"
#include "admin/response.h"
#include "admin/rule_doc.h"
#include "admin/rule_place.h"
#include "milter/model/members.h"
#include "milter/store/batch.h"
#include "milter/store/commit.h"
#include "milter/store/listing.h"
#include "milter/store/wipe.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_ORDER_TRIES 8

/* Where a rule shall go: before or after another one; neither: to the end. */
struct spot {
    const char *before, *after;
};

/* What shall go there. */
struct order {
    struct spot spot;
    const char *id;
    const struct cm_rule_text *text; /* NULL: it is moved */
};

enum outcome {
    DONE,
    AGAIN,     /* a rule changed meanwhile */
    NO_RULE,   /* the one that shall be moved is not there */
    NO_SPOT,   /* the one that it shall stand beside is not there */
    EXISTS,    /* a new one's id is taken */
    UNREADABLE /* what is stored is no document */
};

static size_t
position(const struct cm_listing *rules, const char *id)
{
    size_t i = 0;
    while (i < rules->n && strcmp(rules->docs[i].name, id) != 0)
        i++;
    return i;
}

/* Takes the rule that moves out of the list. */
static void
take_out(struct cm_listing *rules, size_t at, struct cm_listed *out)
{
    *out = rules->docs[at];
    memmove(&rules->docs[at], &rules->docs[at + 1],
            (rules->n - at - 1) * sizeof *rules->docs);
    rules->n--;
}

/* The position before which it goes; false: there is no such neighbour. */
static bool
find_spot(const struct cm_listing *rules, const struct spot *spot, size_t *at_r)
{
    const char *id = spot->before ? spot->before : spot->after;
    if (!id) {
        *at_r = rules->n;
        return true;
    }
    size_t at = position(rules, id);
    *at_r = spot->before ? at : at + 1;
    return at < rules->n;
}

static enum cm_status
make_room(const struct cm_listing *rules, size_t at, struct cm_room *room_r)
{
    int64_t *places = calloc(rules->n + 1, sizeof *places);
    if (!places)
        return CM_ENOMEM;
    /* What cannot be read has no place, and comes first: 0 will do. */
    for (size_t i = 0; i < rules->n; i++)
        places[i] = rules->docs[i].doc.ord > 0 ? rules->docs[i].doc.ord : 0;
    enum cm_status status = cm_room_make(room_r, places, rules->n, at);
    free(places);
    return status;
}

/* One batch: nothing else has changed, the neighbours move, and the rule is
 * there. Neighbours that cannot be read stay where they are. */
static enum cm_status
write_order(struct cm_api *api, const struct order *order, int64_t rev,
            const struct cm_listing *rules, const struct cm_room *room,
            size_t *failed_r, size_t *n_r, struct cm_err *err)
{
    size_t n = 0;
    struct cm_change *changes = calloc(room->n + 2, sizeof *changes);
    if (!changes)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    changes[n++] = (struct cm_change){
        .what = CM_CHANGE_AT, .kind = CM_KIND_RULE, .rev = rules->at};
    for (size_t i = 0; i < room->n; i++) {
        const struct cm_listed *neighbour = &rules->docs[room->first + i];
        if (neighbour->doc.text)
            changes[n++] = (struct cm_change){.what = CM_CHANGE_MOVE,
                                              .kind = CM_KIND_RULE,
                                              .name = neighbour->name,
                                              .rev = CM_REV_ANY,
                                              .place = room->moved[i]};
    }
    changes[n++] =
        (struct cm_change){.what = order->text ? CM_CHANGE_SET : CM_CHANGE_MOVE,
                           .kind = CM_KIND_RULE,
                           .name = order->id,
                           .doc = order->text ? order->text->text : NULL,
                           .len = order->text ? order->text->len : 0,
                           .rev = rev,
                           .place = room->place};
    enum cm_status status =
        cm_commit_batch(api->commits, changes, n, NULL, failed_r, err);
    *n_r = n;
    free(changes);
    return status;
}

static enum cm_status
order_within(struct cm_api *api, const struct order *order, int64_t rev,
             const struct cm_listing *rules, enum outcome *outcome_r,
             struct cm_err *err)
{
    struct cm_room room = {0};
    size_t at, failed = 0, n = 0;
    if (!find_spot(rules, &order->spot, &at)) {
        *outcome_r = NO_SPOT;
        return CM_OK;
    }
    enum cm_status status = make_room(rules, at, &room);
    if (status != CM_OK)
        return cm_err_set(err, status, "out of memory");
    status = write_order(api, order, rev, rules, &room, &failed, &n, err);
    cm_room_fini(&room);
    *outcome_r = DONE;
    if (status != CM_ECONFLICT)
        return status;
    *outcome_r = AGAIN;
    return CM_OK;
}

/* One try on the list as it is now. */
static enum cm_status
try_order(struct cm_api *api, const struct cm_request *req,
          const struct order *order, enum outcome *outcome_r,
          struct cm_err *err)
{
    struct cm_listing rules;
    struct cm_listed moving = {NULL, {0}};
    int64_t rev = CM_REV_NONE;
    enum cm_status status =
        cm_commit_read(api->commits, CM_KIND_RULE, &rules, err);
    if (status != CM_OK)
        return status;
    size_t at = position(&rules, order->id);
    if (order->text && at < rules.n) {
        *outcome_r = EXISTS;
    } else if (!order->text && at == rules.n) {
        *outcome_r = NO_RULE;
    } else if (!order->text && !rules.docs[at].doc.text) {
        *outcome_r = UNREADABLE;
    } else {
        if (!order->text) {
            take_out(&rules, at, &moving);
            rev = moving.doc.rev;
        }
        if (!order->text && !cm_etag_holds(req, rev))
            status = cm_err_set(err, CM_ECONFLICT, "the rule is another one");
        else
            status = order_within(api, order, rev, &rules, outcome_r, err);
    }
    free(moving.name);
    cm_doc_fini(&moving.doc);
    cm_listing_fini(&rules);
    return status;
}

/* At the end, for which nobody must be asked. True when it is done. */
static bool
append(struct cm_api *api, const struct cm_request *req,
       const struct cm_rule_text *text, struct cm_response *res)
{
    struct cm_err err;
    enum cm_status status =
        cm_commit_set(api->commits, CM_KIND_RULE, text->id, text->text,
                      text->len, CM_REV_NONE, NULL, &err);
    if (status == CM_ECONFLICT)
        cm_response_fail(res, req, 409,
                         "There is a rule %s already: PUT replaces it",
                         text->id);
    else if (status != CM_OK)
        cm_api_failed(api, req, res, status, &err, true);
    return status == CM_OK;
}

/* True when it is done; else res is the answer. */
static bool
carry_out(struct cm_api *api, const struct cm_request *req,
          const struct order *order, struct cm_response *res)
{
    struct cm_err err = {CM_OK, "the rules change all the time"};
    enum outcome outcome = AGAIN;
    enum cm_status status = CM_OK;
    for (int i = 0; i < CM_ORDER_TRIES && status == CM_OK && outcome == AGAIN;
         i++)
        status = try_order(api, req, order, &outcome, &err);
    if (status == CM_OK && outcome == AGAIN)
        status = CM_EIO;
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, status != CM_EIO);
        return false;
    }
    switch (outcome) {
    case DONE:
        return true;
    case NO_RULE:
        cm_response_fail(res, req, 404, "There is no rule %s", order->id);
        break;
    case NO_SPOT:
        cm_response_fail(res, req, 409, "There is no rule %s to stand beside",
                         order->spot.before ? order->spot.before
                                            : order->spot.after);
        break;
    case EXISTS:
        cm_response_fail(res, req, 409,
                         "There is a rule %s already: PUT replaces it",
                         order->id);
        break;
    case UNREADABLE:
    case AGAIN:
        cm_response_fail(res, req, 409,
                         "The stored rule is broken: replace it");
        break;
    }
    return false;
}

/* The rule as it is now stored, with its revision. */
static void
answer(struct cm_api *api, const struct cm_request *req, const char *id,
       int status, struct cm_response *res)
{
    struct cm_doc doc = {0};
    struct cm_err err;
    enum cm_status got =
        cm_commit_get(api->commits, CM_KIND_RULE, id, &doc, &err);
    if (got != CM_OK) {
        cm_api_failed(api, req, res, got, &err, true);
        return;
    }
    cm_etag_set(res, doc.rev);
    if (status == 201)
        cm_response_header(res, "Location", "/api/v1/rules/%s", id);
    cm_response_text(res, status, "application/json; charset=utf-8", doc.text,
                     doc.len);
    doc.text = NULL;
    cm_doc_fini(&doc);
}

void
cm_api_rule_delete_all(struct cm_api *api, const struct cm_request *req,
                       struct cm_response *res)
{
    static const char *const known[] = {"confirm", NULL};
    struct cm_wipe wipe = {.kind = CM_KIND_RULE, .begin = ""};
    struct cm_err err;
    if (!cm_own_query(req, known, res) || !cm_own_confirmed(req, "all", res))
        return;
    enum cm_status status = cm_commit_wipe(api->commits, &wipe, 1, &err);
    if (status == CM_OK)
        cm_response_json(res, 200,
                         json_pack("{s:I}", "removed", (json_int_t)wipe.count));
    else
        cm_api_failed(api, req, res, status, &err, true);
}

void
cm_api_rule_create(struct cm_api *api, const struct cm_request *req,
                   struct cm_response *res)
{
    static const char *const known[] = {"before", "after", NULL};
    struct cm_rule_text text;
    struct order order = {
        .spot = {.before = cm_target_param(&req->target, "before"),
                 .after = cm_target_param(&req->target, "after")}};
    if (!cm_own_query(req, known, res))
        return;
    if (order.spot.before && order.spot.after) {
        cm_response_fail(res, req, 400, "Either before or after, not both");
        return;
    }
    if (!cm_rule_doc_read(api, req, NULL, &text, res))
        return;
    order.id = text.id;
    order.text = &text;
    bool done = order.spot.before || order.spot.after
                    ? carry_out(api, req, &order, res)
                    : append(api, req, &text, res);
    if (done)
        answer(api, req, text.id, 201, res);
    cm_rule_text_fini(&text);
}

void
cm_api_rule_move(struct cm_api *api, const struct cm_request *req,
                 struct cm_response *res)
{
    static const struct cm_member members[] = {
        {.name = "before", .type = CM_MEMBER_STRING, .max = 64},
        {.name = "after", .type = CM_MEMBER_STRING, .max = 64},
        CM_MEMBER_ROW_END,
    };
    json_t *body = NULL;
    if (!cm_own_body(req, members, false, &body, res))
        return;
    struct order order = {
        .id = req->capture[0],
        .spot = {.before = json_string_value(json_object_get(body, "before")),
                 .after = json_string_value(json_object_get(body, "after"))}};
    const char *beside =
        order.spot.before ? order.spot.before : order.spot.after;
    if (!beside || (order.spot.before && order.spot.after))
        cm_response_fail(res, req, 422,
                         "The body must have either before or after, the id of "
                         "another rule");
    else if (strcmp(beside, order.id) == 0)
        cm_response_fail(res, req, 422, "A rule cannot stand beside itself");
    else if (carry_out(api, req, &order, res))
        answer(api, req, order.id, 200, res);
    json_decref(body);
}
