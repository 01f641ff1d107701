/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin/api_stream.h"
#include "admin/api.h"
#include "admin/event_filter.h"
#include "admin/response.h"
#include "admin/streams.h"
#include "admin/ticket.h"
#include "milter/clock.h"
#include "milter/model/problem.h"
#include "milter/model/rfc3339.h"
#include "milter/settings.h"

#include <jansson.h>
#include <string.h>

#define CM_STREAM_RETRY_S 5

bool
cm_api_stream_wanted(const struct cm_request *req)
{
    const char *accept = cm_request_header(req, "Accept");
    return accept && strcasestr(accept, "text/event-stream");
}

/* The stream that was opened, or why it was not. */
static void
answer(const struct cm_request *req, struct cm_response *res,
       enum cm_status status, struct cm_outflow *flow)
{
    if (status == CM_OK) {
        /* A proxy in front must not wait until it has a bufferful. */
        cm_response_header(res, "X-Accel-Buffering", "no");
        cm_response_flow(res, "text/event-stream", flow);
        return;
    }
    cm_response_header(res, "Retry-After", "%d", CM_STREAM_RETRY_S);
    if (status == CM_ETIMEOUT)
        cm_response_fail(res, req, 503, "%d event streams are open already",
                         CM_STREAMS_MAX);
    else
        cm_response_fail(res, req, 503, "The server ran out of memory");
}

/* A header that makes no sense was some client's memory, not a person's wish:
 * it is told to begin anew. A parameter is answered like all others. */
static enum cm_streams_from
read_from(const struct cm_request *req, struct cm_record_id *id_r,
          struct cm_problems *problems)
{
    const char *header = cm_request_header(req, "Last-Event-ID");
    const char *param = cm_target_param(&req->target, "after");
    struct cm_record_id unused;
    if (param && cm_record_id_parse(param, id_r) != CM_OK)
        cm_problem_add(problems, "after",
                       "after must be the id of an event, such as "
                       "\"1700000000000-0\"");
    if (!header || !*header)
        return param ? CM_STREAMS_AFTER : CM_STREAMS_NOW;
    if (cm_record_id_parse(header, &unused) != CM_OK)
        return CM_STREAMS_UNKNOWN;
    *id_r = unused;
    return CM_STREAMS_AFTER;
}

void
cm_api_stream(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res)
{
    static const char *const others[] = {"after", "ticket", NULL};
    struct cm_event_filter filter;
    struct cm_problems problems;
    struct cm_record_id id = {0, 0};
    struct cm_outflow *flow = NULL;
    cm_problems_init(&problems);
    cm_event_filter_read(&filter, &req->target, api->address_flags,
                         api->settings->address.recipient_delimiter, others,
                         &problems);
    enum cm_streams_from from = read_from(req, &id, &problems);
    if (problems.n > 0) {
        cm_response_fail_all(res, req, 400, &problems);
        return;
    }
    enum cm_status status =
        cm_streams_events(api->streams, &filter, from, id, &flow);
    answer(req, res, status, flow);
}

void
cm_api_console(struct cm_api *api, const struct cm_request *req,
               struct cm_response *res)
{
    struct cm_outflow *flow = NULL;
    enum cm_status status = cm_streams_console(api->streams, &flow);
    answer(req, res, status, flow);
}

void
cm_api_ticket(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res)
{
    char ticket[CM_TICKET_SIZE], expires[32];
    struct cm_err err;
    json_t *body = NULL;
    if (!cm_api_body(req, true, &body, res))
        return;
    bool empty = json_is_object(body) && json_object_size(body) == 0;
    json_decref(body);
    if (!empty) {
        cm_response_fail(res, req, 400, "A ticket takes no members");
        return;
    }
    enum cm_status status = cm_ticket_issue(api->commits, ticket, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        return;
    }
    cm_time_print(cm_clock_wall_ms() + CM_TICKET_MS, expires, sizeof expires);
    cm_response_json(
        res, 201,
        json_pack("{s:s, s:s}", "ticket", ticket, "expiresAt", expires));
}
