/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmicrohttpd takes PEM texts and says little about what it dislikes in them,
 * so they are looked at here first, by libcrypto, which is linked for the
 * hashes anyway. Giving the library paths instead of texts was rejected: it
 * would read them after privileges are gone.
 */
#include "admin/tls.h"
#include "milter/log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CM_TLS_FILE_BYTES (1 << 20)

void
cm_tls_free(struct cm_tls **tls)
{
    struct cm_tls *old = *tls;
    *tls = NULL;
    if (!old)
        return;
    if (old->key)
        explicit_bzero(old->key, strlen(old->key));
    free(old->key);
    free(old->certificate);
    free(old);
}

static enum cm_status
read_all(int fd, char *text, size_t cap, size_t *len_r)
{
    size_t len = 0;
    ssize_t n;
    while ((n = read(fd, text + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    *len_r = len;
    return n < 0 ? CM_EIO : CM_OK;
}

/* The file as a text, the caller's to free. */
static enum cm_status
read_file(char **text_r, const char *setting, const char *path,
          mode_t forbidden, struct cm_err *err)
{
    struct stat st;
    size_t len;
    char *text = NULL;
    enum cm_status status = CM_EIO;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        cm_err_set(err, status, "%s: %s: %s", setting, path, strerror(errno));
    } else if (st.st_mode & forbidden) {
        status = cm_err_set(err, CM_EINVAL,
                            "%s: %s may be read by everybody: chmod o-r it",
                            setting, path);
    } else if (st.st_size >= CM_TLS_FILE_BYTES) {
        status = cm_err_set(err, CM_EINVAL, "%s: %s is no certificate or key",
                            setting, path);
    } else if (!(text = malloc((size_t)st.st_size + 1))) {
        status = cm_err_set(err, CM_ENOMEM, "out of memory");
    } else {
        status = read_all(fd, text, (size_t)st.st_size + 1, &len);
        if (status != CM_OK)
            cm_err_set(err, status, "%s: %s: %s", setting, path,
                       strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    if (status == CM_OK)
        *text_r = text;
    else
        free(text);
    return status;
}

/* Asked for a passphrase, libcrypto would ask the terminal. */
static int
no_passphrase(char *buf, int cap, int writing, void *arg)
{
    (void)buf;
    (void)cap;
    (void)writing;
    (void)arg;
    return -1;
}

static X509 *
parse_certificate(const char *pem)
{
    BIO *in = BIO_new_mem_buf(pem, -1);
    X509 *cert = in ? PEM_read_bio_X509(in, NULL, no_passphrase, NULL) : NULL;
    BIO_free(in);
    return cert;
}

static EVP_PKEY *
parse_key(const char *pem)
{
    BIO *in = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key =
        in ? PEM_read_bio_PrivateKey(in, NULL, no_passphrase, NULL) : NULL;
    BIO_free(in);
    return key;
}

static enum cm_status
check(const struct cm_tls *tls, const char *certificate_path,
      const char *key_path, struct cm_err *err)
{
    X509 *cert = parse_certificate(tls->certificate);
    EVP_PKEY *key = parse_key(tls->key);
    enum cm_status status = CM_OK;
    if (!cert)
        status = cm_err_set(err, CM_EINVAL,
                            "admin.tls_certificate: %s holds no certificate in "
                            "PEM",
                            certificate_path);
    else if (!key)
        status = cm_err_set(err, CM_EINVAL,
                            "admin.tls_key: %s holds no private key in PEM "
                            "without a passphrase",
                            key_path);
    else if (X509_check_private_key(cert, key) != 1)
        status = cm_err_set(err, CM_EINVAL,
                            "admin.tls_key: %s is the key of another "
                            "certificate than %s",
                            key_path, certificate_path);
    else if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
        cm_log_warn("what=tls certificate=%s error=\"it has expired\"",
                    certificate_path);
    X509_free(cert);
    EVP_PKEY_free(key);
    return status;
}

enum cm_status
cm_tls_load(struct cm_tls **tls_r, const char *certificate_path,
            const char *key_path, struct cm_err *err)
{
    struct cm_tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return cm_err_set(err, CM_ENOMEM, "out of memory");
    enum cm_status status = read_file(
        &tls->certificate, "admin.tls_certificate", certificate_path, 0, err);
    if (status == CM_OK)
        status = read_file(&tls->key, "admin.tls_key", key_path, S_IROTH, err);
    if (status == CM_OK)
        status = check(tls, certificate_path, key_path, err);
    if (status == CM_OK)
        *tls_r = tls;
    else
        cm_tls_free(&tls);
    return status;
}
