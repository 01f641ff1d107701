/* SPDX-License-Identifier: BSD-2-Clause */
#include "milter/store/script.h"
#include "milter/clock.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
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

/* The words of EVALSHA or EVAL; what the script takes begins at the third. */
struct words {
    const char **at;
    size_t *lens;
    int n;
};

static void
put_words(struct words *words, const char *command, const char *script)
{
    words->at[0] = command;
    words->lens[0] = strlen(command);
    words->at[1] = script;
    words->lens[1] = strlen(script);
}

static enum cm_status
run(const struct cm_script *script, struct cm_link *link,
    struct redisReply **reply_r, struct words *words, int timeout_ms,
    enum cm_redis_class *class_r, struct cm_err *err)
{
    int64_t deadline_ms = cm_clock_mono_ms() + timeout_ms;
    put_words(words, "EVALSHA", script->sha);
    enum cm_status st =
        cm_link_command(link, reply_r, words->n, words->at, words->lens,
                        timeout_ms > 0 ? timeout_ms : 1, class_r, err);
    if (st == CM_EPROTO && *class_r == CM_REDIS_NOSCRIPT) {
        int64_t left = deadline_ms - cm_clock_mono_ms();
        put_words(words, "EVAL", script->text);
        st = cm_link_command(link, reply_r, words->n, words->at, words->lens,
                             left < 1 ? 1 : (int)left, class_r, err);
    }
    return st;
}

enum cm_status
cm_script_run(const struct cm_script *script, struct cm_link *link,
              struct redisReply **reply_r, int nkeys, int argc,
              const char *const *argv, const size_t *lens, int timeout_ms,
              enum cm_redis_class *class_r, struct cm_err *err)
{
    const char *few[CM_SCRIPT_ARGS_USUAL + 3];
    size_t few_lens[CM_SCRIPT_ARGS_USUAL + 3];
    struct words words = {few, few_lens, argc + 3};
    char number[16];
    enum cm_redis_class class;
    enum cm_status st = CM_ENOMEM;
    if (argc > CM_SCRIPT_ARGS_USUAL) {
        words.at = calloc((size_t)words.n, sizeof *words.at);
        words.lens = calloc((size_t)words.n, sizeof *words.lens);
    }
    if (words.at && words.lens) {
        snprintf(number, sizeof number, "%d", nkeys);
        words.at[2] = number;
        words.lens[2] = strlen(number);
        for (int i = 0; i < argc; i++) {
            words.at[i + 3] = argv[i];
            words.lens[i + 3] = lens ? lens[i] : strlen(argv[i]);
        }
        st = run(script, link, reply_r, &words, timeout_ms,
                 class_r ? class_r : &class, err);
    } else {
        cm_err_set(err, st, "out of memory");
    }
    if (words.at != few) {
        free(words.at);
        free(words.lens);
    }
    return st;
}
