/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_API_PROMETHEUS_H
#define CM_API_PROMETHEUS_H

#include "admin/router.h"

/*
 * GET /metrics: the fleet for Prometheus. Totals that the filters keep in Redis
 * (chaosmilter_fleet_...), what each live filter said of itself in its last
 * heartbeat (chaosmilter_fleet_host_..., by host), and this daemon
 * (chaosmilter_admin_...). A filter's own page has other names, so a sum over
 * all that is scraped counts nothing twice. With Redis away the page tells that
 * and what is left.
 */
cm_route_fn cm_api_prometheus;

#endif
