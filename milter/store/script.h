/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SCRIPT_H
#define CM_SCRIPT_H

#include "milter/store/link.h"

/*
 * A Lua script that Redis runs atomically: by its SHA-1, and once more with its
 * text when Redis does not know it (yet, or after SCRIPT FLUSH or a failover).
 */
struct cm_script {
    const char *text; /* borrowed */
    char sha[41];
};

/* Up to so many arguments a call allocates nothing. */
#define CM_SCRIPT_ARGS_USUAL 48

/* cm_script_init - CM_OK, or CM_EIO when the library has no SHA-1 to give. */
enum cm_status cm_script_init(struct cm_script *script, const char *text,
                              struct cm_err *err) CM_MUST_CHECK;

/*
 * cm_script_run - argv holds nkeys keys, then arguments; argc of both together.
 * The rest as in cm_link_command, or CM_ENOMEM; timeout_ms is over both tries.
 */
enum cm_status cm_script_run(const struct cm_script *script,
                             struct cm_link *link, struct redisReply **reply_r,
                             int nkeys, int argc, const char *const *argv,
                             const size_t *lens, int timeout_ms,
                             enum cm_redis_class *class_r,
                             struct cm_err *err) CM_MUST_CHECK;

#endif
