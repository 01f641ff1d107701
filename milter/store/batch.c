/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A batch is a flat list of words, so that redis-cli can say it, too. MULTI was
 * rejected: what is wrong with the last command of a transaction does not undo
 * the first.
 */
#include "milter/store/batch.h"
#include "milter/store/commit_call.h"
#include "milter/store/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_WORDS_BEFORE 3 /* the key, "batch", the actor */
#define CM_WORDS_EACH   6
#define CM_NUMBER_BYTES 24

struct words {
    const char **at;
    size_t *lens;
    char (*numbers)[CM_NUMBER_BYTES]; /* two for each change */
    int n;
};

static void
put(struct words *words, const char *word, size_t len)
{
    words->at[words->n] = word;
    words->lens[words->n++] = len;
}

static void
put_text(struct words *words, const char *text)
{
    put(words, text, strlen(text));
}

static void
put_change(struct words *words, const struct cm_change *change, size_t i)
{
    static const char *const names[] = {[CM_CHANGE_SET] = "set",
                                        [CM_CHANGE_DEL] = "del",
                                        [CM_CHANGE_MOVE] = "move",
                                        [CM_CHANGE_AT] = "at"};
    put_text(words, names[change->what]);
    put_text(words, cm_kind_name(change->kind));
    if (change->what != CM_CHANGE_AT)
        put_text(words, change->name);
    put_text(words, cm_commit_print_rev(words->numbers[2 * i], change->rev));
    if (change->what != CM_CHANGE_SET && change->what != CM_CHANGE_MOVE)
        return;
    put_text(words, change->place == CM_PLACE_USUAL
                        ? "*"
                        : cm_commit_print_rev(words->numbers[2 * i + 1],
                                              change->place));
    if (change->what == CM_CHANGE_SET)
        put(words, change->doc, change->len);
}

/* "change 7: inbox:a@example.com is at revision 3, ...", counted from 1. */
static size_t
find_failed(const struct cm_err *err, size_t n)
{
    unsigned long number = 0;
    bool named = sscanf(err->msg, "change %lu:", &number) == 1;
    return named && number >= 1 && number <= n ? number - 1 : n;
}

static enum cm_status
send(struct cm_commits *commits, const struct words *words, size_t n,
     int64_t *seq_r, struct cm_err *err)
{
    struct redisReply *reply = NULL;
    struct cm_commits patient = *commits;
    patient.timeout_ms += (int)n;
    enum cm_status st = cm_commit_call(&patient, &commits->documents, &reply, 1,
                                       words->n, words->at, words->lens, err);
    if (st == CM_OK &&
        (reply->type != REDIS_REPLY_ARRAY || reply->elements < 4 ||
         reply->element[3]->type != REDIS_REPLY_INTEGER))
        st = cm_commit_unexpected(err);
    else if (st == CM_OK && seq_r)
        *seq_r = reply->element[3]->integer;
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_batch(struct cm_commits *commits, const struct cm_change *changes,
                size_t n, int64_t *seq_r, size_t *failed_r, struct cm_err *err)
{
    struct cm_err local, *why = err ? err : &local;
    struct words words = {NULL, NULL, NULL, 0};
    enum cm_status st;
    if (failed_r)
        *failed_r = n;
    if (n > CM_BATCH_CHANGES_MAX)
        return cm_err_set(err, CM_EINVAL, "a batch has at most %d changes",
                          CM_BATCH_CHANGES_MAX);
    size_t room = CM_WORDS_BEFORE + CM_WORDS_EACH * n;
    words.at = calloc(room, sizeof *words.at);
    words.lens = calloc(room, sizeof *words.lens);
    words.numbers = calloc(2 * n + 1, sizeof *words.numbers);
    if (!words.at || !words.lens || !words.numbers) {
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
        goto out;
    }
    put_text(&words, commits->keys.seq);
    put_text(&words, "batch");
    put_text(&words, commits->actor);
    for (size_t i = 0; i < n; i++)
        put_change(&words, &changes[i], i);
    st = send(commits, &words, n, seq_r, why);
    if (failed_r && (st == CM_ECONFLICT || st == CM_EINVAL))
        *failed_r = find_failed(why, n);
out:
    free(words.at);
    free(words.lens);
    free(words.numbers);
    return st;
}
