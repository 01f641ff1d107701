/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Documents, by way of the script in chaosmilter.lua, which is compiled in as
 * text (commit_lua). MULTI with WATCH was rejected: it takes four round trips
 * and cannot be typed into redis-cli by a person. Reading one document is a
 * plain GETRANGE, so that a value of any size costs no more than a document's.
 */
#include "milter/store/commit.h"
#include "milter/buf.h"
#include "milter/clock.h"
#include "milter/model/inbox.h"
#include "milter/store/commit_call.h"
#include "milter/store/commit_lua.h"
#include "milter/store/envelope.h"
#include "milter/store/redis.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_LIBRARY_NAME "chaosmilter"
#define CM_LIST_MAX     10000

static const char add_totals_lua[] =
    "for i = 1, #ARGV, 2 do\n"
    "    redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])\n"
    "end\n"
    "return 1\n";

const char *
cm_commit_print_rev(char out[24], int64_t rev)
{
    if (rev == CM_REV_ANY)
        return "*";
    snprintf(out, 24, "%" PRId64, rev);
    return out;
}

const char *
cm_kind_name(enum cm_kind kind)
{
    static const char *const names[] = {
        [CM_KIND_INBOX] = "inbox",   [CM_KIND_RULE] = "rule",
        [CM_KIND_FAULT] = "fault",   [CM_KIND_TRIGGER] = "trigger",
        [CM_KIND_EFFECT] = "effect", [CM_KIND_BOX] = "box"};
    assert(kind < CM_KIND_COUNT);
    return names[kind];
}

/* --- the script --- */

/* Appends the text up to the line `mark`, then line in its place; returns what
 * follows. */
static const char *
put_line(struct cm_buf *buf, const char *text, const char *mark,
         const char *line)
{
    const char *at = strstr(text, mark);
    assert(at); /* chaosmilter.lua has lost the line */
    cm_buf_add(buf, text, (size_t)(at - text));
    cm_buf_puts(buf, line);
    return at + strlen(mark);
}

static enum cm_status
make_library(struct cm_commits *commits, bool fold_local, struct cm_err *err)
{
    struct cm_buf buf;
    char line[CM_KEYS_TEXT];
    cm_buf_init(&buf, sizeof commit_lua + sizeof line);
    snprintf(line, sizeof line, "local prefix = '%s'", commits->keys.prefix);
    const char *rest =
        put_line(&buf, commit_lua, "local prefix = '{cm}'", line);
    rest = put_line(&buf, rest, "local fold_local = true",
                    fold_local ? "local fold_local = true"
                               : "local fold_local = false");
    cm_buf_puts(&buf, rest);
    commits->library = cm_buf_take(&buf, NULL);
    if (!commits->library)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    const char *script = strchr(commits->library, '\n') + 1;
    cm_buf_init(&buf, sizeof commit_lua + 2 * sizeof line);
    cm_buf_printf(&buf, "#!lua flags=allow-oom\n%s", script);
    commits->urgent_text = cm_buf_take(&buf, NULL);
    if (!commits->urgent_text)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status st = cm_script_init(&commits->documents, script, err);
    if (st == CM_OK)
        st = cm_script_init(&commits->urgent, commits->urgent_text, err);
    return st;
}

enum cm_status
cm_commits_new(struct cm_commits **commits_r, struct cm_pool *pool,
               const char *prefix, bool fold_local, int timeout_ms,
               struct cm_err *err)
{
    struct cm_commits *commits = calloc(1, sizeof *commits);
    if (!commits)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    commits->pool = pool;
    commits->timeout_ms = timeout_ms;
    snprintf(commits->actor, sizeof commits->actor, "chaosadmin");
    enum cm_status st = cm_keys_init(&commits->keys, prefix, err);
    if (st == CM_OK)
        st = make_library(commits, fold_local, err);
    if (st == CM_OK)
        st = cm_script_init(&commits->add_totals, add_totals_lua, err);
    if (st != CM_OK)
        cm_commits_free(&commits);
    *commits_r = commits;
    return st;
}

