/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_LOCALSTACK_JSON_H
#define CM_LOCALSTACK_JSON_H

#include "milter/err.h"
#include "milter/model/problem.h"

struct cm_rule;
struct json_t; /* jansson's */

/*
 * The documents of LocalStack's chaos API, carried over to mail: a fault rule,
 *
 *     {"inbox": "*@example.com", "stage": "rcpt", "probability": 0.5,
 *      "error": {"statusCode": 451, "code": "4.3.0", "message": "Busy"}}
 *
 * all of whose members may be left out (service, region and operation are other
 * names of inbox, domain and stage; fault stands in the place of error and is
 * any fault of a rule document), and the effects,
 *
 *     {"latency": 200, "jitter": 50, "distribution": "uniform",
 *      "stage": "message"}
 */
/*
 * cm_localstack_compile - one fault rule as a rule of face fault.
 *
 * rule_r    the caller's storage, overwritten on CM_OK: then cm_rule_fini it
 * id        what it is called
 * prefix    put before each path and sentence: "", "[3]."
 * flags     as in cm_address_parse
 * problems  gets every fault, by the names of the members as they were given;
 *           not NULL
 *
 * CM_OK, CM_EINVAL (see problems), CM_ENOMEM.
 */
enum cm_status
cm_localstack_compile(struct cm_rule *rule_r, const char *id,
                      const struct json_t *doc, const char *prefix,
                      unsigned flags,
                      struct cm_problems *problems) CM_MUST_CHECK;

/*
 * cm_localstack_effect - the effects as a latency rule of face effect, named
 * "latency". As above, and CM_NOTFOUND: no delay at all, so there is no rule.
 *
 * Without jitter every delay is latency. With it delays are spread, evenly from
 * latency - jitter to latency + jitter (uniform, never below 0), or around the
 * median latency so that about five in six stay below latency + jitter
 * (lognormal).
 */
enum cm_status cm_localstack_effect(struct cm_rule *rule_r,
                                    const struct json_t *doc,
                                    struct cm_problems *problems) CM_MUST_CHECK;

#endif
