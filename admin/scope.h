/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SCOPE_H
#define CM_SCOPE_H

#include <stdbool.h>

struct json_t;

/* What a key may do; none implies another. */
enum cm_scope {
    CM_SCOPE_READ = 1 << 0,  /* look */
    CM_SCOPE_WRITE = 1 << 1, /* change what chaos there is */
    CM_SCOPE_HALT = 1 << 2   /* halt, and resume */
};
#define CM_SCOPES_ALL (CM_SCOPE_READ | CM_SCOPE_WRITE | CM_SCOPE_HALT)

/* cm_scopes_parse - from an array of names; false: it is none, or holds
 * another name. */
bool cm_scopes_parse(const struct json_t *list, unsigned *scopes_r);

/* cm_scopes_json - ["read", "write"]; a new reference, NULL without memory. */
struct json_t *cm_scopes_json(unsigned scopes);

/* cm_scopes_print - "read or halt" for a sentence; cap >= 32. */
void cm_scopes_print(unsigned scopes, const char *between, char *out,
                     unsigned cap);

#endif
