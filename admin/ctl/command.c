/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the commands share. An answer of another kind than 2xx becomes sentences
 * on standard error and an exit code in one place, so that scripts can rely on
 * both.
 */
#include "admin/ctl/command.h"
#include "milter/model/json.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_CTL_DOCUMENT_BYTES (8u << 20)

const char *
cm_ctl_arg(const struct cm_ctl_args *args, const char *name, size_t nth)
{
    for (size_t i = 0; i < args->ngiven; i++)
        if (strcmp(args->given[i].flag->name, name) == 0 && nth-- == 0)
            return args->given[i].value;
    return NULL;
}

int
cm_ctl_fail(int code, const char *fmt, ...)
{
    va_list args;
    fputs("chaosctl: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    return code;
}

void *
cm_ctl_own(void *p)
{
    if (!p)
        exit(cm_ctl_fail(CM_CTL_INTERNAL, "out of memory"));
    return p;
}

static int
exit_code(long status)
{
    if (status == 401 || status == 403)
        return CM_CTL_FORBIDDEN;
    if (status == 404)
        return CM_CTL_NO;
    if (status == 429 || status == 503)
        return CM_CTL_UNAVAILABLE;
    return status < 500 ? CM_CTL_REFUSED : CM_CTL_INTERNAL;
}

/* Printable, whatever the daemon sent. */
static void
complain(const char *text)
{
    fputs("chaosctl: ", stderr);
    for (; *text && *text != '\n'; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7F ? '?' : *text,
              stderr);
    fputc('\n', stderr);
}

/* One sentence, or an object that holds one. */
static const char *
sentence(const json_t *value)
{
    if (json_is_object(value))
        value = json_object_get(value, "detail");
    return json_string_value(value);
}

static void
complain_all(const struct cm_ctl_answer *answer)
{
    const json_t *said = json_object_get(answer->json, "errors");
    if (!said)
        said = json_object_get(answer->json, "detail");
    if (!said)
        said = json_object_get(answer->json, "message");
    if (json_is_array(said) && json_array_size(said) > 0) {
        for (size_t i = 0; i < json_array_size(said); i++) {
            const char *one = sentence(json_array_get(said, i));
            complain(one ? one : "an error without words");
        }
    } else if (json_is_string(said)) {
        complain(json_string_value(said));
    } else if (answer->text[0]) {
        complain(answer->text);
    } else {
        cm_ctl_fail(0, "the daemon answered %ld", answer->status);
    }
}

int
cm_ctl_do(struct cm_ctl *ctl, const char *method, const char *path,
          const struct json_t *body, struct cm_ctl_answer *answer_r)
{
    struct cm_err err;
    if (cm_ctl_call(ctl->client, method, path, body, NULL, answer_r, &err) !=
        CM_OK)
        return cm_ctl_fail(CM_CTL_UNAVAILABLE, "%s", err.msg);
    if (answer_r->status >= 200 && answer_r->status < 300)
        return 0;
    complain_all(answer_r);
    if (answer_r->status == 401)
        cm_ctl_fail(0, "the key comes from CHAOSCTL_KEY, CHAOSCTL_KEY_FILE or "
                       "--key-file");
    int code = exit_code(answer_r->status);
    cm_ctl_answer_fini(answer_r);
    return code;
}

char *
cm_ctl_path(const char *fmt, const char *first, const char *second)
{
    char *a = cm_ctl_own(cm_ctl_escape(first ? first : ""));
    char *b = cm_ctl_own(cm_ctl_escape(second ? second : ""));
    size_t cap = strlen(fmt) + strlen(a) + strlen(b) + 1;
    char *path = cm_ctl_own(malloc(cap)), *to = path;
    const char *next = a;
    for (; *fmt; fmt++) {
        if (fmt[0] == '%' && fmt[1] == 's') {
            to = stpcpy(to, next);
            next = b;
            fmt++;
        } else {
            *to++ = *fmt;
        }
    }
    *to = '\0';
    free(a);
    free(b);
    return path;
}

struct json_t *
cm_ctl_read_document(const char *file)
{
    bool standard = strcmp(file, "-") == 0;
    FILE *in = standard ? stdin : fopen(file, "re");
    char *text = cm_ctl_own(malloc(CM_CTL_DOCUMENT_BYTES));
    struct cm_err err = {CM_OK, ""};
    json_t *doc = NULL;
    if (!in) {
        cm_ctl_fail(0, "%s: cannot be read", file);
    } else {
        size_t len = fread(text, 1, CM_CTL_DOCUMENT_BYTES, in);
        if (len == CM_CTL_DOCUMENT_BYTES)
            cm_ctl_fail(0, "%s: is longer than %u bytes", file,
                        CM_CTL_DOCUMENT_BYTES - 1);
        else if (cm_json_parse(&doc, text, len, &err) != CM_OK)
            cm_ctl_fail(0, "%s: %s", file, err.msg);
    }
    if (in && !standard)
        fclose(in);
    free(text);
    return doc;
}
