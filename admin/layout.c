/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Measured with raw sockets on libmicrohttpd 0.9.75: it takes a bare LF for a
 * line's end, skips blanks, cuts a value at NUL, and folds a continuation line
 * into the *name* of the header before it ("Content-Lengt: 5", " h" becomes
 * Content-Length), each of which a proxy in front may understand otherwise.
 * Nothing of that shows in what it hands over. But it parses in place, putting
 * a NUL where each piece ends, so every one of them leaves the pieces a byte or
 * more away from where they would stand otherwise.
 *
 * Addresses are compared as numbers: pieces of a folded line lie elsewhere.
 */
#include "admin/layout.h"
#include "admin/request.h"

#include <stdint.h>
#include <string.h>

bool
cm_layout_adds_up(const struct cm_layout *layout)
{
    uintptr_t at = (uintptr_t)layout->method;
    uintptr_t end = at + layout->len;
    at += strlen(layout->method) + 1;
    if ((uintptr_t)layout->target != at)
        return false;
    at += layout->target_len + 1;
    if ((uintptr_t)layout->version != at)
        return false;
    at += strlen(layout->version) + 2;
    for (size_t i = 0; i < layout->nheader; i++) {
        const struct cm_header *header = &layout->header[i];
        uintptr_t value = (uintptr_t)header->value;
        if ((uintptr_t)header->name != at ||
            value <= at + strlen(header->name) || value >= end)
            return false;
        at = value + strlen(header->value) + 2;
    }
    return at + 2 == end;
}
