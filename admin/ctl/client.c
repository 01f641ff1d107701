/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libcurl with the few options that we need. The key travels in a header made
 * here, never on a command line, in a URL or through a redirect (there are none
 * to follow). A proxy from the environment is not used: the daemon is a
 * neighbour, and the key is not a proxy's to see.
 */
#include "admin/ctl/client.h"
#include "milter/buf.h"
#include "milter/model/json.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CM_CTL_ANSWER_BYTES (64u << 20)
#define CM_CTL_LINE_BYTES   (1u << 20)
#define CM_CTL_CONNECT_MS   5000L
#define CM_CTL_TOTAL_MS     120000L

struct cm_ctl_client {
    CURL *curl;
    char *url; /* without a slash at its end */
    char *key_header;
    char *ca_file;
};

enum cm_status
cm_ctl_client_new(struct cm_ctl_client **client_r, const char *url,
                  const char *key, const char *ca_file, struct cm_err *err)
{
    struct cm_ctl_client *client = calloc(1, sizeof *client);
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        free(client);
        return cm_err_set(err, CM_EINVAL,
                          "'%s' is not a URL such as http://127.0.0.1:8025",
                          url);
    }
    bool ok = client && (client->curl = curl_easy_init()) &&
              (client->url = strdup(url)) &&
              (!ca_file || (client->ca_file = strdup(ca_file))) &&
              (!key || asprintf(&client->key_header, "X-API-Key: %s", key) > 0);
    if (!ok) {
        cm_ctl_client_free(&client);
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    }
    for (size_t n = strlen(client->url); client->url[n - 1] == '/'; n--)
        client->url[n - 1] = '\0';
    *client_r = client;
    return CM_OK;
}

void
cm_ctl_client_free(struct cm_ctl_client **client)
{
    struct cm_ctl_client *old = *client;
    *client = NULL;
    if (!old)
        return;
    curl_easy_cleanup(old->curl);
    free(old->url);
    free(old->key_header);
    free(old->ca_file);
    free(old);
}

static size_t
keep_body(char *data, size_t size, size_t n, void *arg)
{
    struct cm_buf *body = arg;
    cm_buf_add(body, data, size * n);
    return cm_buf_status(body) == CM_OK ? size * n : 0;
}

static size_t
keep_etag(char *data, size_t size, size_t n, void *arg)
{
    struct cm_ctl_answer *answer = arg;
    int len = (int)(size * n);
    if (len > 5 && strncasecmp(data, "ETag:", 5) == 0) {
        char line[128];
        snprintf(line, sizeof line, "%.*s", len - 5, data + 5);
        snprintf(answer->etag, sizeof answer->etag, "%.63s",
                 line + strspn(line, " \t"));
        answer->etag[strcspn(answer->etag, "\r\n")] = '\0';
    }
    return size * n;
}

/* Appends to a list; false, and the list as it was, when memory is short. */
static bool
add_header(struct curl_slist **list, const char *header)
{
    struct curl_slist *longer =
        header ? curl_slist_append(*list, header) : *list;
    if (header && !longer)
        return false;
    *list = longer;
    return true;
}

static bool
prepare(struct cm_ctl_client *client, const char *method, const char *url,
        struct curl_slist *headers)
{
    CURL *c = client->curl;
    curl_easy_reset(c);
    return curl_easy_setopt(c, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_PROXY, "") == CURLE_OK &&
           (!client->ca_file ||
            curl_easy_setopt(c, CURLOPT_CAINFO, client->ca_file) == CURLE_OK) &&
           curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CM_CTL_CONNECT_MS) ==
               CURLE_OK;
}

static enum cm_status
perform(struct cm_ctl_client *client, struct cm_err *err)
{
    char why[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, why);
    CURLcode code = curl_easy_perform(client->curl);
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, NULL);
    if (code == CURLE_OK)
        return CM_OK;
    return cm_err_set(
        err, code == CURLE_OPERATION_TIMEDOUT ? CM_ETIMEOUT : CM_EIO, "%s: %s",
        client->url, why[0] ? why : curl_easy_strerror(code));
}

/* What came, as JSON where it is that. */
static enum cm_status
finish(struct cm_ctl_client *client, struct cm_buf *body,
       struct cm_ctl_answer *answer, struct cm_err *err)
{
    size_t len = body->len;
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &answer->status);
    answer->text = len > 0 ? cm_buf_take(body, NULL) : strdup("");
    if (!answer->text)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    if (len > 0 &&
        cm_json_parse(&answer->json, answer->text, len, NULL) == CM_ENOMEM)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    return CM_OK;
}

