/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/filter/flow.h"

#include <sys/socket.h>

enum cm_status
cm_flow_open(struct cm_flow *flow_r, size_t cap)
{
    *flow_r = (struct cm_flow){.ended = false};
    return cm_secret_open(&flow_r->bytes, cap);
}

void
cm_flow_close(struct cm_flow *flow)
{
    cm_secret_close(&flow->bytes);
    flow->ended = true;
}

void
cm_flow_receive(struct cm_flow *flow, int from)
{
    enum cm_secret_got got = CM_SECRET_NONE;
    while (cm_flow_has_room(flow) &&
           (got = cm_secret_receive(&flow->bytes, from)) == CM_SECRET_SOME)
        ;
    flow->ended = flow->ended || got == CM_SECRET_END;
}

enum cm_status
cm_flow_send(struct cm_flow *flow, int to)
{
    if (cm_secret_send(&flow->bytes, to) != CM_OK) {
        cm_secret_forget(&flow->bytes, flow->bytes.len);
        flow->ended = flow->told = true;
        return CM_EIO;
    }
    if (flow->ended && flow->bytes.len == 0 && !flow->told) {
        shutdown(to, SHUT_WR);
        flow->told = true;
    }
    return CM_OK;
}

bool
cm_flow_has_room(const struct cm_flow *flow)
{
    return !flow->ended && flow->bytes.len < flow->bytes.cap;
}

bool
cm_flow_waits(const struct cm_flow *flow)
{
    return flow->bytes.len > 0;
}
