/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_KEYS_H
#define CM_KEYS_H

#include "milter/err.h"

/*
 * The names in Redis, made from the prefix in one place. The prefix carries a
 * hash tag ("{cm}"), so that in a cluster all of them live in one slot. What
 * the script of documents uses is spelt out in chaosmilter.lua once more.
 *
 *   :epoch     random id of this data set, made with the first commit
 *   :seq       number of the last commit, dense
 *   :cfg:K     a document in its envelope; K is "inbox:a@example.com"
 *   :idx       sorted set of all K, for paging
 *   :log       stream of changes
 *   :kinds     number of the last change of each kind of document
 *   :tomb:K    last revision of a deleted document, for a day
 *   :halt      stream of one entry: is everything halted, by whom, why
 *   :audit     stream of who changed what; :audit:inbox for inboxes
 *   :keys      hash of API keys
 *   :ev        stream of events
 *   :st:...    state of the filters: hosts, totals, greylist and other counters
 */
#define CM_KEYS_PREFIX_MAX 48
#define CM_KEYS_TEXT       80

struct cm_keys {
    char prefix[CM_KEYS_PREFIX_MAX + 1];
    char epoch[CM_KEYS_TEXT], seq[CM_KEYS_TEXT], idx[CM_KEYS_TEXT],
        log[CM_KEYS_TEXT], cfg[CM_KEYS_TEXT] /* with the last colon */;
    char halt[CM_KEYS_TEXT], audit[CM_KEYS_TEXT], audit_inbox[CM_KEYS_TEXT];
    char api_keys[CM_KEYS_TEXT];
    char events[CM_KEYS_TEXT], hosts[CM_KEYS_TEXT], totals[CM_KEYS_TEXT],
        rules[CM_KEYS_TEXT] /* hits of each */;
};

/* cm_keys_init - CM_OK or CM_EINVAL (a prefix is 1 to CM_KEYS_PREFIX_MAX of
 * letters, digits and "{}._:-"). */
enum cm_status cm_keys_init(struct cm_keys *keys, const char *prefix,
                            struct cm_err *err) CM_MUST_CHECK;

#endif
