/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_FAULT_LIST_H
#define CM_FAULT_LIST_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_commits;
struct cm_problems;
struct json_t;

/*
 * LocalStack's fault rules: one ordered list, each rule a document of its own.
 * Rules have no names there and are told apart by what they say, so two rules
 * are the same when they are equal as JSON.
 */
#define CM_FAULT_LIST_MAX       10000
#define CM_FAULT_LIST_BYTES_MAX ((size_t)4 * 1024 * 1024) /* of all texts */

struct cm_fault_rule {
    char *name;       /* owned; of its document; NULL: not stored yet */
    char *text;       /* owned; as it was given; NULL: broken, below */
    size_t len;       /* of text */
    char *canonical;  /* owned; equal rules have equal ones; NULL: broken */
    int64_t place;    /* CM_PLACE_USUAL for a new one: behind all others */
    bool moved, twin; /* private */
};
struct cm_fault_list {
    int64_t at;                  /* number of the last change, see listing.h */
    size_t n;                    /* rules that can be read, in their order */
    size_t nbroken;              /* and what somebody else put beside them */
    struct cm_fault_rule *rules; /* owned; first n, then nbroken */
};
void cm_fault_list_fini(struct cm_fault_list *list);

/*
 * cm_fault_list_parse - the body of a request: an array of rules, no two of
 * them equal. CM_OK; CM_EINVAL: problems names every fault by its place
 * ("[3].probability ..."); CM_ENOMEM. list_r is cm_fault_list_fini's in any
 * case. flags as in cm_address_parse.
 */
enum cm_status cm_fault_list_parse(struct cm_fault_list *list_r,
                                   const struct json_t *json, unsigned flags,
                                   struct cm_problems *problems) CM_MUST_CHECK;

/* cm_fault_list_read - what is stored now. As cm_commit_read; list_r is
 * cm_fault_list_fini's in any case. */
enum cm_status cm_fault_list_read(struct cm_commits *commits,
                                  struct cm_fault_list *list_r,
                                  struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_fault_list_edit - make of the list that is stored and of the one that was
 * given the list that is to be; its rules are taken out of the two. CM_OK;
 * CM_EINVAL: it would be larger than the limits above (err says so); CM_ENOMEM.
 * result_r is cm_fault_list_fini's in any case.
 */
enum cm_fault_list_edit {
    CM_FAULT_LIST_REPLACE,
    CM_FAULT_LIST_APPEND, /* what is not there yet */
    CM_FAULT_LIST_PREPEND,
    CM_FAULT_LIST_REMOVE /* what equals a given rule */
};
enum cm_status cm_fault_list_edit(struct cm_fault_list *result_r,
                                  struct cm_fault_list *stored,
                                  struct cm_fault_list *given,
                                  enum cm_fault_list_edit edit,
                                  struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_fault_list_commit - store the result of an edit in one batch, if the list
 * is still the one that was read; result->at is its number then. rest is what
 * the edit left of the stored list: rules that go. As cm_commit_batch.
 */
enum cm_status cm_fault_list_commit(struct cm_commits *commits,
                                    struct cm_fault_list *result,
                                    const struct cm_fault_list *rest,
                                    struct cm_err *err) CM_MUST_CHECK;

#endif
