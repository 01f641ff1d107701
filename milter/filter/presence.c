/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection that was not found in the beginning (a proxy, a remote MTA,
 * another network namespace, a system without this table) says nothing when it
 * is not found later, so only one that was there can be gone; its cookie tells
 * it from a later one with the same addresses.
 *
 * One netlink socket for the process, opened when it is first wanted: whoever
 * never delays never has it. Rejected: the descriptor of the connection itself,
 * which is the MTA's, and what would take a capability to share.
 */
#include "milter/filter/presence.h"

#include <pthread.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    bool tried;
    struct cm_sockdiag diag; /* fd -1: this system has none */
} self = {.lock = PTHREAD_MUTEX_INITIALIZER, .diag.fd = -1};

/* Under the lock. */
static bool
is_ready(void)
{
    if (!self.tried && cm_sockdiag_open(&self.diag, NULL) != CM_OK)
        self.diag.fd = -1;
    self.tried = true;
    return self.diag.fd >= 0;
}

void
cm_presence_begin(struct cm_presence *presence_r, const struct cm_tuple *tuple)
{
    memset(presence_r, 0, sizeof *presence_r);
    if (!tuple || cm_sockdiag_must_walk(tuple))
        return;
    pthread_mutex_lock(&self.lock);
    presence_r->known =
        is_ready() &&
        cm_sockdiag_find(&self.diag, tuple, &presence_r->conn, NULL) == CM_OK;
    pthread_mutex_unlock(&self.lock);
}

enum cm_presence_now
cm_presence_look(const struct cm_presence *presence)
{
    struct cm_sockdiag_conn now;
    if (!presence->known)
        return CM_PRESENCE_UNKNOWN;
    pthread_mutex_lock(&self.lock);
    enum cm_status status =
        cm_sockdiag_find_again(&self.diag, &presence->conn, &now, NULL);
    pthread_mutex_unlock(&self.lock);
    if (status == CM_NOTFOUND)
        return CM_PRESENCE_GONE;
    if (status != CM_OK)
        return CM_PRESENCE_UNKNOWN;
    return now.client_closed && !presence->conn.client_closed
               ? CM_PRESENCE_CLOSED
               : CM_PRESENCE_HERE;
}
