/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Redis knows no filter on a stream, so a page is made by reading batches until
 * it is full, or until so many entries were looked at that somebody else should
 * have his turn: then it is short, and its cursor goes on from there.
 */
#include "admin/api_events.h"
#include "admin/api.h"
#include "admin/api_stream.h"
#include "admin/event_filter.h"
#include "admin/event_json.h"
#include "admin/response.h"
#include "milter/buf.h"
#include "milter/model/problem.h"
#include "milter/settings.h"
#include "milter/store/chronicle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_EVENTS_LIMIT     100
#define CM_EVENTS_LIMIT_MAX 1000
#define CM_EVENTS_LOOKED_AT ((size_t)10 * CM_CHRONICLE_PAGE_MAX)
#define CM_EVENTS_BYTES     ((size_t)4 * 1024 * 1024) /* then the page is full */
#define CM_EVENTS_SLACK     ((size_t)256 * 1024)      /* one event, escaped */

struct page {
    struct cm_event_filter filter;
    bool newest_first;
    struct cm_record_id from;
    size_t limit, n;
    struct cm_buf buf;
};

static void
read_cursor(const struct cm_request *req, const char *name,
            struct cm_record_id *id_r, struct cm_problems *problems)
{
    const char *text = cm_target_param(&req->target, name);
    if (text && cm_record_id_parse(text, id_r) != CM_OK)
        cm_problem_add(problems, name,
                       "%s must be the id of an event, such as "
                       "\"1700000000000-0\"",
                       name);
}

static void
read_limit(const struct cm_request *req, size_t *limit_r,
           struct cm_problems *problems)
{
    const char *text = cm_target_param(&req->target, "limit");
    char *end;
    *limit_r = CM_EVENTS_LIMIT;
    if (!text)
        return;
    long n = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || n < 1 ||
        n > CM_EVENTS_LIMIT_MAX)
        cm_problem_add(problems, "limit", "limit must be between 1 and %d",
                       CM_EVENTS_LIMIT_MAX);
    else
        *limit_r = (size_t)n;
}

static void
read_query(struct cm_api *api, const struct cm_request *req, struct page *page,
           struct cm_problems *problems)
{
    static const char *const others[] = {"after", "before", "limit", NULL};
    cm_event_filter_read(&page->filter, &req->target, api->address_flags,
                         api->settings->address.recipient_delimiter, others,
                         problems);
    read_limit(req, &page->limit, problems);
    page->newest_first = !cm_target_param(&req->target, "after");
    if (!page->newest_first) {
        read_cursor(req, "after", &page->from, problems);
        if (cm_target_param(&req->target, "before"))
            cm_problem_add(problems, "before",
                           "before and after exclude each other");
    } else {
        page->from = CM_RECORD_ID_MAX;
        read_cursor(req, "before", &page->from, problems);
    }
}

static bool
is_full(const struct page *page)
{
    return page->n == page->limit || page->buf.len > CM_EVENTS_BYTES;
}

static bool
add_event(void *arg, const struct cm_record *record)
{
    struct page *page = arg;
    if (!cm_event_filter_match(&page->filter, record))
        return true;
    if (page->n++ > 0)
        cm_buf_puts(&page->buf, ",");
    cm_event_print(&page->buf, record);
    return !is_full(page);
}

/* Fills the page; *more_r: there may be more behind page->from. */
static enum cm_status
fill(struct cm_api *api, struct page *page, bool *more_r, struct cm_err *err)
{
    size_t looked_at = 0, n = CM_CHRONICLE_PAGE_MAX;
    enum cm_status status = CM_OK;
    while (status == CM_OK && !is_full(page) && n == CM_CHRONICLE_PAGE_MAX &&
           looked_at < CM_EVENTS_LOOKED_AT) {
        status = cm_chronicle_page(api->commits, page->from, page->newest_first,
                                   CM_CHRONICLE_PAGE_MAX, add_event, page,
                                   &page->from, &n, err);
        looked_at += n;
    }
    *more_r = is_full(page) || n == CM_CHRONICLE_PAGE_MAX;
    return status;
}

void
cm_api_events(struct cm_api *api, const struct cm_request *req,
              struct cm_response *res)
{
    struct page page = {.n = 0};
    struct cm_problems problems;
    struct cm_err err = {CM_OK, ""};
    bool more = false;
    if (cm_api_stream_wanted(req)) {
        cm_api_stream(api, req, res);
        return;
    }
    cm_problems_init(&problems);
    read_query(api, req, &page, &problems);
    if (problems.n > 0) {
        cm_response_fail_all(res, req, 400, &problems);
        return;
    }
    cm_buf_init(&page.buf, CM_EVENTS_BYTES + CM_EVENTS_SLACK);
    cm_buf_puts(&page.buf, "{\"events\":[");
    enum cm_status status = fill(api, &page, &more, &err);
    if (status != CM_OK) {
        cm_api_failed(api, req, res, status, &err, false);
        cm_buf_fini(&page.buf);
        return;
    }
    char next[CM_RECORD_ID_BYTES];
    cm_record_id_print(page.from, next);
    if (page.newest_first && !more)
        cm_buf_puts(&page.buf, "],\"next\":null}");
    else
        cm_buf_printf(&page.buf, "],\"next\":\"%s\"}", next);
    size_t len;
    char *text = cm_buf_take(&page.buf, &len);
    cm_response_text(res, 200, "application/json; charset=utf-8", text, len);
}
