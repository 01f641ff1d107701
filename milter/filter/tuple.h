/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TUPLE_H
#define CM_TUPLE_H

#include "milter/err.h"
#include "milter/model/event.h"

#include <stdbool.h>

/*
 * One TCP connection, seen from the MTA: who is at its two ends. IPv4 is held
 * as IPv4 even where the MTA listens on [::] and the kernel says
 * ::ffff:192.0.2.1. Both ends are of one family and both ports are known.
 */
struct cm_tuple {
    struct cm_client client;
    struct cm_client mta; /* address all zero: not known, any of the host's */
};

/*
 * cm_tuple_make - from what the MTA tells a milter.
 *
 * client       from xxfi_connect's address (cm_client_from_sockaddr)
 * daemon_addr  the macro {daemon_addr}, or NULL when the MTA does not send it.
 *              Postfix says "192.0.2.1", "2001:db8::1" or "IPv6:2001:db8::1",
 *              the address that the client reached. Sendmail says what its
 *              listener is bound to, so also "0.0.0.0" or
 *              "IPv6:0:0:0:0:0:0:0:0". A zone ("%eth0") is passed over.
 * daemon_port  the macro {daemon_port}, decimal; NULL is refused
 * tuple_r      written only on CM_OK
 * err          may be NULL
 *
 * Returns CM_OK; CM_EINVAL: no TCP client, a text that is neither, or two
 * families that cannot meet. Allocates nothing. Thread-safe.
 */
enum cm_status cm_tuple_make(struct cm_tuple *tuple_r,
                             const struct cm_client *client,
                             const char *daemon_addr, const char *daemon_port,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_tuple_valid - is it as the struct promises? For tuples that came from
 * another process. */
bool cm_tuple_valid(const struct cm_tuple *tuple);

/* cm_tuple_any_mta - is the MTA's address not known? */
bool cm_tuple_any_mta(const struct cm_tuple *tuple);

/* cm_tuple_end_equal - the same family, address and port. */
bool cm_tuple_end_equal(const struct cm_client *a, const struct cm_client *b);

/* cm_tuple_addr_bytes - 4 or 16: how much of end->addr counts. */
size_t cm_tuple_addr_bytes(const struct cm_client *end);

#endif
