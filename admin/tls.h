/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_TLS_H
#define CM_TLS_H

#include "milter/err.h"

/*
 * What the HTTP server shows its clients: a certificate chain and the private
 * key to it, as PEM texts.
 */
struct cm_tls {
    char *certificate; /* owned, NUL-terminated; the server's own first */
    char *key;         /* owned, NUL-terminated; wiped before it is freed */
};

/*
 * cm_tls_load - read both files, and see that they belong together, so that a
 * mistake is told at start and not by the first client. To be called before
 * privileges are dropped: a key is often root's alone.
 *
 * tls_r  out, the caller's until cm_tls_free
 *
 * CM_OK, also when the certificate has expired (that is logged); CM_EINVAL: no
 * PEM, a key with a passphrase or of another certificate, a key that everybody
 * may read; CM_EIO; CM_ENOMEM. err names the setting and the file.
 */
enum cm_status cm_tls_load(struct cm_tls **tls_r, const char *certificate_path,
                           const char *key_path,
                           struct cm_err *err) CM_MUST_CHECK;
void cm_tls_free(struct cm_tls **tls);

#endif