void
cm_commits_free(struct cm_commits **commits)
{
    if (!*commits)
        return;
    if (!(*commits)->borrows) {
        free((*commits)->library);
        free((*commits)->urgent_text);
    }
    free(*commits);
    *commits = NULL;
}

struct cm_commits *
cm_commits_as(const struct cm_commits *commits, const char *actor)
{
    struct cm_commits *mine = malloc(sizeof *mine);
    if (!mine)
        return NULL;
    *mine = *commits;
    mine->borrows = true;
    snprintf(mine->actor, sizeof mine->actor, "%s", actor);
    return mine;
}

/* --- calling --- */

/* Our own scripts' words without "Redis: CMINVALID ", for people to read. */
static enum cm_status
sentence(enum cm_status st, struct cm_err *err)
{
    static const char head[] = "Redis: ";
    const char *text = err->msg;
    if (strncmp(text, head, sizeof head - 1) == 0)
        text += sizeof head - 1;
    const char *blank = strchr(text, ' ');
    if (blank)
        text = blank + 1;
    memmove(err->msg, text, strlen(text) + 1);
    err->code = st;
    return st;
}

enum cm_status
cm_commit_call(struct cm_commits *commits, const struct cm_script *script,
               struct redisReply **reply_r, int nkeys, int argc,
               const char *const *argv, const size_t *lens, struct cm_err *err)
{
    struct cm_err local, *why = err ? err : &local;
    enum cm_redis_class class = CM_REDIS_GONE;
    struct cm_link *link = NULL;
    int64_t deadline_ms = cm_clock_mono_ms() + commits->timeout_ms;
    enum cm_status st =
        cm_pool_get(commits->pool, &link, commits->timeout_ms, why);
    if (st != CM_OK)
        return st;
    int64_t left = deadline_ms - cm_clock_mono_ms();
    int timeout_ms = left < 1 ? 1 : (int)left;
    if (script)
        st = cm_script_run(script, link, reply_r, nkeys, argc, argv, lens,
                           timeout_ms, &class, why);
    else
        st = cm_link_command(link, reply_r, argc, argv, lens, timeout_ms,
                             &class, why);
    if (class == CM_REDIS_READONLY || class == CM_REDIS_MOVED)
        cm_pool_retire(commits->pool, &link);
    else
        cm_pool_put(commits->pool, &link);
    if (class == CM_REDIS_CONFLICT)
        return sentence(CM_ECONFLICT, why);
    if (class == CM_REDIS_INVALID)
        return sentence(CM_EINVAL, why);
    return st;
}

enum cm_status
cm_commit_unexpected(struct cm_err *err)
{
    return cm_err_set(err, CM_EPROTO, "Redis: a reply of an unexpected kind");
}

/* --- the library --- */

static const struct redisReply *
library_code(const struct redisReply *list)
{
    if (list->type != REDIS_REPLY_ARRAY || list->elements == 0 ||
        list->element[0]->type != REDIS_REPLY_ARRAY)
        return NULL;
    const struct redisReply *library = list->element[0];
    for (size_t i = 0; i + 1 < library->elements; i += 2)
        if (library->element[i]->type == REDIS_REPLY_STRING &&
            strcmp(library->element[i]->str, "library_code") == 0 &&
            library->element[i + 1]->type == REDIS_REPLY_STRING)
            return library->element[i + 1];
    return NULL;
}

/* Functions belong to the whole server, whatever the prefix: those of another
 * fleet must not be replaced, or its operators would write to ours. */
static bool
is_foreign(const struct cm_commits *commits, const char *code)
{
    char line[CM_KEYS_TEXT];
    snprintf(line, sizeof line, "local prefix = '%s'", commits->keys.prefix);
    return strstr(code, line) == NULL;
}

