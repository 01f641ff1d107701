/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/script.h"
#include "milter/clock.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum cm_status
cm_script_init(struct cm_script *script, const char *text, struct cm_err *err)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(text, strlen(text), md, &len, EVP_sha1(), NULL) != 1 ||
        len != 20)
        return cm_err_set(err, CM_EIO,
                          "libcrypto has no SHA-1, which names "
                          "scripts in Redis");
    for (unsigned i = 0; i < len; i++)
        snprintf(script->sha + 2 * i, 3, "%02x", md[i]);
    script->text = text;
    return CM_OK;
}

enum cm_status
cm_script_run(const struct cm_script *script, struct cm_link *link,
              struct redisReply **reply_r, int nkeys, int argc,
              const char *const *argv, const size_t *lens, int timeout_ms,
              enum cm_redis_class *class_r, struct cm_err *err)
{
    const char *all[CM_SCRIPT_ARGS_MAX + 3];
    size_t all_lens[CM_SCRIPT_ARGS_MAX + 3];
    char number[16];
    enum cm_redis_class class;
    assert(argc <= CM_SCRIPT_ARGS_MAX);

    int64_t deadline_ms = cm_clock_mono_ms() + timeout_ms;
    snprintf(number, sizeof number, "%d", nkeys);
    all[0] = "EVALSHA";
    all[1] = script->sha;
    all[2] = number;
    for (int i = 0; i < argc; i++)
        all[i + 3] = argv[i];
    for (int i = 0; i < argc + 3; i++)
        all_lens[i] = i >= 3 && lens ? lens[i - 3] : strlen(all[i]);
    enum cm_status st =
        cm_link_command(link, reply_r, argc + 3, all, all_lens,
                        timeout_ms > 0 ? timeout_ms : 1, &class, err);
    if (st == CM_EPROTO && class == CM_REDIS_NOSCRIPT) {
        int64_t left = deadline_ms - cm_clock_mono_ms();
        all[0] = "EVAL";
        all_lens[0] = strlen("EVAL");
        all[1] = script->text;
        all_lens[1] = strlen(script->text);
        st = cm_link_command(link, reply_r, argc + 3, all, all_lens,
                             left < 1 ? 1 : (int)left, &class, err);
    }
    if (class_r)
        *class_r = class;
    return st;
}
