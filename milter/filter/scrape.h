/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SCRAPE_H
#define CM_SCRAPE_H

#include "milter/err.h"

struct cm_buf;

/*
 * One page over HTTP, for Prometheus: GET /metrics and nothing else. A thread
 * and a table of fixed size, so that whoever connects, as often and as slowly
 * as he likes, takes neither memory nor time from the mail.
 */
#define CM_SCRAPE_CLIENTS     16
#define CM_SCRAPE_HEAD_BYTES  4096
#define CM_SCRAPE_DEADLINE_MS 5000 /* from connect to the last byte */

struct cm_scrape;

/*
 * cm_scrape_open - listen on address, "127.0.0.1:9125" or "[::1]:9125".
 * CM_OK, CM_EINVAL, CM_EIO (the port is taken), CM_ENOMEM.
 */
enum cm_status cm_scrape_open(struct cm_scrape **scrape_r, const char *address,
                              struct cm_err *err) CM_MUST_CHECK;

/* cm_scrape_start - serve what page appends; called on the thread. */
enum cm_status cm_scrape_start(struct cm_scrape *scrape,
                               void (*page)(void *arg, struct cm_buf *buf),
                               void *arg, struct cm_err *err) CM_MUST_CHECK;

/* cm_scrape_close - at once, started or not; NULL-safe. */
void cm_scrape_close(struct cm_scrape **scrape);

#endif