enum cm_status
cm_commits_load_library(struct cm_commits *commits, struct cm_err *err)
{
    struct cm_err local, *why = err ? err : &local;
    struct redisReply *reply = NULL;
    const char *list[] = {"FUNCTION", "LIST", "LIBRARYNAME", CM_LIBRARY_NAME,
                          "WITHCODE"};
    const char *load[] = {"FUNCTION", "LOAD", "REPLACE", commits->library};
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 5, list, NULL, why);
    if (st == CM_EPROTO && strstr(why->msg, "unknown command"))
        return cm_err_set(err, CM_NOTFOUND,
                          "this Redis has no functions (before 7.0)");
    if (st != CM_OK)
        return st;
    const struct redisReply *code = library_code(reply);
    bool same = code && strcmp(code->str, commits->library) == 0;
    bool foreign = code && is_foreign(commits, code->str);
    cm_link_reply_free(&reply);
    if (same)
        return CM_OK;
    if (foreign)
        return cm_err_set(err, CM_ECONFLICT,
                          "Redis holds the function library " CM_LIBRARY_NAME
                          " with another prefix; it was left alone, so "
                          "FCALL cm_set does not write to %s",
                          commits->keys.prefix);
    st = cm_commit_call(commits, NULL, &reply, 0, 4, load, NULL, why);
    cm_link_reply_free(&reply);
    return st;
}

/* --- documents --- */

void
cm_doc_fini(struct cm_doc *doc)
{
    free(doc->text);
    memset(doc, 0, sizeof *doc);
}

