/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MAILPIT_JSON_H
#define CM_MAILPIT_JSON_H

#include "milter/err.h"
#include "milter/model/mailpit.h"

struct json_t; /* jansson's */

/*
 * The triggers as Mailpit's API has them,
 * {"Sender":{"ErrorCode":451,"Probability":0},"Recipient":...}, and one by one
 * as they are stored. Member names are read without case; `null` is absent; a
 * code of 0 or absent is the trigger's default, an absent probability 0.
 *
 * cm_triggers_read - CM_OK, or CM_EINVAL with Mailpit's words where it has any:
 * the first fault in the order sender, recipient, authentication. On failure
 * nothing is written.
 */
enum cm_status cm_triggers_read(struct cm_triggers *triggers_r,
                                const struct json_t *json,
                                struct cm_err *err) CM_MUST_CHECK;
/* cm_trigger_read - the same for one of them, {"ErrorCode":451,...}. */
enum cm_status cm_trigger_read(struct cm_trigger_setting *setting_r,
                               enum cm_trigger trigger,
                               const struct json_t *json,
                               struct cm_err *err) CM_MUST_CHECK;

/* cm_triggers_json, cm_trigger_json - as the API answers them; a new reference,
 * NULL when out of memory. */
struct json_t *cm_triggers_json(const struct cm_triggers *triggers);
struct json_t *cm_trigger_json(const struct cm_trigger_setting *setting);

#endif
