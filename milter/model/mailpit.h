/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_MAILPIT_H
#define CM_MAILPIT_H

#include "milter/err.h"

struct cm_rule;

/*
 * Mailpit's chaos: three triggers, each with the code of its error and the
 * probability in percent. What a trigger answers has no enhanced status code:
 * "451 Chaos sender error". Source: runs of Mailpit and its documentation.
 */
enum cm_trigger {
    CM_TRIGGER_SENDER,         /* at MAIL */
    CM_TRIGGER_RECIPIENT,      /* at each RCPT, each by a draw of its own */
    CM_TRIGGER_AUTHENTICATION, /* at AUTH, before credentials are looked at */
    CM_TRIGGER_COUNT
};

#define CM_TRIGGER_CODE_TEXT    "error code must be between 400 and 599"
#define CM_TRIGGER_PERCENT_TEXT "probability must be between 0 and 100"

struct cm_trigger_setting {
    int code;    /* 400..599 */
    int percent; /* 0..100 */
};
struct cm_triggers {
    struct cm_trigger_setting at[CM_TRIGGER_COUNT];
};

/* cm_trigger_name - "Sender", ... as the API spells it; cm_trigger_key - in
 * lower case, as a document is named. Static. */
const char *cm_trigger_name(enum cm_trigger trigger);
const char *cm_trigger_key(enum cm_trigger trigger);
/* cm_trigger_find - by name, without case. CM_OK or CM_NOTFOUND. */
enum cm_status cm_trigger_find(const char *name,
                               enum cm_trigger *trigger_r) CM_MUST_CHECK;

/* cm_triggers_default - 451, 451 and 535, and none ever fires. */
void cm_triggers_default(struct cm_triggers *triggers_r);

/* cm_trigger_check - NULL when the setting is in range, else Mailpit's words
 * for what is not; the code first. */
const char *cm_trigger_check(long long code, long long percent);

/*
 * cm_triggers_parse - the list that --chaos-triggers takes:
 * "Sender:451:50, auth:535:10". Names without case (also recipients, auth),
 * blanks around an item; the last of two equal names wins, and what is not
 * named has its default. CM_OK, or CM_EINVAL with the item in err.
 */
enum cm_status cm_triggers_parse(struct cm_triggers *triggers_r,
                                 const char *list,
                                 struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_trigger_compile - the trigger as a rule named by its key. rule_r is the
 * caller's storage, overwritten on CM_OK: then cm_rule_fini it. CM_NOTFOUND: it
 * never fires, so there is no rule; CM_ENOMEM.
 */
enum cm_status
cm_trigger_compile(struct cm_rule *rule_r, enum cm_trigger trigger,
                   const struct cm_trigger_setting *setting) CM_MUST_CHECK;

#endif