enum cm_status
cm_commit_set(struct cm_commits *commits, enum cm_kind kind, const char *name,
              const char *doc, size_t len, int64_t rev, int64_t *rev_r,
              struct cm_err *err)
{
    char number[24];
    const char *argv[] = {commits->keys.seq,
                          "set",
                          cm_kind_name(kind),
                          name,
                          doc,
                          cm_commit_print_rev(number, rev),
                          commits->actor};
    const size_t lens[] = {
        strlen(argv[0]), strlen(argv[1]), strlen(argv[2]), strlen(name), len,
        strlen(argv[5]), strlen(argv[6])};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_commit_call(commits, &commits->documents, &reply, 1,
                                       7, argv, lens, err);
    if (st != CM_OK)
        return st;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 4 ||
        reply->element[1]->type != REDIS_REPLY_INTEGER)
        st = cm_commit_unexpected(err);
    else if (rev_r)
        *rev_r = reply->element[1]->integer;
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_del(struct cm_commits *commits, enum cm_kind kind, const char *name,
              int64_t rev, struct cm_err *err)
{
    char number[24];
    const char *argv[] = {commits->keys.seq,
                          "del",
                          cm_kind_name(kind),
                          name,
                          cm_commit_print_rev(number, rev),
                          commits->actor};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_commit_call(commits, &commits->documents, &reply, 1,
                                       6, argv, NULL, err);
    if (st != CM_OK)
        return st;
    if (reply->type == REDIS_REPLY_NIL)
        st = cm_err_set(err, CM_NOTFOUND, "%s %s is not there",
                        cm_kind_name(kind), name);
    else if (reply->type != REDIS_REPLY_ARRAY)
        st = cm_commit_unexpected(err);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_doc(struct cm_doc *doc_r, const struct redisReply *reply,
              struct cm_err *err)
{
    struct cm_envelope envelope;
    struct cm_err why;
    if (reply->type != REDIS_REPLY_STRING)
        return cm_commit_unexpected(err);
    if (reply->len == 0)
        return cm_err_set(err, CM_NOTFOUND, "not there");
    if (reply->len > CM_INBOX_DOC_MAX + CM_ENVELOPE_OVERHEAD)
        return cm_err_set(err, CM_EPROTO,
                          "the value in Redis is larger than "
                          "a document may be");
    if (cm_envelope_parse(&envelope, reply->str, reply->len, &why) != CM_OK)
        return cm_err_set(err, CM_EPROTO, "the value in Redis is %s", why.msg);
    char *text = malloc(envelope.doc_len + 1);
    if (!text)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    memcpy(text, envelope.doc, envelope.doc_len);
    text[envelope.doc_len] = '\0';
    *doc_r = (struct cm_doc){.rev = envelope.rev,
                             .seq = envelope.seq,
                             .ord = envelope.ord,
                             .text = text,
                             .len = envelope.doc_len};
    return CM_OK;
}

enum cm_status
cm_commit_get(struct cm_commits *commits, enum cm_kind kind, const char *name,
              struct cm_doc *doc_r, struct cm_err *err)
{
    struct cm_buf key;
    char last[24];
    struct redisReply *reply = NULL;
    cm_buf_init(&key, 4096);
    cm_buf_printf(&key, "%s%s:%s", commits->keys.cfg, cm_kind_name(kind), name);
    snprintf(last, sizeof last, "%d", CM_INBOX_DOC_MAX + CM_ENVELOPE_OVERHEAD);
    enum cm_status st = cm_buf_status(&key);
    if (st == CM_OK) {
        const char *argv[] = {"GETRANGE", key.data, "0", last};
        st = cm_commit_call(commits, NULL, &reply, 0, 4, argv, NULL, err);
    }
    if (st == CM_OK)
        st = cm_commit_doc(doc_r, reply, err);
    cm_link_reply_free(&reply);
    cm_buf_fini(&key);
    return st;
}

/* --- lists --- */

void
cm_names_free(char ***names)
{
    for (char **at = *names; at && *at; at++)
        free(*at);
    free(*names);
    *names = NULL;
}

enum cm_status
cm_commit_texts(char ***texts_r, size_t *n_r, const struct redisReply *reply,
                struct cm_err *err)
{
    if (reply->type != REDIS_REPLY_ARRAY)
        return cm_commit_unexpected(err);
    char **texts = calloc(reply->elements + 1, sizeof *texts);
    enum cm_status st = texts ? CM_OK : CM_ENOMEM;
    for (size_t i = 0; st == CM_OK && i < reply->elements; i++) {
        const struct redisReply *at = reply->element[i];
        if (at->type != REDIS_REPLY_STRING)
            st = cm_commit_unexpected(err);
        else if (!(texts[i] = strndup(at->str, at->len)))
            st = CM_ENOMEM;
    }
    if (st == CM_ENOMEM)
        cm_err_set(err, st, "out of memory");
    if (st != CM_OK) {
        cm_names_free(&texts);
        return st;
    }
    if (n_r)
        *n_r = reply->elements;
    *texts_r = texts;
    return CM_OK;
}

enum cm_status
cm_commit_list(struct cm_commits *commits, enum cm_kind kind,
               const char *prefix, const char *after, int limit,
               char ***names_r, size_t *n_r, struct cm_err *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d",
             limit > CM_LIST_MAX ? CM_LIST_MAX : limit);
    const char *argv[] = {
        commits->keys.seq, "list", cm_kind_name(kind), prefix, after, number};
    struct redisReply *reply = NULL;
    enum cm_status st = cm_commit_call(commits, &commits->documents, &reply, 1,
                                       6, argv, NULL, err);
    if (st == CM_OK)
        st = cm_commit_texts(names_r, n_r, reply, err);
    cm_link_reply_free(&reply);
    return st;
}

enum cm_status
cm_commit_seq(struct cm_commits *commits, char **epoch_r, int64_t *seq_r,
              struct cm_err *err)
{
    const char *argv[] = {"MGET", commits->keys.epoch, commits->keys.seq};
    struct redisReply *reply = NULL;
    enum cm_status st =
        cm_commit_call(commits, NULL, &reply, 0, 3, argv, NULL, err);
    if (st != CM_OK)
        return st;
    const struct redisReply *epoch = NULL, *seq = NULL;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
        epoch = reply->element[0];
        seq = reply->element[1];
    }
    if (!epoch)
        st = cm_commit_unexpected(err);
    else if (epoch->type != REDIS_REPLY_STRING)
        st = cm_err_set(err, CM_NOTFOUND, "Redis holds no documents of ours");
    else if (!(*epoch_r = strndup(epoch->str, epoch->len)))
        st = cm_err_set(err, CM_ENOMEM, "out of memory");
    else
        *seq_r =
            seq->type == REDIS_REPLY_STRING ? strtoll(seq->str, NULL, 10) : 0;
    cm_link_reply_free(&reply);
    return st;
}