enum cm_status
cm_ctl_call(struct cm_ctl_client *client, const char *method, const char *path,
            const struct json_t *body, const char *if_match,
            struct cm_ctl_answer *answer_r, struct cm_err *err)
{
    struct curl_slist *headers = NULL;
    struct cm_buf received;
    char *url = NULL, *text = NULL, *match = NULL;
    enum cm_status status = CM_ENOMEM;
    *answer_r = (struct cm_ctl_answer){.status = 0};
    cm_buf_init(&received, CM_CTL_ANSWER_BYTES);
    bool ok =
        asprintf(&url, "%s%s", client->url, path) > 0 &&
        (!body || (text = cm_json_dump(body, NULL))) &&
        (!if_match || asprintf(&match, "If-Match: %s", if_match) > 0) &&
        add_header(&headers, client->key_header) &&
        add_header(&headers, match) && add_header(&headers, "Expect:") &&
        add_header(&headers, text ? "Content-Type: application/json" : NULL) &&
        prepare(client, method, url, headers);
    if (!ok) {
        cm_err_set(err, status, "out of memory");
        goto done;
    }
    CURL *c = client->curl;
    if (text || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0)
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, text ? text : "");
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, CM_CTL_TOTAL_MS);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, keep_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &received);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, keep_etag);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, answer_r);
    status = perform(client, err);
    if (status == CM_OK)
        status = finish(client, &received, answer_r, err);
done:
    if (status != CM_OK)
        cm_ctl_answer_fini(answer_r);
    curl_slist_free_all(headers);
    cm_buf_fini(&received);
    free(match);
    free(text);
    free(url);
    return status;
}

void
cm_ctl_answer_fini(struct cm_ctl_answer *answer)
{
    json_decref(answer->json);
    free(answer->text);
    *answer = (struct cm_ctl_answer){.status = 0};
}

/* A stream on its way to whoever reads lines. */
struct stream {
    struct cm_buf line;
    cm_ctl_line_fn *fn;
    void *arg;
    bool ended;
};

static size_t
cut_lines(char *data, size_t size, size_t n, void *arg)
{
    struct stream *stream = arg;
    for (size_t i = 0; i < size * n && !stream->ended; i++) {
        if (data[i] != '\n') {
            cm_buf_add(&stream->line, &data[i], 1);
            continue;
        }
        if (cm_buf_status(&stream->line) == CM_OK)
            stream->ended = !stream->fn(
                stream->arg, stream->line.data ? stream->line.data : "");
        cm_buf_reset(&stream->line);
    }
    return stream->ended ? 0 : size * n;
}

enum cm_status
cm_ctl_stream(struct cm_ctl_client *client, const char *path,
              const char *last_id, cm_ctl_line_fn *line, void *arg,
              long *http_status_r, struct cm_err *err)
{
    struct curl_slist *headers = NULL;
    struct stream stream = {.fn = line, .arg = arg};
    char *url = NULL, *resume = NULL;
    enum cm_status status = CM_ENOMEM;
    cm_buf_init(&stream.line, CM_CTL_LINE_BYTES);
    *http_status_r = 0;
    bool ok =
        asprintf(&url, "%s%s", client->url, path) > 0 &&
        (!last_id || asprintf(&resume, "Last-Event-ID: %s", last_id) > 0) &&
        add_header(&headers, client->key_header) &&
        add_header(&headers, "Accept: text/event-stream") &&
        add_header(&headers, resume) && prepare(client, "GET", url, headers);
    if (ok) {
        curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, cut_lines);
        curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, &stream);
        status = perform(client, err);
        curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, http_status_r);
        if (stream.ended)
            status = CM_OK;
    } else {
        cm_err_set(err, status, "out of memory");
    }
    curl_slist_free_all(headers);
    cm_buf_fini(&stream.line);
    free(resume);
    free(url);
    return status;
}

char *
cm_ctl_escape(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = malloc(3 * strlen(text) + 1), *to = out;
    for (const char *c = text; out && *c; c++) {
        unsigned char byte = (unsigned char)*c;
        if ((byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
            (byte >= 'a' && byte <= 'z') || strchr("-._~@", byte)) {
            *to++ = (char)byte;
        } else {
            *to++ = '%';
            *to++ = hex[byte >> 4];
            *to++ = hex[byte & 15];
        }
    }
    if (out)
        *to = '\0';
    return out;
}
