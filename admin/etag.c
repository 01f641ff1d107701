/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Our tags are digits in quotes, so a list can be taken apart at its commas. A
 * tag that is not ours matches nothing, which is what a stale one should do.
 */
#include "admin/etag.h"
#include "admin/request.h"
#include "admin/response.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char blanks[] = " \t";

static bool
matches(const char *list, int64_t rev)
{
    char tag[32];
    int len = snprintf(tag, sizeof tag, "\"%" PRId64 "\"", rev);
    list += strspn(list, blanks);
    if (*list == '*')
        return rev > 0 && list[1 + strspn(list + 1, blanks)] == '\0';
    while (*list) {
        list += strspn(list, " \t,");
        size_t size = strcspn(list, ",");
        size_t bare = size;
        while (bare > 0 && strchr(blanks, list[bare - 1]))
            bare--;
        if (bare == (size_t)len && memcmp(list, tag, bare) == 0)
            return true;
        list += size;
    }
    return false;
}

bool
cm_etag_asked(const struct cm_request *req)
{
    return cm_request_header(req, "If-Match") ||
           cm_request_header(req, "If-None-Match");
}

bool
cm_etag_holds(const struct cm_request *req, int64_t rev)
{
    const char *match = cm_request_header(req, "If-Match");
    const char *none = cm_request_header(req, "If-None-Match");
    if (match && !matches(match, rev))
        return false;
    return !none || !matches(none, rev);
}

void
cm_etag_set(struct cm_response *res, int64_t rev)
{
    cm_response_header(res, "ETag", "\"%" PRId64 "\"", rev);
}
